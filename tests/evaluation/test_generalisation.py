"""The generalisation card, and the configs that it and the suite are made of."""

import math
import re

import pytest
from omegaconf import OmegaConf

from learned_opt.compose import config_files
from learned_opt.compose.overlay import lay_over
from learned_opt.compose.setting_configs import setting_configs
from learned_opt.core import errors
from learned_opt.evaluation.generalisation import card, first_failures
from learned_opt.evaluation.intervals import Interval
from tests.compose.test_configs import check_nodes, composed


def summary(
    point: str,
    optimizer: str,
    loss: float,
    diverged: int = 0,
    behind: bool = False,
    axis: str = "wider",
) -> dict:
    final = Interval(loss, loss, loss)
    where = {"task": "mlp", "axis": axis, "point": point}
    counts = {"diverged": diverged, "num_seeds": 4}
    return {
        **where,
        "optimizer": optimizer,
        "final_loss": final,
        **counts,
        "behind": behind,
        "ahead": not behind,
    }


def test_the_first_failure_of_each_axis_is_marked() -> None:
    summaries = [summary(point, "adam", 2.0) for point in ("x1", "x2", "x4", "x8")]
    summaries += [
        summary(point, "unf", loss, behind=loss > 2)
        for point, loss in (("x1", 1.0), ("x2", 3.0), ("x8", 4.0))
    ]
    summaries += [
        summary("x4", "unf", math.inf, diverged=3, behind=True),
        summary("half", "adam", 2.0, axis="narrower"),
    ]
    left_out = [
        {
            "task": "mlp",
            "axis": "narrower",
            "point": "half",
            "optimizer": "unf",
            "reason": "another network",
        }
    ]
    cards = card([*summaries, summary("", "unf", 9.0, axis="")], left_out, ["unf"], "adam")
    assert list(cards["mlp"]) == ["wider", "narrower"]
    points = {point.point: point for point in cards["mlp"]["wider"]["unf"]}
    assert [points[p].status for p in ("x1", "x2", "x4", "x8")] == [
        "",
        "behind",
        "diverged",
        "behind",
    ]
    assert [points[p].first for p in ("x1", "x2", "x4", "x8")] == [False, True, False, False]
    words = {p: str(points[p]) for p in points}
    assert words["x1"] == "x0.5 ahead"
    assert words["x2"] == "x1.5 behind, **first failure**"
    assert words["x4"] == "diverged 3/4"
    (unfit,) = cards["mlp"]["narrower"]["unf"]
    assert (unfit.status, unfit.detail, unfit.first) == ("does not fit", "another network", False)


def base() -> dict:
    network = {"_target_": "MLP", "hidden_sizes": [32, 10]}
    return {
        "horizon": 200,
        "horizons": None,
        "card": None,
        "network": network,
        "task": {"batch": 128, "net": "${network}"},
    }


def test_a_point_is_laid_over_the_task() -> None:
    cfg = OmegaConf.create(base())
    wide = lay_over(cfg, OmegaConf.create({"network": {"hidden_sizes": "x2"}, "horizon": "x0.5"}))
    assert wide.task.net.hidden_sizes == [64, 20]
    assert wide.horizon == 100
    other = lay_over(
        cfg,
        OmegaConf.create({"network": {"_target_": "CNN", "channels": [4]}, "task": {"batch": 8}}),
    )
    assert other.task == {
        "batch": 8,
        "net": {"_target_": "CNN", "channels": [4]},
    }  # nothing of the MLP is left
    assert cfg == OmegaConf.create(base())


def test_a_network_gets_so_many_layers_more() -> None:
    cfg = OmegaConf.create(base())
    deeper = lay_over(cfg, {"network": {"hidden_sizes": "+2"}, "horizon": "+1"})
    assert deeper.network.hidden_sizes == [32, 10, 10, 10]
    assert deeper.horizon == 201
    with pytest.raises(errors.UsageError, match=r"the card adds 2 to task.net, but it is {.*neith"):
        lay_over(cfg, {"task": {"net": "+2"}})


def test_where_each_optimizer_falls_behind_is_one_sentence() -> None:
    summaries = [summary(point, "adam", 2.0, axis=axis) for axis in "ab" for point in ("x2", "x4")]
    for name, bad in (("unf", {("a", "x4")}), ("lstm", set())):
        for axis in "ab":
            for point in ("x2", "x4"):
                is_bad = (axis, point) in bad
                loss = 3.0 if is_bad else 1.0
                summaries.append(summary(point, name, loss, behind=is_bad, axis=axis))
    summaries.append(summary("cnn", "adam", 2.0, axis="c"))
    summaries.append(summary("cnn", "lstm", 1.0, axis="c"))
    axes = card(summaries, [], ["unf", "lstm"], "adam")["mlp"]
    assert first_failures(axes, "adam") == [
        "unf first falls behind tuned adam at a x4 (x1.5); never at b (up to x4); does not fit c",
        "lstm falls behind tuned adam nowhere that it fits; never at a (up to x4), b (up to x4), "
        "c (up to cnn)",
    ]


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        (
            {"network": {"width": 3}},
            "the card changes network.width, but the task has no such key.",
        ),
        ({"network": {"_target_": "x2"}}, None),
        ({"task": {"net": "x2"}}, "the card multiplies task.net by 2, but it is"),
    ],
)
def test_points_that_change_nothing_are_refused(difference, message) -> None:
    cfg = OmegaConf.create(base())
    if message is None:
        assert lay_over(cfg, OmegaConf.create(difference)).network == difference["network"]
        return
    with pytest.raises(errors.UsageError, match=re.escape(message)):
        lay_over(cfg, OmegaConf.create(difference))


def test_tasks_come_at_every_horizon_and_then_their_cards() -> None:
    axes = {"longer": {"x2": {"horizon": "x2"}}, "batch": {"small": {"task": {"batch": 4}}}}
    cfg = OmegaConf.create(base() | {"horizons": [50, 100], "card": axes})
    settings = [
        (setting.task, setting.axis, setting.point, setting.cfg.horizon)
        for setting in setting_configs({"a": cfg, "b": cfg})
    ]
    assert settings[:4] == [
        ("a", "", "", 50),
        ("a", "", "", 100),
        ("b", "", "", 50),
        ("b", "", "", 100),
    ]
    assert settings[4:6] == [("a", "longer", "x2", 400), ("a", "batch", "small", 200)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizons": 50}, "horizons must be a list of inner steps such as [200,400], got 50."),
        ({"card": {"longer": 3}}, "card.longer must map each point to what differs there, got 3."),
    ],
)
def test_malformed_settings_are_named(change, message) -> None:
    with pytest.raises(errors.UsageError, match=re.escape(message)):
        list(setting_configs({"a": OmegaConf.create(base() | change)}))


@pytest.mark.parametrize("name", config_files.options("card"))
def test_every_point_of_every_card_fits_its_task(name) -> None:
    task = name.removesuffix("_sizes")
    cfg = composed(f"+task={task}", f"+card={name}", name="evaluate")
    settings = list(setting_configs({task: cfg}))
    assert len(settings) > (8 if name == task else 6)
    for setting in settings:
        assert check_nodes(setting.cfg.task) > 2
        assert setting.cfg.benchmark.horizon == setting.cfg.horizon
