"""Many trainings of predictors: they are kept, make a curve, and are told apart."""

import json

import numpy as np
import pytest
from scipy.stats import kendalltau

from learned_opt.evaluation.prediction.fit import fit
from learned_opt.evaluation.prediction.rank_difference import tau_difference
from tests.evaluation.test_prediction import TINY, run


@pytest.mark.usefixtures("real_pictures")
def test_finished_trainings_are_kept_and_sizes_make_a_curve(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "build", *TINY)
    words = [*TINY, "~predictors.unf", "train_sizes=[40,20,40]"]  # as sorted, once
    trained = []

    def stops_after_three(constructor, spec, data, settings, seed):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append((len(data["train"][1]), seed))
        return fit(constructor, spec, data, settings, seed)

    monkeypatch.setattr("learned_opt.evaluation.prediction.trials.fit", stops_after_three)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        run(monkeypatch, "predict", *words)
    assert trained == [(20, 0), (20, 1), (20, 0)]

    trained.clear()
    monkeypatch.setattr(
        "learned_opt.evaluation.prediction.trials.fit",
        lambda *arguments: trained.append(arguments[-1]) or fit(*arguments),
    )
    run(monkeypatch, "predict", *words)
    assert trained == [1, 0, 1, 0, 1]
    folder = tmp_path / "runs/zoo-cnn"
    page = (folder / "prediction.json").read_text()
    rows = json.loads(page)["predictors"]
    assert [(row["predictor"], row["networks"]) for row in rows] == [
        ("statnn", 20),
        ("deep_set", 20),
        ("statnn", 40),
        ("deep_set", 40),
    ]
    assert (folder / "prediction_curve.png").stat().st_size > 5_000

    # what was kept gives the same page; another setting is trained anew
    trained.clear()
    run(monkeypatch, "predict", *words)
    assert trained == []
    assert (folder / "prediction.json").read_text() == page
    run(monkeypatch, "predict", *words, "fit.lr=2e-3", "num_seeds=1")
    assert trained == [0, 0, 0, 0]

    capsys.readouterr()
    for sizes, sentence in (
        ("[20,1000]", "from 2 to 48, the networks of the training split, got 1000"),
        ("[20,few]", "must be a list of whole numbers, got [20, 'few']"),
        ("20", "must be a list of whole numbers, got 20"),
    ):
        with pytest.raises(SystemExit) as stop:
            run(monkeypatch, "predict", *words, f"train_sizes={sizes}")
        assert stop.value.code == 2
        assert sentence in capsys.readouterr().err.replace("\n", " ")

    kept = sorted((folder / "fits").glob("statnn 20 seed 0 *.json"))
    for text, sentence in (("{", "is damaged"), ('{"prediction": {}}', "it holds no prediction")):
        for file in kept:
            file.write_text(text)
        with pytest.raises(SystemExit):
            run(monkeypatch, "predict", *words)
        assert sentence in capsys.readouterr().err


def test_difference_of_taus_against_resampling_one_by_one() -> None:
    source = np.random.default_rng(3)
    success = source.random(40).round(2)
    left = [success + 0.3 * source.standard_normal(40) for _ in range(3)]
    right = [success + 0.6 * source.standard_normal(40) for _ in range(4)]
    interval = tau_difference(left, right, success)

    def tau(predicted, index):
        return kendalltau(predicted[index], success[index]).statistic

    everything = np.arange(40)
    left_mean = np.mean([tau(row, everything) for row in left])
    right_mean = np.mean([tau(row, everything) for row in right])
    assert interval.mean == pytest.approx(left_mean - right_mean, abs=1e-12)

    resampled = []
    for _ in range(2_000):
        index = source.integers(40, size=40)
        by_side = []
        for rows in (left, right):
            seeds = source.integers(len(rows), size=len(rows))
            by_side.append(np.mean([tau(rows[seed], index) for seed in seeds]))
        resampled.append(by_side[0] - by_side[1])
    expected = np.quantile(resampled, (0.025, 0.975))
    assert [interval.low, interval.high] == pytest.approx(expected, abs=0.02)
