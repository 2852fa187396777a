"""Under which id a run goes on in a service that it logs to."""

from pathlib import Path


def find_id(folder: Path, checkpoint: str | None, name: str) -> str | None:
    """The id that the run folder keeps, else that of the run whose checkpoint it starts from.

    Args:
        folder: of the run.
        checkpoint: what the run resumes from, a file or a run folder; None for neither.
        name: of the file in a run folder that holds the id.

    Returns:
        str | None: None where the service does not know the run yet.
    """
    known = find_folder(folder, checkpoint, name)
    return (known / name).read_text().strip() if known else None


def find_folder(folder: Path, checkpoint: str | None, name: str) -> Path | None:
    """The run folder whose id ``find_id`` returns."""
    folders = [folder]
    if checkpoint:
        path = Path(checkpoint).resolve()
        folders += [path, *path.parents[:2]]  # a checkpoint lies in RUN/checkpoints

    for path in folders:
        if (path / name).is_file():
            return path
    return None


def sweep_name(folder: Path, sweep_dir: str) -> str | None:
    """What a sweep is called, of whose folder that of a run is a part; None for a single run."""
    sweep = Path(sweep_dir).resolve()
    return sweep.name if sweep in folder.resolve().parents else None
