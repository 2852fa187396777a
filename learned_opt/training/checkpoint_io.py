"""How Lightning writes checkpoint files here: whole, with a checksum."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from typing_extensions import override

from learned_opt.core.files import write_text, write_whole
from learned_opt.training.checkpoint_files import CheckpointError, by_step, checksum_path


class WholeFiles(TorchCheckpointIO):
    """Lightning's checkpoint files, each written in one move and with a checksum beside it."""

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None
    ) -> None:
        """Write the file.

        Raises:
            CheckpointError: the disk is full or cannot be written; what was there before is
                untouched.
        """
        path = Path(path)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        digest = hashlib.sha256(content.getbuffer()).hexdigest()

        try:
            # the checksum first: a checkpoint without one counts as damaged
            write_text(checksum_path(path), f"{digest}  {path.name}\n")
            write_whole(path, content.getbuffer())
        except OSError as error:
            if not path.exists():
                checksum_path(path).unlink(missing_ok=True)
            raise CheckpointError(
                f"cannot write checkpoint {path}: {error.strerror}. {_still_there(path.parent)} "
                "Make room and start the same command again with hydra.run.dir set to the run "
                "folder."
            ) from error


def _still_there(folder: Path) -> str:
    steps = list(by_step(folder))
    return f"The checkpoint of outer step {steps[0]} is whole." if steps else "There is none yet."
