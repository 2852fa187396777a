"""The folders of a run and of a sweep: the name of every file that may lie there, once for all."""

from dataclasses import dataclass
from pathlib import Path

THETA = "theta.safetensors"
THETA_METADATA = "theta.json"
THETA_AVERAGE = "theta_average.safetensors"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class RunFolder:
    """Where the files of a run are.

    Args:
        path: the folder itself.

    >>> RunFolder(Path("runs/mlp/1")).metrics.as_posix()
    'runs/mlp/1/metrics.csv'
    """

    path: Path

    # what meta-training leaves

    @property
    def theta(self) -> Path:
        """The meta-parameters that training came to."""
        return self.path / THETA

    @property
    def theta_metadata(self) -> Path:
        """How to rebuild the optimizer around theta, and where it comes from."""
        return self.path / THETA_METADATA

    @property
    def theta_average(self) -> Path:
        """An average of theta over outer steps, with its ``.json``, where one was kept."""
        return self.path / THETA_AVERAGE

    @property
    def checkpoints(self) -> Path:
        """Folder of the last few ``step_N.ckpt``, each with its checksum beside it."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """A row for each outer step, CSV."""
        return self.path / "metrics.csv"

    @property
    def diagnostics(self) -> Path:
        """What the updates do to each inner tensor over inner time, CSV."""
        return self.path / "diagnostics.csv"

    @property
    def replays(self) -> Path:
        """Folder of recipes of unrolls that were not finite."""
        return self.path / "replay"

    @property
    def trace(self) -> Path:
        """A few profiled outer steps, for chrome://tracing and ui.perfetto.dev."""
        return self.path / "trace.json.gz"

    # what an evaluation leaves

    @property
    def evaluation(self) -> Path:
        """A row for each optimizer and held-out seed, and what a reader must know of them, JSON."""
        return self.path / "evaluation.json"

    @property
    def curves(self) -> Path:
        """The training loss of every held-out run at every inner step, Parquet."""
        return self.path / "curves.parquet"

    @property
    def report(self) -> Path:
        """Everything on one page that needs no other file, HTML."""
        return self.path / "report.html"

    @property
    def report_markdown(self) -> Path:
        """The same as Markdown, its pictures beside it."""
        return self.path / "report.md"

    # what Hydra, Slurm, W&B, TensorBoard and MLflow keep

    @property
    def config(self) -> Path:
        """The composed config of the run, YAML."""
        return self.path / ".hydra" / "config.yaml"

    @property
    def hydra_config(self) -> Path:
        """Hydra's part of the composed config: the command, its verb and folders of configs."""
        return self.path / ".hydra" / "hydra.yaml"

    @property
    def overrides(self) -> Path:
        """The words of the command line."""
        return self.path / ".hydra" / "overrides.yaml"

    @property
    def job(self) -> Path:
        """Whether the run goes on, has finished or has failed, where, and why, JSON."""
        return self.path / "job.json"

    @property
    def identity(self) -> Path:
        """The config that the training of this folder began with, as composed, YAML."""
        return self.path / "identity.yaml"

    @property
    def lock(self) -> Path:
        """Locked by the process that writes into this folder, and says which that is, JSON."""
        return self.path / ".lock"

    @property
    def starts(self) -> Path:
        """Commit, changes to it and versions at every start of the run, JSON."""
        return self.path / "starts.json"

    def code_changes(self, digest: str) -> Path:
        """What a start had changed in the commit that it names, as a patch.

        Args:
            digest: first digits of the SHA-256 of the patch.
        """
        return self.path / f"code-{digest}.diff"

    @property
    def wandb_id(self) -> Path:
        """The id under which a resumed run goes on in W&B."""
        return self.path / "wandb_id.txt"

    @property
    def wandb_earlier(self) -> Path:
        """Other run folders in which the W&B run has been before, the first first, one a line."""
        return self.path / "wandb_earlier.txt"

    @property
    def wandb(self) -> Path:
        """What W&B keeps until it is uploaded."""
        return self.path / "wandb"

    @property
    def tensorboard(self) -> Path:
        """Folder of event files, a new one for each start of the run."""
        return self.path / TENSORBOARD

    @property
    def mlflow_id(self) -> Path:
        """The id under which a resumed run goes on in MLflow."""
        return self.path / "mlflow_id.txt"

    @property
    def dashboard(self) -> Path:
        """The W&B workspace of the run, or of the sweep whose folder this is, JSON."""
        return self.path / "dashboard.json"

    @property
    def hydra(self) -> Path:
        """Folder of what Hydra writes; a folder without it is that of no run."""
        return self.path / ".hydra"


@dataclass(frozen=True)
class SweepFolder:
    """Where the files of a sweep are; its jobs have folders in it.

    Args:
        path: the folder itself.

    >>> SweepFolder(Path("runs/sweeps/1")).plan.as_posix()
    'runs/sweeps/1/multirun.yaml'
    """

    path: Path

    @property
    def plan(self) -> Path:
        """Hydra's record of the command that launched the sweep."""
        return self.path / "multirun.yaml"

    @property
    def jobs(self) -> list[RunFolder]:
        """The folders of its jobs, by their numbers; those included that wait in a queue."""
        return self._folders(".hydra", "job.json")

    @property
    def runs(self) -> list[RunFolder]:
        """The folders of its jobs, by their numbers; those that have begun."""
        return self._folders(".hydra")

    def _folders(self, *names: str) -> list[RunFolder]:
        """Folders that hold something of these names, but for links to one of them."""
        folders = set()
        for name in names:
            for path in self.path.glob(f"*/{name}"):
                if not path.parent.is_symlink():
                    folders.add(path.parent)
        return [RunFolder(path) for path in sorted(folders, key=_by_number)]

    @property
    def best_trial(self) -> Path:
        """The best trial of a study, YAML."""
        return self.path / "optimization_results.yaml"

    @property
    def submission(self) -> Path:
        """Commit, changes to it and versions when the jobs were submitted, JSON."""
        return self.path / "submission.json"

    def logs(self, job: str) -> list[Path]:
        """What a launcher's job has printed on stderr."""
        return sorted(self.path.glob(f".submitit/{job}/*_log.err"))


def _by_number(path: Path) -> tuple[int, int, str]:
    """Key for sorting: numbers first, compared as numbers."""
    return (0, int(path.name), "") if path.name.isdigit() else (1, 0, path.name)
