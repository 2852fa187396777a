"""Data sets: embedded, local folders in the hub's layout, and what happens without a network."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.data import hub, source
from tasks.data.embedded import digits
from tasks.data.images import LabelledImages
from tasks.data.text import hub_text

SHARED = Path(__file__).parents[3] / "shared" / "data"


def encode(pixels: np.ndarray, kind: str) -> dict:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture
def folder(tmp_path):
    """A made-up data set in the hub's layout; returns the root and its raw pixels."""
    import datasets

    def write(
        kind: str = "PNG", shape: tuple[int, ...] = (6, 6, 3), columns=("img", "label")
    ) -> tuple[Path, np.ndarray]:
        pixels = np.random.default_rng(0).integers(0, 256, (8, *shape), dtype=np.uint8)
        features = datasets.Features(
            {columns[0]: datasets.Image(), columns[1]: datasets.ClassLabel(num_classes=4)}
        )
        for split in ("train", "test"):
            rows = {columns[0]: [encode(p, kind) for p in pixels], columns[1]: [0, 1, 2, 3] * 2}
            path = tmp_path / "made_up" / "data" / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
        return tmp_path, pixels

    return write


def png(kind: str, value: int = 200) -> dict:
    """An image of one of Pillow's modes."""
    buffer = io.BytesIO()
    Image.new(kind, (6, 6), value).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write_splits(root: Path, train: dict, test: dict | None = None, is_image: bool = True) -> Path:
    """A data set whose splits are these columns, with no features but the image's."""
    import datasets

    for split, columns in (("train", train), ("test", test or train)):
        data = datasets.Dataset.from_dict(columns)
        if is_image:
            data = data.cast_column("img", datasets.Image())
        path = root / "made_up" / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        data.to_parquet(path)
    return root


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, -1], "column label must hold whole numbers from 0 to 99999, got -1 in row 1."),
        ([0.0, 1.7], "column label must hold whole numbers from 0 to 99999, got 0.0 in row 0."),
        ([0, None], "column label must hold whole numbers from 0 to 99999, got None in row 1."),
        ([0, 10**9], "column label must hold whole numbers from 0 to 99999, got 1000000000 in"),
        (["a", "b"], "column label must hold whole numbers from 0 to 99999, got 'a' in row 0."),
        ([False, True], "column label must hold whole numbers from 0 to 99999, got False in row"),
    ],
)
def test_labels_that_are_no_classes_are_one_sentence(tmp_path, labels, message) -> None:
    root = write_splits(tmp_path, {"img": [png("L")] * 2, "label": labels})
    with pytest.raises(ValueError, match=f"^{message}"):
        load(root)


def test_the_test_split_has_no_class_of_its_own(tmp_path) -> None:
    train = {"img": [png("L")] * 2, "label": [0, 1]}
    root = write_splits(tmp_path, train, train | {"label": [0, 2]})
    with pytest.raises(ValueError, match="which are 0 to 1, got 2"):
        load(root)


@pytest.mark.parametrize("kind", ["P", "I;16", "1"])
def test_numbers_that_are_no_intensities_are_refused(tmp_path, kind) -> None:
    root = write_splits(tmp_path, {"img": [png("L"), png(kind)], "label": [0, 1]})
    with pytest.raises(ValueError, match=r"^column img, row 1: an image must be of 8 bits in one"):
        load(root)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([png("L"), {"bytes": b"garbage", "path": None}], "^column img, row 1: cannot identify"),
        ([png("L"), {"bytes": png("L")["bytes"][:45], "path": None}], "^column img, row 1: "),
        ([png("L"), None], "^column img, row 1: there is no image"),
        ([png("L"), png("RGB")], "must have as many channels, got: 1, 3"),
    ],
)
def test_images_that_are_none_are_one_sentence(tmp_path, images, message) -> None:
    root = write_splits(tmp_path, {"img": images, "label": [0, 1]})
    with pytest.raises(ValueError, match=message):
        load(root)


def test_a_column_of_numbers_or_of_paths_holds_no_images(tmp_path) -> None:
    """A path is never opened: the file may be anything of this machine."""
    for column, message in (([1, 2], "must hold images"), (["/etc/passwd"] * 2, "is no image")):
        root = write_splits(tmp_path, {"img": column, "label": [0, 1]}, is_image=False)
        with pytest.raises(ValueError, match=message):
            load(root)


def test_a_column_of_numbers_holds_no_text(tmp_path) -> None:
    root = write_splits(tmp_path, {"text": [1, 2]}, is_image=False)
    with pytest.raises(ValueError, match="text must hold texts, got 1 in row 0 of the train split"):
        hub_text("made_up", "nobody/nothing", str(root), None, "text", "byte", 9)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def load(root: Path | None, size: int = 6, **changes) -> LabelledImages:
    settings = {
        "name": "made_up",
        "hub_id": "nobody/nothing",
        "image_column": "img",
        "label_column": "label",
    }
    return hub.images(
        root=None if root is None else str(root), image_size=size, **(settings | changes)
    )


def test_digits() -> None:
    data = digits()
    assert data.train_images.shape == (1437, 1, 8, 8)
    assert data.test_images.shape == (360, 1, 8, 8)
    assert (data.train_images.min(), data.train_images.max()) == (0, 1)
    counts = torch.bincount(data.test_labels)
    assert counts.min() >= 34  # every class is held out in the same share
    assert data.fingerprint == digits().fingerprint != digits(0.3).fingerprint
    with pytest.raises(ValueError, match=r"test_fraction must lie between 0 and 1, got 1.5"):
        digits(1.5)


@pytest.mark.parametrize("shape", [(6, 6, 3), (6, 6)], ids=["colour", "grey"])
def test_local_folder_gives_the_pixels(folder, shape) -> None:
    root, pixels = folder(shape=shape)
    channels_last = pixels if pixels.ndim == 4 else pixels[..., None]
    expected = torch.from_numpy(channels_last).movedim(-1, 1) / 255
    for path in (root, root / "made_up"):
        data = load(path)
        torch.testing.assert_close(data.train_images, expected)
        assert data.train_labels.tolist() == [0, 1, 2, 3] * 2
        assert data.num_classes == 4
        assert data.name == "made_up 6x6"


def test_resizing_keeps_the_mean(folder) -> None:
    root, pixels = folder(shape=(6, 6))
    data = load(root, size=3)
    assert data.input_shape == (1, 3, 3)
    assert data.train_images.mean().item() == pytest.approx(pixels.mean() / 255, abs=0.02)


def test_jpeg_pixels_are_said_to_be_jpeg(folder) -> None:
    root, _ = folder("JPEG")
    assert load(root).name == "made_up 6x6 (JPEG pixels)"


def test_errors_name_the_setting(folder, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"^root: no parquet files in .*empty"):
        load(tmp_path / "empty")
    with pytest.raises(ValueError, match="image_size must be at least 1, got 0"):
        load(None, size=0)
    root, _ = folder()
    with pytest.raises(ValueError, match=r"lacks the column picture; it has: img, label"):
        load(root, image_column="picture")
    broken = tmp_path / "made_up" / "data" / "train-00000-of-00001.parquet"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"^root: the files in .* cannot be read"):
        load(root)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "silent"])
def test_an_unreachable_hub_fails_fast_and_says_what_to_do(monkeypatch, caplog, endpoint) -> None:
    import socket

    monkeypatch.setattr(source, "PATIENCE", 1.0)
    message = r"cannot be reached .*; set root to a folder .* or use the embedded data set digits"
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts and never answers
        address = (
            f"http://127.0.0.1:{server.getsockname()[1]}" if endpoint == "silent" else endpoint
        )
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
        start = time.perf_counter()
        with pytest.raises(ConnectionError, match=message):
            load(None)
        assert time.perf_counter() - start < 10
        assert "data sets come from the local cache alone" in caplog.text


@pytest.mark.parametrize(
    ("name", "columns", "size", "train", "mean"),
    [
        ("fashion_mnist", ("image", "label"), 28, 60_000, 0.2860),
        ("cifar10", ("img", "label"), 32, 50_000, None),
    ],
)
@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared copies of the data are not here")
def test_real_copies(name, columns, size, train, mean) -> None:
    data = load(SHARED, size, name=name, image_column=columns[0], label_column=columns[1])
    assert data.train_images.shape[0] == train
    assert data.test_images.shape[0] == 10_000
    assert data.num_classes == 10
    assert ("JPEG" in data.name) == (name == "cifar10")
    if mean is not None:
        assert data.train_images.mean().item() == pytest.approx(mean, abs=1e-4)
