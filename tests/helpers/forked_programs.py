"""Programs that are forked from one process with everything imported: 300 starts in minutes.

``python -m tests.helpers.forked_programs`` answers requests, a JSON line each; ``ForkServer`` is
its other end.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

FRONT_DOOR = "learned_opt.commands.front_door"
IMPORTED_ONCE = (  # for all that are forked
    "lightning",
    "sklearn.datasets",
    "matplotlib.pyplot",
    "pandas",
    "learned_opt.compose.contenders",
    "learned_opt.compose.meta_training",
    "learned_opt.compose.sizing",
    "learned_opt.deploy.optimizer",
    "learned_opt.reporting.run_report",
)
PAGES = os.sysconf("SC_PAGE_SIZE") / 2**20  # MiB of a page
OUTPUT = "output.txt"
ERRORS = "errors.txt"


class Ending(NamedTuple):
    """What became of a program."""

    code: int  # minus the number of the signal that ended it
    output: str
    errors: str
    seconds: float
    peak: float  # MiB above the process that it was forked from
    cut: str  # why the server has ended it: "time", "memory", or empty


class ForkServer:
    """Starts programs, one at a time.

    Args:
        most_memory: MiB that a program may take.
    """

    def __init__(self, most_memory: float = 4096) -> None:
        command = [sys.executable, "-m", "tests.helpers.forked_programs", str(most_memory)]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "WANDB_MODE": "offline",
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "100",
        }
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(
        self,
        words: list[str],
        folder: Path,
        module: str = FRONT_DOOR,
        seconds: float = 600.0,
        kill_after: float | None = None,
    ) -> Ending:
        """Run ``python -m MODULE WORDS`` in a folder, and wait for its end.

        Args:
            words: of the command line.
            folder: there already; its output is written beside it.
            module: with a function ``main``.
            seconds: until it is ended as endless.
            kill_after: seconds until it is killed on purpose.
        """
        request = {
            "words": words,
            "folder": str(folder),
            "module": module,
            "seconds": seconds if kill_after is None else kill_after,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Ending(**json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)


def _child(words: list[str], folder: Path, module: str) -> None:
    """Be the program; does not return."""
    code = 1
    try:
        os.setsid()
        for number, name in ((1, OUTPUT), (2, ERRORS)):
            file = os.open(_beside(folder, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)

        sys.argv = ["learned_opt", *words]
        importlib.import_module(module).main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _beside(folder: Path, name: str) -> Path:
    return folder.with_name(f"{folder.name}-{name}")


def _memory(pid: int) -> float:
    """MiB of a process in memory."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGES
    except (OSError, IndexError):
        return 0.0


def _serve(request: dict, most_memory: float) -> Ending:
    folder = Path(request["folder"])
    base = _memory(os.getpid())
    begun = time.monotonic()
    pid = os.fork()
    if not pid:
        _child(request["words"], folder, request["module"])

    peak = 0.0
    cut = ""
    ended, status = 0, 0
    while not ended:
        peak = max(peak, _memory(pid) - base)
        if time.monotonic() - begun > request["seconds"]:
            cut = "time"
        if peak > most_memory:
            cut = "memory"
        if cut:
            os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, 0)
        else:
            time.sleep(0.002)
            ended, status = os.waitpid(pid, os.WNOHANG)

    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it has left behind
    texts = []
    for name in (OUTPUT, ERRORS):
        texts.append(_beside(folder, name).read_text(errors="replace"))
    seconds = time.monotonic() - begun
    return Ending(os.waitstatus_to_exitcode(status), *texts, seconds, peak, cut)


def _spare_time() -> None:
    """Pictures and measured times take most of a tiny run, and are not what is tested here."""
    from matplotlib.figure import Figure

    from learned_opt.evaluation import step_times

    Figure.savefig = lambda _, file, **__: file.write(b"a picture")
    step_times.time_steps.__wrapped__.__defaults__ = (1, 1)  # inner steps, repeats


def main() -> None:
    """Answer requests until there are no more."""
    for module in IMPORTED_ONCE:
        importlib.import_module(module)
    _spare_time()
    most_memory = float(sys.argv[1])
    for line in sys.stdin:
        ending = _serve(json.loads(line), most_memory)
        print(json.dumps(ending._asdict()), flush=True)


if __name__ == "__main__":
    main()
