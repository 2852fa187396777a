"""What submitit asks about the state of jobs, answered by squeue."""

from typing import Any

from learned_opt.runtime import slurm

POLL_SECONDS = 60  # longest time between two looks into the queue


def queue_watcher() -> Any:
    """A watcher of submitit that asks squeue, which every Slurm has.

    submitit asks sacct; without an accounting database that fails, and a cancelled job is waited
    for without end.
    """
    from submitit.slurm.slurm import SlurmInfoWatcher

    class QueueWatcher(SlurmInfoWatcher):
        def _make_command(self) -> list[str] | None:
            return slurm.QUEUE_COMMAND if self._registered - self._finished else None

        def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
            states = slurm.parse_queue(string if isinstance(string, str) else string.decode())
            return {job: {"State": _as_submitit_says(states.get(job))} for job in self._registered}

    return QueueWatcher(delay_s=POLL_SECONDS)


def _as_submitit_says(state: str | None) -> str:
    """A state for submitit, which takes one that it does not know, such as CONFIGURING, for an end.

    Those in which a job is not over are RUNNING for it.
    """
    return "RUNNING" if slurm.is_alive(state) else state or "GONE FROM THE QUEUE"
