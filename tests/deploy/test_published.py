"""Authors' files: read, recognised, refused with the byte, and deployed."""

from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from hydra.utils import instantiate
from torch import nn

from learned_opt import LearnedOptimizer
from learned_opt.compose import trained_optimizer
from learned_opt.deploy import hub, published
from learned_opt.deploy.flax_msgpack import read_arrays
from learned_opt.estimators.pes import PES
from learned_opt.evaluation.theta_contender import find_theta, theta_contender
from learned_opt.inner.truncation import LogUniform
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.celo import Celo
from tests.cases import FAMILIES, SPECS, spec_of
from tests.compose.test_configs import composed
from tests.helpers.authors_files import LAYOUTS, nested, write_authors_file
from tests.helpers.flax_file import flax_bytes

TREE = {
    "a": {"w/b": np.arange(6, dtype=np.float32).reshape(2, 3), "scalar": np.float64(2.5)},
    "half": np.ones((1, 2), np.float16),
    "step": 70_000,
    "name": "somebody",
}
DATA = torch.ones(4, 5)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 2))


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> list[torch.Tensor]:
    for _ in range(count):
        optimizer.zero_grad()
        loss = (model(DATA) - 1).square().mean()
        loss.backward()
        optimizer.step(loss=loss)
    return [param.detach().clone() for param in model.parameters()]


def test_arrays_of_a_file(tmp_path) -> None:
    arrays = read_arrays(written(tmp_path / "file", flax_bytes(TREE)))
    assert list(arrays) == [("a", "w/b"), ("a", "scalar"), ("half",)]
    assert arrays["a", "w/b"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (arrays["a", "scalar"].item(), arrays["a", "scalar"].dtype) == (2.5, torch.float64)
    assert arrays[("half",)].dtype == torch.float16


def test_a_file_that_is_cut_anywhere_is_refused_with_the_byte(tmp_path) -> None:
    whole = flax_bytes(TREE)
    for length in range(len(whole)):
        path = written(tmp_path / "file", whole[:length])
        with pytest.raises(ValueError, match=rf"byte \d+ of {length} must") as error:
            read_arrays(path)
        byte = int(str(error.value).split("byte ")[1].split()[0])
        assert byte <= length


ARRAY = flax_bytes(np.ones(3, np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "byte 0 of 0 must begin a map of arrays"),
        (b"\x80\x00", "byte 1 of 2 must be the end of the file"),
        (b"PK\x03\x04", "byte 0 of 4 must begin a map of arrays, got 0x50"),
        (b"\x81\x05\x06", "byte 1 of 3 must begin a key"),
        (b"\x82\xa1a\x05\xa1a\x06", "byte 4 of 7 must begin a key"),
        (b"\x81\xa1a\xc0", "byte 3 of 4 must begin an array, a map, .* got 0xc0"),
        (b"\x81\xa1\xff\x01", "byte 2 of 4 must begin a text in UTF-8"),
        # lengths that no memory holds
        (b"\xdf\xff\xff\xff\xff\xa1a", "byte 5 of 7 must begin 8589934590 items, only 2 bytes"),
        (b"\x81\xa1a\xdb\xff\xff\xff\xff", "byte 8 of 8 must begin 4294967295 more bytes"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "byte 8 of 8 must begin 4294967295 items"),
        (b"\x81\xa1a" * 40 + b"\x00", "must lie in at most 16 maps and lists"),
        (b"\x81\xa1a" + ARRAY.replace(b"\x01\x93", b"\x02\x93"), "must be 1, the code of an array"),
        (b"\x81\xa1a" + ARRAY.replace(b"float32", b"complex"), "must begin an array of float16"),
        (
            b"\x81\xa1a" + ARRAY.replace(b"\x91\x03", b"\x91\x04"),
            r"array of shape \[4\], it has 12",
        ),
        (b"\x81\xa1a" + ARRAY.replace(b"\x91\x03", b"\x91\x00"), "none empty"),
        (b"\x81\xa1a" + ARRAY[:4] + b"\x05" + ARRAY[5:], "must be the end of an array"),
    ],
)
def test_foreign_files_are_refused_with_the_byte(tmp_path, content, message) -> None:
    with pytest.raises(ValueError, match=message):
        read_arrays(written(tmp_path / "file", content))


def test_a_file_that_is_too_large_is_not_read(tmp_path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(2**26 + 1)  # a hole, which takes no space
    with pytest.raises(ValueError, match="must have at most 67108864 bytes, it has 67108865"):
        read_arrays(path)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_tells_which_optimizer_it_is_of(tmp_path, name) -> None:
    path = write_authors_file(tmp_path / "theta.state", name)
    source, metadata = find_theta(path)
    assert metadata["optimizer_name"] == name
    assert metadata["provenance"]["source"] == "not known"  # random numbers are nobody's
    contender = theta_contender("it", source, metadata, ())
    theta = published.read(path).theta
    for key, parameter in contender.constructor(SPECS["cnn"]).named_parameters():
        assert torch.equal(parameter, theta[key]), key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: {"rnn_params": {"w": np.ones(2)}}, "must hold the theta of celo, celo_adam"),
        (lambda tree: {**tree, "more": np.ones(2)}, "must hold other arrays: unexpected: more"),
        (lambda tree: {**tree, "lstm_init_state": {"cell": np.ones(2)}}, "missing: .* hidden"),
        (
            lambda tree: {**tree, "lstm_init_state": dict.fromkeys(("hidden", "cell"), np.ones(2))},
            r"lstm_init_state hidden of celo file .* must have shape \(1, 64\), got \(2,\)",
        ),
    ],
)
def test_files_of_other_arrays_are_refused(tmp_path, change, message) -> None:
    arrays = {keys: np.ones(shape, np.float32) for keys, shape in LAYOUTS["celo"].items()}
    tree = nested(arrays)
    path = written(tmp_path / "theta.state", flax_bytes(change(tree)))
    with pytest.raises(ValueError, match=message):
        published.read(path)


@pytest.mark.parametrize("name", LAYOUTS)
def test_authors_weights_train_a_model_and_go_on(tmp_path, name) -> None:
    path = write_authors_file(tmp_path / "theta.state", name)
    model = network()
    optimizer = LearnedOptimizer.from_pretrained(name, model, weights=path, num_steps=10)
    trained(model, optimizer, 3)

    other = network()
    other.load_state_dict(model.state_dict())
    resumed = LearnedOptimizer.from_pretrained(name, other, weights=path, num_steps=10)
    file = tmp_path / "state.pt"
    torch.save(optimizer.state_dict(), file)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert len({id(state["losses"]) for state in optimizer.state.values()}) == 1  # once for all
    for a, b in zip(trained(model, optimizer, 3), trained(other, resumed, 3), strict=True):
        assert torch.equal(a, b)
    assert (model[0].weight - network()[0].weight).abs().max() > 1e-6

    folder = optimizer.save_pretrained(tmp_path / "saved")
    again = LearnedOptimizer.from_pretrained(folder, network(), num_steps=10)
    assert again.defaults["theta"] == optimizer.defaults["theta"]


def test_what_from_pretrained_refuses(tmp_path) -> None:
    path = write_authors_file(tmp_path / "theta.state", "celo")
    load = LearnedOptimizer.from_pretrained
    with pytest.raises(ValueError, match=r"Celo schedules its steps .* give num_steps.* got none"):
        load("celo", network(), weights=path)
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        load("celo", network(), weights=path, num_steps=0)
    with pytest.raises(ValueError, match="must be of 'velo', they are of 'celo'"):
        load("velo", network(), weights=path, num_steps=5)
    with pytest.raises(ValueError, match="weights must be a file of celo, but there is none at"):
        load("celo", network(), weights=tmp_path / "none", num_steps=5)
    with pytest.raises(ValueError, match="weights are files of celo, celo_adam, velo; 'unf-tran"):
        load("unf-transfer", network(), weights=path)
    with pytest.raises(ValueError, match="celo is not packaged: download"):
        load("celo", network(), num_steps=5)
    # what reads no length may be told one
    load("unf-transfer", network(), (DATA,), num_steps=5)

    optimizer = load("celo", network(), weights=path, num_steps=5)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(6, 5)
    with pytest.raises(ValueError, match="reads the training loss"):
        optimizer.step()


def test_the_hub_gives_an_authors_file_where_there_is_no_other(monkeypatch, tmp_path) -> None:
    path = write_authors_file(tmp_path / "theta.state", "velo")
    asked = []

    def download(repo_id: str, file: str, **options) -> str:
        asked.append(file)
        if file != path.name:
            raise EntryNotFoundError(file)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(hub, "_answers", lambda endpoint: True)
    model = network()
    optimizer = LearnedOptimizer.from_pretrained("somebody/velo", model, num_steps=9)
    assert asked == ["theta.safetensors", "theta.state"]
    assert optimizer.metadata is not None
    assert optimizer.metadata["optimizer_name"] == "velo"


def test_meta_training_starts_from_an_authors_file(tmp_path) -> None:
    folder = tmp_path / "downloaded"
    folder.mkdir()
    path = write_authors_file(folder / "theta.state", "celo")
    cfg = composed("+task=mlp", "compile=false", "horizon=7")
    started = trained_optimizer.build_trained(cfg, str(folder))
    assert started.cfg.optimizer_name == "celo"
    (problem,) = started.problems.values()
    theta = published.read(path).theta
    for key, parameter in problem.optimizer.named_parameters():
        assert torch.equal(parameter, theta[key]), key
    chains = problem.unroll.start([("a",)])
    assert chains["opt_state"]["num_steps"].tolist() == [7]


def test_every_chain_knows_its_horizon() -> None:
    family = FAMILIES["quadratic"]()
    unroll = Unroll(family, Celo(spec_of(family), lstm_size=4), compile=False)
    estimator = PES(unroll, LogUniform(2, 50), num_tasks=5, unroll_length=2, sigma=0.01)
    theta = {name: p.detach() for name, p in unroll.optimizer.named_parameters()}
    state = estimator.init_state(theta, torch.Generator().manual_seed(0))
    seen = set()
    for seed in range(4):
        horizons = state["horizon"].repeat(2)
        told = state["chains"]["opt_state"]["num_steps"]
        assert told.tolist() == horizons.tolist()
        seen.update(told.tolist())
        _, state = estimator.estimate(theta, state, torch.Generator().manual_seed(seed))
    assert len(seen) > 5


def test_each_phase_of_celo_trains_one_half_of_theta() -> None:
    optimizer = Celo(SPECS["mlp"])
    theta = {name: p.detach() for name, p in optimizer.named_parameters()}
    moved = {}
    for phase in ("function_only", "scheduler_only"):
        node = composed("+task=mlp", f"perturbation={phase}").perturbation
        eps = instantiate(node).draw(theta, 0.1, [torch.Generator().manual_seed(0)]).eps
        moved[phase] = {name for name, leaf in eps.items() if leaf.abs().max() > 0}
    assert moved["function_only"] == {name for name in theta if name.startswith("function.")}
    assert moved["scheduler_only"] == set(theta) - moved["function_only"]
