"""The examples run, on small budgets, with weights that the test makes."""

import re
from pathlib import Path

import pytest

from examples import (
    digits,
    gpt,
    lightning_digits,
    meta_train,
    moe_approximation,
    moe_on_disk,
    nowcasting,
    quadratize,
    text,
)
from tests.deploy.test_pretrained import DEEP_SET, run_folder

NOISY = ("ignore::UserWarning", "ignore::FutureWarning", "ignore:.*LeafSpec.*")

KINDS = ("AdamW 0.003", "Muon 0.003")


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


def test_nowcasting(capsys) -> None:
    nowcasting.main(["--steps", "30", "--seeds", "1", "--task", "cnn"])
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["rate", "AdamW", "linear"]
    assert len(rows) == 5
    assert all(alone != predicted for *_, alone, predicted in map(numbers, rows))


def test_text(weights, capsys) -> None:
    text.main([weights, "--steps", "12"])
    learned, adamw = numbers(capsys.readouterr().out.replace("1e-3", ""))
    assert max(learned, adamw) < 4.9  # log 128 is 4.85, and the start is above it


def test_gpt_goes_on_from_what_is_there(real_pictures, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(gpt, "RATES", (3e-3,))
    monkeypatch.setattr(gpt, "WIDTH", 16)
    words = ["--steps", "3", "--out", str(tmp_path)]
    gpt.main(words)
    first = capsys.readouterr().out
    *rows, _ = first.splitlines()
    assert [row.split(" loss ")[0].strip() for row in rows] == [*gpt.PACKAGED, *KINDS]
    assert (tmp_path / "gpt.png").stat().st_size > 10_000

    monkeypatch.setattr(gpt, "train", None)
    gpt.main(words)
    assert capsys.readouterr().out == first


def test_meta_train(tmp_path, capsys) -> None:
    tiny = {"steps": 2, "horizon": 4, "seeds": 2, "num_lrs": 2, "compile": False}
    meta_train.main(**tiny, folder=str(tmp_path / "theta"))
    shown = capsys.readouterr().out
    assert shown.startswith("MetaTrained(UNFOptimizer on digits, ")
    for name in ("learned", "adam", "sgdm"):
        assert re.search(rf"^{name} +\d", shown, re.MULTILINE)
    assert "LearnedOptimizer[UNFOptimizer]" in shown


@pytest.mark.parametrize("tree", [[], ["--tree", "2"]])
@pytest.mark.parametrize("eps", ["0.1", "0.2"])
def test_moe_approximation_keeps_the_promised_error(tree, eps, capsys) -> None:
    moe_approximation.main(["--eps", eps, "--inputs", "2", "--points", "4000", *tree])
    heading, constant, affine = capsys.readouterr().out.splitlines()
    assert heading.split() == ["experts", "number", "in", "use", "stored", "promised", "measured"]
    for row in (constant, affine):
        promised, measured = numbers(row)
        assert promised == float(eps)
        assert 0.1 * promised < measured <= promised
    num_constant, num_affine = (int(row.split()[1]) for row in (constant, affine))
    assert num_affine < num_constant / 4
    assert [row.split()[2] for row in (constant, affine)] == ["1", "3"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_moe_on_disk_needs_little_memory_and_gives_equal_outputs(capsys) -> None:
    moe_on_disk.main(["--experts", "200", "--keep", "4", "--batches", "2"])
    size, whole, kept, difference = capsys.readouterr().out.splitlines()
    file_bytes, whole_bytes, kept_bytes = (
        int(re.search(r"([\d,]+) bytes", line)[1].replace(",", "")) for line in (size, whole, kept)
    )
    assert whole_bytes > file_bytes > 50e6
    assert kept_bytes < 0.6 * file_bytes
    assert float(difference.split()[-1]) < 1e-4  # of outputs near 1


def test_quadratize_starts_as_the_same_function_and_trains_on(capsys) -> None:
    quadratize.main(["--steps", "40", "--more", "40"])
    before, heading, first, *_, last = capsys.readouterr().out.splitlines()
    assert heading.split() == ["step", "plain", "quadratic"]
    start, trained = numbers(before)
    assert trained < start - 0.1
    plain, quadratic = numbers(first)
    assert plain == quadratic < start
    assert all(after < plain - 0.1 for after in numbers(last))


def test_unknown_weights_are_named(capsys) -> None:
    with pytest.raises(ValueError, match="nothing is called 'no-such'"):
        digits.main(["no-such"])
