"""Kills a training at random moments, starts it again each time, and lets it end at last.

``python -m tests.helpers.survivor FOLDER --ranks=2 --kills=20 trainer.max_steps=84`` imports once
and forks every start, so that a kill costs a second and not ten. It prints one JSON line.
"""

import argparse
import importlib
import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

TINY = [
    *("+task=mlp", "compile=false", "meta_optimizer=deep_set", "horizon=6"),
    *("estimator.unroll_length=3", "estimator.num_tasks=4", "logger.csv.flush_every=3"),
    *(
        "callbacks.validation.every=3",
        "callbacks.checkpoints.every=2",
        "callbacks.agreement.every=2",
    ),
    *("benchmark.num_seeds=2", "benchmark.num_chains=2", "benchmark.num_lrs=2"),
]
LONGEST = 120.0  # seconds to wait for a checkpoint
IMPORTED_ONCE = (  # for all that are forked
    "lightning",
    "sklearn.datasets",
    "learned_opt.compose.meta_training",
    "learned_opt.compose.sizing",
)


def begin(words: list[str], folder: Path, environment: dict[str, str]) -> int:
    """Fork one rank; returns its process id, which is also that of its session."""
    if pid := os.fork():
        return pid
    os.setsid()
    os.environ.update(environment)
    with (folder / f"output{environment.get('LOCAL_RANK', '')}.txt").open("a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.argv = ["learned_opt", *TINY, f"hydra.run.dir={folder / 'run'}", *words]
    code = 1
    try:
        from lightning.fabric.utilities.rank_zero import rank_zero_only

        # Lightning has looked before the fork
        rank_zero_only.rank = int(environment.get("LOCAL_RANK", "0"))

        from learned_opt.commands import train

        train.main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start(words: list[str], folder: Path, num_ranks: int) -> list[int]:
    """Fork all ranks, as srun would."""
    folder.mkdir(exist_ok=True)
    if num_ranks == 1:
        return [begin(words, folder, {})]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = [*words, "trainer=ddp_cpu", f"trainer.devices={num_ranks}"]
    return [begin(words, folder, {**address, "LOCAL_RANK": str(rank)}) for rank in range(num_ranks)]


def alive(session: int) -> list[int]:
    """Processes of a session that still run."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rsplit(") ", 1)[1].split()
        except OSError:
            continue  # gone meanwhile
        is_zombie = fields[0] == "Z"
        if int(fields[3]) == session and not is_zombie:
            pids.append(int(entry.name))
    return pids


def last_step(folder: Path) -> int:
    """Outer step of the newest checkpoint, 0 where there is none."""
    files = folder.glob("run/checkpoints/*.ckpt")
    steps = [int(path.stem.removeprefix("step_")) for path in files]
    return max(steps, default=0)


def survive(
    words: list[str], folder: Path, num_ranks: int, num_kills: int, source: random.Random
) -> dict[str, int]:
    """Start again and again; kill one rank some checkpoints and milliseconds after the start."""
    orphans = 0
    for kill in range(num_kills + 1):
        begun = time.monotonic()
        pids = start(words, folder, num_ranks)
        if kill < num_kills:
            goal = last_step(folder) + source.choice([2, 4])
            while last_step(folder) < goal and time.monotonic() - begun < LONGEST:
                time.sleep(0.002)
            time.sleep(source.uniform(0, 0.1))
            os.kill(source.choice(pids), signal.SIGKILL)  # one that has just ended does not mind
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        if (-signal.SIGKILL in codes) != (kill < num_kills) or (kill == num_kills and any(codes)):
            raise SystemExit(f"start {kill} has ended with {codes}, see {folder}")
        deadline = time.monotonic() + 20
        while any(map(alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.05)
        orphans += sum(len(alive(pid)) for pid in pids)
    return {"kills": num_kills, "orphans": orphans}


def main() -> None:
    """A straight run, one on a single rank, and one that is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options, words = parser.parse_known_args()
    for module in IMPORTED_ONCE:
        importlib.import_module(module)
    from learned_opt.commands import train

    train.compare = lambda *_: None  # not what is tested here
    source = random.Random(options.seed)
    survive(words, options.folder / "straight", options.ranks, 0, source)
    if options.ranks > 1:
        survive(words, options.folder / "alone", 1, 0, source)
    print(
        json.dumps(survive(words, options.folder / "killed", options.ranks, options.kills, source))
    )


if __name__ == "__main__":
    main()
