"""The examples run, on small budgets, with weights that the test makes."""

import re

import pytest

from examples import digits, lightning_digits, text
from tests.deploy.test_pretrained import DEEP_SET, run_folder

NOISY = ("ignore::UserWarning", "ignore::FutureWarning", "ignore:.*LeafSpec.*")


@pytest.fixture
def weights(tmp_path) -> str:
    """SGD with momentum, nearly: theta before any meta-training."""
    run_folder(tmp_path / "run", {**DEEP_SET, "alpha": 2.0, "beta": 1e-3})
    return str(tmp_path / "run")


def numbers(output: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+\.\d+", output)]


def test_digits(weights, capsys) -> None:
    digits.main([weights, "--steps", "40"])
    heading, first, *_, last = capsys.readouterr().out.splitlines()
    assert heading.split() == ["step", "learned", "AdamW", "1e-3", "AdamW", "1e-2"]
    assert len(set(numbers(first))) == 1  # the same start
    assert all(after < before for before, after in zip(numbers(first), numbers(last), strict=True))


@pytest.mark.filterwarnings(*NOISY)
def test_lightning(weights, capsys) -> None:
    lightning_digits.main([weights, "--steps", "30"])
    first, last = numbers(capsys.readouterr().out)
    assert last < first - 0.05


def test_text(weights, capsys) -> None:
    text.main([weights, "--steps", "12"])
    learned, adamw = numbers(capsys.readouterr().out.replace("1e-3", ""))
    assert max(learned, adamw) < 4.9  # log 128 is 4.85, and the start is above it


def test_unknown_weights_are_named(capsys) -> None:
    with pytest.raises(ValueError, match="nothing is called 'no-such'"):
        digits.main(["no-such"])
