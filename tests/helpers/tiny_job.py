"""A job of Hydra without torch: what surrounds it is that of a run.

``python -m tests.helpers.tiny_job action=NAME`` does in a run folder what the action says.
"""

import errno
import os
import signal
import time
from pathlib import Path

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files
from learned_opt.core.errors import RunError, UsageError
from learned_opt.runtime import run_identity, slurm

ConfigStore.instance().store(
    "tiny",
    {
        "action": "nothing",
        "seed": 0,
        "trainer": {"max_steps": 4},
        "hydra": {
            "callbacks": {"job_record": {"_target_": "learned_opt.runtime.job_record.JobRecord"}},
            "job": {"name": "learned_opt", "chdir": False},
            "run": {"dir": "runs/${now:%Y}"},
            "sweep": {"dir": "sweeps/${now:%Y}"},
        },
    },
)
# launcher and sweeper of the configs; what is searched is on the command line
PLUGINS = Path(config_files.config_dir()) / "hydra"
LAUNCHER = yaml.safe_load((PLUGINS / "launcher" / "workstation.yaml").read_text())
SWEEPER = yaml.safe_load((PLUGINS / "sweeper" / "outer.yaml").read_text())
ConfigStore.instance().store("workstation", LAUNCHER, group="hydra/launcher")
ConfigStore.instance().store("outer", SWEEPER | {"params": None}, group="hydra/sweeper")


@hydra.main(version_base="1.3", config_path=None, config_name="tiny")
@cli.one_line_errors
def run(cfg: DictConfig) -> float:
    """Do what the config says; the value is the number of the seed."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    composed = {"action": cfg.action, "seed": cfg.seed, "trainer": dict(cfg.trainer)}

    if cfg.action == "refuse":
        raise UsageError("sigma must be positive, got -1.")
    if cfg.action == "fail":
        raise RunError("it cannot go on.")
    if cfg.action == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if cfg.action == "exit":
        raise SystemExit(128 + signal.SIGTERM)

    run_identity.keep(folder, composed)
    if cfg.action == "wait":
        print("waits", flush=True)
        time.sleep(60)
    if cfg.action == "meet":
        _meet(folder)
    if cfg.action == "die_once" and HydraConfig.get().job.num == 2:
        marker = folder.parent / "died"
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if cfg.action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return float(cfg.seed)


def _meet(folder: Path) -> None:
    """Wait for the other ranks in the run folder, as those of a process group do."""
    (folder / f"rank-{os.getpid()}").touch()
    while len(list(folder.glob("rank-*"))) < slurm.num_ranks():
        time.sleep(0.05)


if __name__ == "__main__":
    cli.entry_point(run, needs_task=False)
