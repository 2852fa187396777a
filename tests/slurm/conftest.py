"""A Slurm for the tests of this folder, started once; they are skipped where there is none."""

import tempfile
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing


@pytest.fixture(scope="session")
def slurm():
    if reason := missing():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(
        prefix="slurm-"
    ) as folder:  # munge wants one that all may enter; pytest's is not
        Path(folder).chmod(0o755)
        cluster = Cluster(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
