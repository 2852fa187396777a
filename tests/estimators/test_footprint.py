"""Predicted memory against the allocator's records, and what is done with the prediction."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from learned_opt.compose import inner_problems, meta_training, sizing
from learned_opt.core.errors import UsageError
from learned_opt.core.live_bytes import LiveBytes
from learned_opt.core.rng import generator
from learned_opt.estimators.bptt import BPTT
from learned_opt.estimators.es import ES
from learned_opt.estimators.footprint import Footprint, footprint
from learned_opt.estimators.pes import PES
from learned_opt.evaluation.cost.allocator import peak_bytes
from learned_opt.inner.truncation import Constant
from learned_opt.inner.unroll import Unroll
from learned_opt.runtime import memory
from learned_opt.runtime.memory import available_bytes, cgroup_rooms
from learned_opt.runtime.ranks import World
from tests.cases import FAMILIES, OPTIMIZERS, others_slow, spec_of
from tests.compose.test_configs import composed

NUM_TASKS = 7
UNROLL_LENGTH = 9
ESTIMATORS = {
    "pes": partial(PES, sigma=0.1),
    "es": partial(ES, sigma=0.1),
    "bptt": BPTT,
    "bptt_remat": partial(BPTT, remat=True),
}


def make_estimator(
    family: str, optimizer: str, estimator: str, num_tasks: int, length: int, compile: bool = False
):
    problem = FAMILIES[family]()
    unroll = Unroll(problem, OPTIMIZERS[optimizer](spec_of(problem)), compile)
    return ESTIMATORS[estimator](
        unroll=unroll, truncation=Constant(length), num_tasks=num_tasks, unroll_length=length
    )


def theta_of(estimator) -> dict:
    return {name: p.detach() for name, p in estimator.unroll.optimizer.named_parameters()}


def measured_peak(estimator) -> int:
    """Two estimates, the second after a restart of all chains."""

    def run() -> None:
        state = estimator.init_state(theta_of(estimator), generator("measured"))
        for number in range(2):
            _, state = estimator.estimate(theta_of(estimator), state, generator("measured", number))

    return peak_bytes(run, torch.device("cpu"))


def predicted(family: str, optimizer: str, estimator: str, num_tasks: int, length: int) -> int:
    make = partial(make_estimator, family, optimizer, estimator)
    return footprint(make, theta_of(make(1, 2))).peak_bytes(num_tasks, length)


PEAKS = [("mlp", "unf", name) for name in ESTIMATORS]
PEAKS += [("mlp", "sgdm", "pes"), ("transformer", "unf", "pes"), ("cnn", "deep_set", "pes")]
PEAKS += [("quadratic", "adam", "bptt")]
PEAKS_ONCE = (("mlp", "unf", "pes"), ("mlp", "unf", "bptt"), ("mlp", "sgdm", "pes"))


@pytest.mark.parametrize(("family", "optimizer", "estimator"), others_slow(PEAKS, PEAKS_ONCE))
def test_the_eager_peak_is_predicted_within_five_per_cent(family, optimizer, estimator) -> None:
    """Chains are tiny here, so what does not grow with them (kernels' own buffers) weighs
    more than in real runs.
    """
    expected = measured_peak(make_estimator(family, optimizer, estimator, NUM_TASKS, UNROLL_LENGTH))
    assert predicted(family, optimizer, estimator, NUM_TASKS, UNROLL_LENGTH) == pytest.approx(
        expected, rel=0.05
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "estimator", "most"),
    [("mlp", "pes", 1.0), ("mlp", "bptt", 1.03), ("transformer", "pes", 1.0)],
)
def test_the_compiled_peak_lies_between_the_stated_share_and_the_prediction(
    task, estimator, most
) -> None:
    sizes = ("estimator.num_tasks=4", "estimator.unroll_length=5")
    cfg = composed(f"+task={task}", f"estimator={estimator}", *sizes)
    problem = inner_problems.build_problem(cfg, cfg.meta_optimizer, "unf")
    estimator = meta_training.build_estimator(cfg, cfg.estimator, problem.unroll)
    share = measured_peak(estimator) / sizing.size(cfg, {"task": problem}).peak
    assert sizing.LEAST_SHARE_COMPILED < share < most


RESIDENT = """
from pathlib import Path
from tests.estimators.test_footprint import make_estimator, theta_of
from learned_opt.core.rng import generator
estimator = make_estimator("mlp", "unf", "pes", {num_tasks}, 3)
def most():  # resident bytes; getrusage's figure would begin with that of the parent process
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
before = most()
state = estimator.init_state(theta_of(estimator), generator("r"))
estimator.estimate(theta_of(estimator), state, generator("r", 0))
print(most() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc"
)
def test_the_kernel_sees_the_predicted_peak_in_a_process_of_its_own() -> None:
    """The process grows by the estimate and by libraries that load late; two sizes leave
    the estimate alone.
    """
    sizes = (500, 4_000)
    grown = [
        int(
            subprocess.run(
                [sys.executable, "-c", RESIDENT.format(num_tasks=n)],
                cwd=Path(__file__).parents[2],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for n in sizes
    ]
    expected = [predicted("mlp", "unf", "pes", n, 3) for n in sizes]
    assert 0.6 < (grown[1] - grown[0]) / (expected[1] - expected[0]) < 1.3


def test_views_count_once_and_what_was_there_before_does_not() -> None:
    old = torch.zeros(1000)
    with LiveBytes() as live:
        view = old.view(10, 100)
        doubled = view * 2  # 4,000 bytes
        again = doubled.t() + 1  # 4,000 more
        del doubled
        again = again + 1  # takes the place of the freed one
    assert live.peak == 8_000
    del again


def test_the_number_of_tasks_is_the_largest_power_of_two_that_fits() -> None:
    needs = Footprint(fixed=100, task=10, step=1, task_step=2)
    assert needs.peak_bytes(num_tasks=3, unroll_length=5) == 100 + 3 * 10 + 5 * 1 + 3 * 5 * 2
    for limit in range(125, 1000, 37):
        most = sizing.largest(lambda number, limit=limit: needs.peak_bytes(number, 5) <= limit)
        assert needs.peak_bytes(most, 5) <= limit < needs.peak_bytes(2 * most, 5)
    assert sizing.largest(lambda number: False) == 1


TINY = ("+task=mlp", "compile=false", "horizon=4", "estimator.unroll_length=2")
TINY += ("meta_optimizer=sgdm",)


def sized(monkeypatch, available: int, *overrides: str, **settings):
    monkeypatch.setattr(sizing, "available_bytes", lambda device: available)
    cfg = composed(*TINY, *overrides)
    problems = inner_problems.build_problems(cfg, cfg.meta_optimizer, "unf")
    memory = sizing.size(cfg, problems, **settings)
    return sizing.settled(cfg, problems, memory)[0], memory


def test_auto_fills_the_stated_share_and_is_recorded(monkeypatch) -> None:
    cfg, memory_needs = sized(monkeypatch, 2**26, "estimator.num_tasks=auto", "memory_share=0.5")
    assert cfg.estimator.num_tasks == memory_needs.automatic == memory_needs.num_chains / 2
    assert memory_needs.peak <= 2**25 < 2 * memory_needs.peak
    _, again = sized(monkeypatch, 2**26, f"estimator.num_tasks={memory_needs.automatic}")
    assert (again.peak, again.num_chains, again.automatic) == (
        memory_needs.peak,
        memory_needs.num_chains,
        None,
    )
    assert "64 MiB available" in str(memory_needs)
    words = ["+task=mlp", "estimator.num_tasks=auto"]
    assert sizing.resolved(words, 8) == ["+task=mlp", "estimator.num_tasks=8"]


def test_more_ranks_than_tasks_are_refused_before_they_start(monkeypatch) -> None:
    world = World(num_ranks=3, num_local=3)
    message = "num_tasks must be at least the number of ranks, got 2 for 3; raise it, or lower tra"
    with pytest.raises(UsageError, match=message):
        sized(monkeypatch, 2**30, "estimator.num_tasks=2", world=world)


def test_the_tasks_of_a_mix_share_the_memory(monkeypatch) -> None:
    mix = ("+task=mix", "~mix.rnn", "compile=false", "horizon=4", "estimator.unroll_length=2")
    monkeypatch.setattr(sizing, "available_bytes", lambda device: 2**27)
    cfg = composed(*mix, "estimator.num_tasks=auto")
    problems = inner_problems.build_problems(cfg, cfg.meta_optimizer, "deep_set")
    memory_needs = sizing.size(cfg, problems)
    cfg, problems = sizing.settled(cfg, problems, memory_needs)
    assert memory_needs.peak <= 2**26 < 2 * memory_needs.peak
    assert [p.cfg.estimator.num_tasks for p in problems.values()] == [memory_needs.automatic] * 2
    assert cfg.estimator.num_tasks == memory_needs.automatic == memory_needs.num_chains / 4


@pytest.mark.parametrize(
    ("available", "overrides", "message"),
    [
        (
            2**20,
            ("estimator.num_tasks=4", "meta_optimizer=unf"),
            "8 chains needs about .* MiB at its peak, but 1 MiB are available; lower est",
        ),
        (
            2**20,
            ("estimator.num_tasks=auto", "meta_optimizer=unf"),
            "2 chains needs about .* MiB are available; lower the inner network",
        ),
        (2**30, ("memory_share=0",), "memory_share must lie above 0 and not above 1, got 0"),
        (2**30, ("estimator.num_tasks=0",), "num_tasks must be at least 1, got 0"),
        (2**30, ("estimator.num_tasks=many",), "num_tasks must be a number, got 'many'"),
    ],
)
def test_what_cannot_fit_is_refused(monkeypatch, available, overrides, message) -> None:
    with pytest.raises(UsageError, match=message):
        sized(monkeypatch, available, *overrides)


def test_a_compiled_step_is_refused_only_when_its_least_share_does_not_fit(monkeypatch) -> None:
    _, memory_needs = sized(monkeypatch, 2**30, "estimator.num_tasks=4")
    sized(monkeypatch, memory_needs.peak // 2, "estimator.num_tasks=4", "compile=true")
    with pytest.raises(UsageError):
        sized(monkeypatch, memory_needs.peak // 2, "estimator.num_tasks=4")


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_limits_of_control_groups(tmp_path) -> None:
    write(
        tmp_path / "job",
        memory__max=1000,
        memory__current=700,
        memory__stat="anon 5\ninactive_file 100",
    )
    write(tmp_path / "job/step", memory__max="max", memory__current=600)
    assert cgroup_rooms(tmp_path, "0::/job/step\n") == [
        400
    ]  # the limit of the job, above the process
    assert cgroup_rooms(tmp_path, "0::/elsewhere\n1:cpu:/job\n") == []
    write(tmp_path / "memory/a", memory__limit_in_bytes=50, memory__usage_in_bytes=80)
    assert cgroup_rooms(tmp_path, "4:memory:/a\n") == [0]


def test_this_machine_has_some_memory(monkeypatch) -> None:
    assert 2**20 < available_bytes("cpu") < 2**50
    monkeypatch.setattr(memory, "_available_ram", lambda: 2**60)
    monkeypatch.setattr(memory, "cgroup_rooms", lambda root, membership: [7, 5])
    assert available_bytes("cpu") == 5


def test_ranks_share_the_tasks_and_the_memory_of_the_machine(monkeypatch) -> None:
    _, alone = sized(monkeypatch, 2**27, "estimator.num_tasks=auto")
    _, shared = sized(monkeypatch, 2**28, "estimator.num_tasks=auto", world=World(2, 2))
    assert shared.automatic == 2 * alone.automatic
    assert (shared.peak, shared.available) == (alone.peak, alone.available)
    assert "on each of 2 ranks" in str(shared)


def test_auto_of_a_resumed_run_is_the_number_that_its_chains_have(monkeypatch) -> None:
    cfg, memory_needs = sized(monkeypatch, 2**26, "estimator.num_tasks=auto", resumed={"": 3})
    assert cfg.estimator.num_tasks == memory_needs.automatic == 3
