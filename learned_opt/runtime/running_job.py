"""Whether the run of a folder still goes on, asked again and again."""

import socket
import time
from collections.abc import Mapping

from learned_opt.runtime import job_file, slurm
from learned_opt.runtime.run_folder import RunFolder

ALIVE = ("running", "submitted")
BETWEEN_QUEUES = 60.0  # seconds between two questions to Slurm


class Running:
    """What ``job.json`` of a run says of its state, and whether that can be true.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._queue: Mapping[str, str] | None = None  # None: there is nobody to ask
        self._asked = -BETWEEN_QUEUES

    def goes_on(self) -> bool:
        """Whether the run has not ended; a process that cannot be asked is believed.

        Raises:
            UsageError: ``job.json`` is damaged.
        """
        record = job_file.read(self.folder.path)
        if record.get("state") not in ALIVE:
            return False
        if record["job"]:
            queue = self._asked_queue()
            return queue is None or job_file.is_alive(record, queue)
        return record["host"] != socket.gethostname() or job_file.is_alive(record, {})

    def sentence(self) -> str:
        """The state in words, such as ``running on HOST since TIME``."""
        record = job_file.read(self.folder.path)
        if not record:
            return "there is no job.json, so that nothing is known of its state"

        state = record["state"]
        if state not in ALIVE:
            why = f": {record['error']}" if record.get("error") else ""
            return (
                f"the run has {state}{why}" if state != "stopped" else f"the run was stopped{why}"
            )
        if not self.goes_on():
            return f"the run was killed; it had been {state} since {record['started']}"
        return f"{state} on {record['host']} since {record['started']}"

    def _asked_queue(self) -> Mapping[str, str] | None:
        if time.monotonic() - self._asked > BETWEEN_QUEUES:
            self._asked = time.monotonic()
            try:
                self._queue = slurm.queue()
            except OSError:
                self._queue = None
        return self._queue
