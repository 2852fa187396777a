"""What other ranks do in the tests of launching; imports nothing heavy, for each starts anew."""

import os
import time
from pathlib import Path


def tell(folder: str) -> None:
    """Write the process and the rank of this one into a file."""
    told = f"{os.getpid()} {os.environ['LOCAL_RANK']} {os.environ['WORLD_SIZE']}"
    Path(folder, "partial").write_text(told)
    Path(folder, "partial").rename(Path(folder, "rank"))


def tell_and_fail(folder: str) -> None:
    """Tell, then end with an error."""
    tell(folder)
    os._exit(3)


def tell_and_wait(folder: str) -> None:
    """Tell, then go on until somebody ends the process."""
    tell(folder)
    time.sleep(1000)
