"""from_pretrained: what it finds, fits to a model, and refuses."""

import json
import socket
import time

import pytest
import torch
from torch import nn

from learned_opt import LearnedOptimizer
from learned_opt.deploy import construct, hub
from learned_opt.deploy.weights import save_theta
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry import PermutationSpec, infer_permutation_spec
from tasks.networks.mlp import MLP
from tests.deploy.test_learned_optimizer import DATA, equal, model, train

POINTWISE = {"_target_": "learned_opt.unf.layers.Pointwise", "_partial_": True}
UNF = {"_target_": "learned_opt.unf.layers.UNFLinear", "_partial_": True}
DEEP_SET = {
    "_target_": "learned_opt.optimizers.unf.UNFOptimizer",
    "_partial_": True,
    "trunk": POINTWISE,
    "head": POINTWISE,
    "channels": 6,
    "beta": 0.1,
}
EQUIVARIANT = {**DEEP_SET, "head": UNF}


def spec_of(network: nn.Module) -> PermutationSpec:
    return infer_permutation_spec(network, DATA)


def run_folder(folder, node: dict, spec: PermutationSpec | None = None) -> MetaOptimizer:
    """What a meta-training leaves behind, at the theta that it starts from."""
    torch.manual_seed(1)
    spec = spec or spec_of(model())
    optimizer = construct.build(node, spec)
    metadata = {"meta_optimizer": node, "specs": {"mine": spec.as_dict()}, "tasks": {"mine": {}}}
    save_theta(folder, dict(optimizer.named_parameters()), metadata)
    return optimizer


def small() -> nn.Module:
    """A network of another architecture than ``model``."""
    torch.manual_seed(0)
    return nn.Linear(5, 2)


@pytest.mark.parametrize("as_file", [False, True])
def test_a_run_folder_gives_its_optimizer(tmp_path, as_file) -> None:
    meta = run_folder(tmp_path / "run", DEEP_SET)
    path = tmp_path / "run" / ("theta.safetensors" if as_file else "")
    left = small()
    right = small()
    ours = train(left, LearnedOptimizer.from_pretrained(path, left, lr=0.5))
    assert equal(ours, train(right, LearnedOptimizer(right, meta, lr=0.5)))


@pytest.mark.parametrize("inputs", [None, (DATA,)])
def test_an_equivariant_one_fits_the_weight_space_that_it_was_trained_on(tmp_path, inputs) -> None:
    """Also where the permutations have other names than an inferred spec gives them."""
    inferred = spec_of(model())
    names = {name: f"mine{i}" for i, name in enumerate(inferred.names)}
    axes = {}
    for parameter, inferred_names in inferred.axes.items():
        axes[parameter] = tuple(names[name] for name in inferred_names)
    fixed = {names[name]: size for name, size in inferred.fixed_sizes.items()}
    spec = PermutationSpec(axes, set(fixed), fixed_sizes=fixed)
    meta = run_folder(tmp_path, EQUIVARIANT, spec)
    left = model()
    right = model()
    ours = train(left, LearnedOptimizer.from_pretrained(tmp_path, left, inputs))
    assert equal(ours, train(right, LearnedOptimizer(right, meta)))


def test_the_packaged_ones_of_a_task_fit_its_networks_of_any_width() -> None:
    inputs = torch.rand(8, 1, 8, 8)
    labels = torch.arange(8)
    # a trace splits the pixels' axis, the spec that was trained on does not
    for example_inputs in (None, (inputs,)):
        for width in (32, 20):
            network = MLP((1, 8, 8), 10, (width,))
            optimizer = LearnedOptimizer.from_pretrained("unf-mlp-fashion", network, example_inputs)
            for _ in range(30):
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(network(inputs), labels)
                loss.backward()
                optimizer.step()
            assert loss < 0.1


def test_an_equivariant_one_refuses_another_weight_space(tmp_path) -> None:
    run_folder(tmp_path, EQUIVARIANT)
    with pytest.raises(ValueError, match=r"give example_inputs.* not those of mine"):
        LearnedOptimizer.from_pretrained(tmp_path, small())
    with pytest.raises(ValueError, match="cannot move to another spec"):
        LearnedOptimizer.from_pretrained(tmp_path, small(), (DATA,))


def test_loading_draws_no_random_numbers(tmp_path) -> None:
    run_folder(tmp_path, EQUIVARIANT)
    network = model()
    torch.manual_seed(5)
    LearnedOptimizer.from_pretrained(tmp_path, network)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))


def test_what_is_saved_is_what_was_loaded(tmp_path) -> None:
    run_folder(tmp_path / "a", EQUIVARIANT)
    first = LearnedOptimizer.from_pretrained(tmp_path / "a", model())
    assert first.save_pretrained(tmp_path / "b" / "c") == tmp_path / "b" / "c"
    for file in hub.FILES:
        assert (tmp_path / "b" / "c" / file).read_bytes() == (tmp_path / "a" / file).read_bytes()
    with pytest.raises(ValueError, match="only an optimizer made by from_pretrained"):
        LearnedOptimizer(model(), first.meta_optimizer).save_pretrained(tmp_path)


def test_packaged_names_come_first_and_are_listed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(hub, "PACKAGED", tmp_path / "pretrained")
    (tmp_path / "pretrained").mkdir()
    run_folder(tmp_path / "pretrained" / "some-name", DEEP_SET)
    assert hub.packaged() == ["some-name"]
    assert isinstance(LearnedOptimizer.from_pretrained("some-name", small()), LearnedOptimizer)
    with pytest.raises(
        ValueError, match="nothing is called 'unf-x': it must be some-name, a folder"
    ):
        LearnedOptimizer.from_pretrained("unf-x", small())
    with pytest.raises(ValueError, match=r"holds no theta\.safetensors"):
        LearnedOptimizer.from_pretrained(tmp_path, small())


def test_every_packaged_optimizer_loads_and_has_a_card() -> None:
    for name in hub.packaged():
        folder = hub.PACKAGED / name
        metadata = json.loads((folder / hub.FILES[1]).read_text())
        assert metadata["meta_optimizer"]["_target_"].startswith(construct.PACKAGES)
        assert (folder / "card.md").is_file()
        assert sum(file.stat().st_size for file in folder.iterdir()) <= 2**20
    assert {path.name for path in hub.PACKAGED.iterdir()} == {"README.md", *hub.packaged()}


def silent_server() -> tuple[socket.socket, str]:
    """Accepts connections and never answers."""
    server = socket.create_server(("127.0.0.1", 0))
    return server, f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_an_unreachable_hub_is_said_within_seconds(monkeypatch, tmp_path, kind) -> None:
    from huggingface_hub import constants

    server, endpoint = silent_server()
    if kind == "refused":
        server.close()
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(hub, "PATIENCE", 0.5)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"no local folder.* cannot be reached.* owner/name"):
        LearnedOptimizer.from_pretrained("someone/something", small())
    run_folder(tmp_path, DEEP_SET)
    with pytest.raises(ConnectionError, match="someone/something cannot be pushed"):
        LearnedOptimizer.from_pretrained(tmp_path, small()).push_to_hub("someone/something")
    assert time.monotonic() - start < 5
    server.close()


def test_the_hub_gives_both_files_of_a_revision(monkeypatch, tmp_path) -> None:
    import huggingface_hub

    run_folder(tmp_path, DEEP_SET)
    asked = []

    def download(repo_id, file, **options):
        asked.append((repo_id, file, options["revision"], options["local_files_only"]))
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(hub, "_answers", lambda endpoint: True)
    LearnedOptimizer.from_pretrained("someone/something", small(), revision="v1")
    assert asked == [("someone/something", file, "v1", False) for file in hub.FILES]


def test_pushing_makes_the_repository_and_uploads_the_files(monkeypatch, tmp_path) -> None:
    import huggingface_hub

    run_folder(tmp_path, DEEP_SET)
    uploaded = {}

    class Api:
        def __init__(self, token=None) -> None:
            uploaded["token"] = token

        def create_repo(self, repo_id, **options):
            uploaded["options"] = options
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            uploaded["files"] = {path.name: path.read_bytes() for path in folder_path.iterdir()}
            return type("Commit", (), {"commit_url": f"https://hub/{repo_id}"})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(hub, "_answers", lambda endpoint: True)
    address = LearnedOptimizer.from_pretrained(tmp_path, small()).push_to_hub(
        "a/b", private=True, token="t"
    )
    assert address == "https://hub/a/b"
    assert uploaded["options"] == {"exist_ok": True, "private": True, "token": "t"}
    assert uploaded["files"] == {file: (tmp_path / file).read_bytes() for file in hub.FILES}


def broken(folder, **changes) -> None:
    path = folder / "theta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: broken(folder, format=99), "has format 99, this version reads 2"),
        (lambda folder: (folder / "theta.json").write_text("{"), "not valid JSON"),
        (
            lambda folder: (folder / "theta.json").write_text("[]"),
            "not describe a learned optimizer",
        ),
        (lambda folder: (folder / "theta.json").unlink(), "lacks its theta.json"),
        (lambda folder: broken(folder, specs={}), "not describe a learned optimizer"),
        (lambda folder: broken(folder, meta_optimizer={**DEEP_SET, "channels": 7}), "has shape"),
        (
            lambda folder: broken(folder, meta_optimizer={**DEEP_SET, "width": 7}),
            "does not take these arguments",
        ),
        (
            lambda folder: broken(folder, meta_optimizer="adam"),
            "must be the config of a meta-optimizer",
        ),
        (lambda folder: (folder / "theta.safetensors").write_bytes(b"x" * 50), "is damaged"),
        (
            lambda folder: (folder / "theta.safetensors").write_bytes(
                (folder / "theta.safetensors").read_bytes()[:-9]
            ),
            "is damaged",
        ),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path, damage, message) -> None:
    run_folder(tmp_path, DEEP_SET)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        LearnedOptimizer.from_pretrained(tmp_path, small())
