"""A throw-away Slurm on this machine: munged, slurmctld and two slurmd on state of their own.

Needs the packages slurm-wlm and munge, no systemd, no cgroups, no database. Stopped by pid file.
"""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
NUM_NODES, CPUS = 2, 2
PORT = 26817


def missing() -> str:
    """What this machine lacks, or an empty string."""
    absent = [name for name in DAEMONS if shutil.which(name) is None]
    if absent:
        return (
            f"no {', '.join(absent)} here; apt-get install --no-install-recommends slurm-wlm munge"
        )
    return (
        ""
        if os.geteuid() == 0
        else "slurmctld and munged are started as root, and this is another user"
    )


def wait_until(condition: Callable[[], bool], seconds: float, event: str) -> None:
    """Poll twice a second.

    Raises:
        TimeoutError: it did not come true.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds} s still no {event}.")
        time.sleep(0.5)


class Cluster:
    """Two virtual nodes of two CPUs.

    Args:
        folder: everything lies below it.
        grace: seconds that a pre-empted job gets.
    """

    def __init__(self, folder: Path, grace: int = 4) -> None:
        self.folder, self.grace = folder, grace
        # the virtual node names do not resolve, so ranks must be told where they meet
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "MASTER_ADDR": "127.0.0.1"}

    def start(self) -> None:
        """Start the daemons and wait until the nodes are idle."""
        (self.folder / "state").mkdir(parents=True)
        self.folder.chmod(0o755)
        self._configure()
        munge = {name: self.folder / f"munge.{name}" for name in ("key", "socket", "seed", "log")}
        munge["key"].touch(mode=0o600)
        munge["key"].write_bytes(secrets.token_bytes(128))
        options = [
            f"--{name}{'-file' if name != 'socket' else ''}={path}" for name, path in munge.items()
        ]
        self.call("munged", *options, f"--pid-file={self.folder}/munged.pid")
        self.call("slurmctld", "-c")
        for node in range(1, NUM_NODES + 1):
            (self.folder / f"spool.n{node}").mkdir()
            self.call("slurmd", "-N", f"n{node}")
        idle = ("sinfo", "--noheader", "--partition=low", "--states=idle", "--format=%D")
        wait_until(
            lambda: self.call(*idle, check=False).strip() == str(NUM_NODES), 30, "idle nodes"
        )

    def _configure(self) -> None:
        host = socket.gethostname().split(".")[0]
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10 // 2**20
        rest = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory={memory}"
        nodes = [f"NodeName=n{node} Port={PORT + node} {rest}" for node in range(1, NUM_NODES + 1)]
        values = {
            "host": host,
            "user": getpass.getuser(),
            "port": PORT,
            "folder": self.folder,
            "grace": self.grace,
        }
        text = (Path(__file__).parent / "slurm.conf.in").read_text()
        for name, value in {**values, "nodes": "\n".join(nodes)}.items():
            text = text.replace(f"@{name}@", str(value))
        (self.folder / "slurm.conf").write_text(text)

    def stop(self) -> None:
        """Cancel the jobs, then end each daemon by its pid file."""
        self.call("scancel", f"--user={getpass.getuser()}", check=False)
        for file in [*sorted(self.folder.glob("slurmd.*.pid")), *self.folder.glob("[sm]*d.pid")]:
            text = file.read_text().strip()
            if text:
                _end(int(text))

    def call(self, *command: str, check: bool = True) -> str:
        """Run a command of Slurm; returns its output."""
        environment = {**os.environ, **self.environment}
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        if check and result.returncode:
            logs = "\n".join(
                path.read_text(errors="replace")[-1500:] for path in self.folder.glob("*.log")
            )
            raise RuntimeError(f"{' '.join(command)}: {result.stderr}\n{logs}")
        return result.stdout

    def state(self, job: str) -> str:
        """State of a job, e.g. RUNNING, or of one element of an array."""
        return self.call(
            "squeue", "--noheader", "--array", "--states=all", f"--job={job}", "--format=%T"
        ).strip()

    def final_state(self, job: str) -> str:
        """State of a job once it has ended; its result is written a moment before."""
        wait_until(lambda: self.state(job) not in ("RUNNING", "COMPLETING"), 60, f"end of {job}")
        return self.state(job)

    def restarts(self, job: str) -> int:
        """How often a job has been started again."""
        return int(
            self.call("scontrol", "--oneliner", "show", "job", job).split("Restarts=")[1].split()[0]
        )

    def release(self, job: str) -> None:
        """Start a requeued job, which Slurm would hold back for two minutes."""
        wait_until(lambda: self.state(job) == "PENDING", 60, f"pending {job}")
        while self.state(job) == "PENDING":
            self.call("scontrol", "update", f"jobid={job}", "StartTime=now", check=False)
            time.sleep(1)


def _end(pid: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for _ in range(50):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return
            time.sleep(0.1)
