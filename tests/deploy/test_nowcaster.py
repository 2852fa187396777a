"""Nowcasting: the authors' predictions, the graph of a spec, equivariance, and the wrapper."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from learned_opt import Nowcaster, infer_permutation_spec
from learned_opt.core import tree
from learned_opt.deploy.nowcast_files import load_network
from learned_opt.optimizers.hand.references import make_adam
from learned_opt.optimizers.nowcast.networks import EntryNetwork, GraphNetwork
from learned_opt.optimizers.nowcast.optimizer import Nowcast
from learned_opt.optimizers.nowcast.prediction import EntryPrediction, GraphPrediction
from learned_opt.optimizers.nowcast.roles import reads_first_axis, roles_of
from learned_opt.optimizers.nowcast.weight_graph import WeightGraph

ORACLES = Path(__file__).parents[3] / "shared" / "oracles" / "nino"
needs_oracles = pytest.mark.skipif(
    not ORACLES.is_dir(), reason="the shared oracles of nowcasting are not here"
)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


MODELS = {"net": (net, (2, 6)), "cnn": (cnn, (2, 1, 8, 8))}
SIZES = {"net": (16, 69), "cnn": (17, 76)}
NORMS = {
    "nino_mlp_h32": [0.385318, 1.22975, 1.9645, 2.37038],
    "nino_no_posw": [0.192032, 0.619548, 0.996677, 0.882124],
}


def graph_of(name: str) -> WeightGraph:
    make, shape = MODELS[name]
    model = make()
    spec = infer_permutation_spec(model, torch.zeros(shape))
    shapes = {key: tuple(param.shape) for key, param in model.named_parameters()}
    return WeightGraph(spec, shapes, roles_of(model), reads_first_axis(model))


def oracle() -> dict[str, np.ndarray]:
    with np.load(ORACLES / "nino_oracle.npz") as file:
        return dict(file)


def snapshots_of(data: dict, name: str) -> dict[str, torch.Tensor]:
    prefix = f"{name}/states/"
    return {
        key.removeprefix(prefix): torch.from_numpy(array)
        for key, array in data.items()
        if key.startswith(prefix)
    }


def sorted_edges(graph_or_data, values: torch.Tensor) -> torch.Tensor:
    """Rows of an edge's attributes and type, in an order that numbers of nodes do not change."""
    rows = torch.cat([values, graph_or_data.unsqueeze(1).to(values)], 1).round(decimals=4)
    return rows[np.lexsort(rows.T.numpy())]


@needs_oracles
@pytest.mark.parametrize("name", MODELS)
def test_the_graph_of_an_inferred_spec_is_that_of_the_authors(name) -> None:
    graph = graph_of(name)
    assert (graph.num_nodes, len(graph.sources)) == SIZES[name]
    data = oracle()
    prefix = f"{name}/nino_no_posw"
    scaled = {}
    for key, leaf in snapshots_of(data, name).items():
        scaled[key] = (leaf - leaf.mean()) / (leaf.std() + 1e-6)
    ours = sorted_edges(graph.types, graph.attributes(scaled))
    theirs = sorted_edges(
        torch.from_numpy(data[f"{prefix}/edge_type"]), torch.from_numpy(data[f"{prefix}/edge_attr"])
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)


def nodes_of_theirs(name: str, graph: WeightGraph, data: dict) -> torch.Tensor:
    """Their number of each of our nodes, by edges that hold the same numbers in both."""
    index = torch.from_numpy(data[f"{name}/nino_no_posw/edge_index"]).long()
    scaled = {}
    for key, leaf in snapshots_of(data, name).items():
        scaled[key] = (leaf - leaf.mean()) / (leaf.std() + 1e-6)
    ours = graph.attributes(scaled)
    theirs = torch.from_numpy(data[f"{name}/nino_no_posw/edge_attr"])
    numbers = torch.full((graph.num_nodes,), -1)
    for edge in range(len(ours) - graph.num_nodes):
        match = (theirs - ours[edge]).abs().amax(1).argmin()
        numbers[graph.sources[edge]] = index[0, match]
        numbers[graph.targets[edge]] = index[1, match]
    assert sorted(numbers.tolist()) == list(range(graph.num_nodes))
    return numbers


@needs_oracles
@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("file", NORMS)
def test_predictions_are_those_of_the_authors(file, name) -> None:
    data = oracle()
    snapshots = snapshots_of(data, name)
    network = load_network(ORACLES / f"{file}.safetensors")
    if isinstance(network, GraphNetwork):
        graph = graph_of(name)
        coordinates = torch.from_numpy(data[f"{name}/{file}/pos"])
        coordinates = coordinates[nodes_of_theirs(name, graph, data)]
        predictor = GraphPrediction(network, graph, coordinates)
    else:
        predictor = EntryPrediction(network, roles_of(MODELS[name][0]()))

    norms = []
    for steps in (1, 5, 20, 40):
        predicted = predictor.predict(snapshots, steps)
        for key, leaf in predicted.items():
            expected = torch.from_numpy(data[f"{name}/{file}/k{steps}/{key}"])
            torch.testing.assert_close(leaf, expected, rtol=0, atol=6e-6, msg=key)
        moves = {key: leaf - snapshots[key][-1] for key, leaf in predicted.items()}
        norms.append(tree.global_norm(moves).item())
    if name == "net":
        assert norms == pytest.approx(NORMS[file], rel=1e-5)


@needs_oracles
def test_numbers_in_the_files() -> None:
    counts = {}
    for file in NORMS:
        counts[file] = tree.num_elements(load_file(ORACLES / f"{file}.safetensors"))
    assert counts == {"nino_mlp_h32": 5_160, "nino_no_posw": 549_992}
    assert tree.num_elements(EntryNetwork().state_dict()) == 5_160


class Attention(nn.Module):
    """Words, positions, packed attention and a norm; a scalar, and weights used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(7, 4)
        self.wpe = nn.Embedding(3, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.mlp = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4))
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        hidden = self.wte(words) + self.wpe.weight
        hidden = hidden + self.attention(hidden, hidden, hidden, need_weights=False)[0]
        hidden = hidden + self.scale * self.mlp(self.norm(hidden))
        return hidden @ self.wte.weight.T


class Recurrent(nn.Module):
    """A square weight, whose edges go back to the nodes that they come from."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNN(3, 4)
        self.read_out = nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.read_out(self.cell(inputs)[0])


EQUIVARIANT = {
    "net": (net, torch.zeros(2, 6)),
    "cnn": (cnn, torch.zeros(2, 1, 8, 8)),
    "attention": (Attention, torch.zeros(2, 3, dtype=torch.long)),
    "rnn": (Recurrent, torch.zeros(5, 2, 3)),
}


@torch.no_grad()
@pytest.mark.parametrize("name", EQUIVARIANT)
def test_predictions_permute_as_neurons_do(name) -> None:
    make, inputs = EQUIVARIANT[name]
    torch.manual_seed(0)
    model = make()
    spec = infer_permutation_spec(model, inputs)
    params = {key: param.detach().double() for key, param in model.named_parameters()}
    shapes = {key: tuple(param.shape) for key, param in params.items()}
    graph = WeightGraph(spec, shapes, roles_of(model), reads_first_axis(model))
    predictor = GraphPrediction(GraphNetwork(8).double(), graph)

    source = torch.Generator().manual_seed(1)
    snapshots = {}
    for key, param in params.items():
        noise = torch.randn(5, *param.shape, generator=source, dtype=torch.float64)
        snapshots[key] = param + 0.1 * noise.cumsum(0)
    element = spec.draw(params, source)
    assert any((index != torch.arange(len(index))).any() for index in element.values())

    def permuted(values: dict) -> dict:
        return spec.apply(values, element)

    by_time = [permuted(tree.tree_map(lambda leaf, i=i: leaf[i], snapshots)) for i in range(5)]
    moved = tree.stack(by_time)
    expected = permuted(predictor.predict(snapshots, 20))
    predicted = predictor.predict(moved, 20)
    for key, leaf in predicted.items():
        torch.testing.assert_close(leaf, expected[key], rtol=0, atol=1e-12, msg=key)

    shuffled = {key: leaf.roll(1, 1) if leaf.ndim > 2 else leaf for key, leaf in snapshots.items()}
    other = predictor.predict(shuffled, 20)  # control: a roll of all weights is no symmetry
    rolled = {key: leaf.roll(1, 0) if leaf.ndim > 1 else leaf for key, leaf in expected.items()}
    gaps = [(other[key] - rolled[key]).abs().max().item() for key in rolled]
    assert max(gaps) > 1e-4


def test_roles() -> None:
    roles = roles_of(Attention())
    assert roles["wte.weight"] == (5,)
    assert roles["wpe.weight"] == (6,)
    assert roles["attention.in_proj_weight"] == (7, 8, 9)
    assert roles["attention.out_proj.weight"] == (1,)
    assert (roles["norm.weight"], roles["norm.bias"], roles["scale"]) == ((4,), (2,), (2,))
    named = nn.ModuleDict({"q_proj": nn.Linear(2, 2), "value": nn.Linear(2, 2, bias=False)})
    assert roles_of(named) == {"q_proj.weight": (7,), "q_proj.bias": (2,), "value.weight": (9,)}


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, count: int, inputs=None) -> None:
    inputs = torch.ones(4, 6) if inputs is None else inputs
    for _ in range(count):
        optimizer.zero_grad()
        (model(inputs) - 1).square().mean().backward()
        optimizer.step()


def check_equal(left: Iterable[torch.Tensor], right: Iterable[torch.Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def copy_of(model: nn.Module) -> nn.Module:
    other = net()
    other.load_state_dict(model.state_dict())
    return other


def test_a_line_is_followed_where_it_leads() -> None:
    """SGD on a plane: five snapshots lie on a line, and k snapshots ahead is k snapshots ahead."""
    weight = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        weight.weight.fill_(1.0)
    base = torch.optim.SGD(weight.parameters(), lr=0.1)
    optimizer = Nowcaster(base, weight, "linear", period=10, horizon=20)
    for _ in range(10):
        optimizer.zero_grad()
        weight(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    # calls 2, 4, 6, 8, 10 keep what 1, 3, 5, 7 and 9 steps have made: each two steps apart
    expected = 1 - 0.1 * 9 - 40 * 0.2
    assert weight.weight[0, 0].item() == pytest.approx(expected, rel=1e-5)
    assert (optimizer.predictions, optimizer.schedule) == (1, [40, 1])


def test_between_predictions_and_behind_the_last_it_is_the_other_optimizer() -> None:
    torch.manual_seed(0)
    model = net()
    plain = copy_of(model)
    base = torch.optim.AdamW(model.parameters(), lr=0.01)
    optimizer = Nowcaster(base, model, "linear", period=5, horizon=9)
    other = torch.optim.AdamW(plain.parameters(), lr=0.01)
    trained(model, optimizer, 4)
    trained(plain, other, 4)
    check_equal(model.parameters(), plain.parameters())

    before = [state["exp_avg"].clone() for state in base.state.values()]
    trained(model, optimizer, 1)
    after = [state["exp_avg"] for state in base.state.values()]
    check_equal(before, after)  # its state stays
    plain.load_state_dict(model.state_dict())
    trained(model, optimizer, 12)
    trained(plain, other, 12)
    assert optimizer.predictions == 1
    check_equal(model.parameters(), plain.parameters())


@pytest.fixture
def network_file(tmp_path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "network.safetensors"
    save_file(GraphNetwork(8).state_dict(), path)
    return path


def test_it_goes_on_from_a_state_dict_bit_for_bit(tmp_path, network_file) -> None:
    torch.manual_seed(0)
    model = net()
    inputs = (torch.zeros(1, 6),)

    def around(model: nn.Module) -> Nowcaster:
        base = torch.optim.Adam(model.parameters(), lr=0.01)
        return Nowcaster(base, model, network_file, 10, 40, inputs)

    optimizer = around(model)
    trained(model, optimizer, 17)  # three snapshots behind the first prediction
    assert (optimizer.predictions, len(optimizer.snapshots)) == (1, 3)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    other = copy_of(model)
    resumed = around(other)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    trained(model, optimizer, 20)
    trained(other, resumed, 20)
    assert resumed.predictions == 3
    check_equal(model.parameters(), other.parameters())


def test_schedules_closures_and_frozen_parameters() -> None:
    torch.manual_seed(0)
    model = net()
    model[0].bias.requires_grad_(False)
    kept = model[0].bias.clone()
    trainable = [param for param in model.parameters() if param.requires_grad]
    base = torch.optim.SGD(trainable, lr=0.1)
    optimizer = Nowcaster(base, model, "linear", period=5, horizon=10)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (model(torch.ones(4, 6)) - 1).square().mean()
        loss.backward()
        return loss

    for _ in range(5):
        assert optimizer.step(closure).item() > 0
        schedule.step()
    assert base.param_groups[0]["lr"] == pytest.approx(0.1 / 32)
    assert torch.equal(model[0].bias, kept)
    with pytest.raises(ValueError, match="takes no new param groups"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"period": 4}, "period must be at least 5, got 4"),
        ({"period": 7}, "period must be a multiple of 5, got 7"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"weights": "none.safetensors"}, "must be a safetensors file, but there is none at none"),
        ({"weights": None}, "give example_inputs"),
    ],
)
def test_bad_values_are_named(network_file, settings, message) -> None:
    model = net()
    settings = {"weights": network_file, **{k: v for k, v in settings.items() if v is not None}}
    with pytest.raises(ValueError, match=message):
        Nowcaster(torch.optim.SGD(model.parameters(), lr=0.1), model, **settings)


def test_files_and_models_that_do_not_fit_are_refused(tmp_path, network_file) -> None:
    model = net()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"must be of a nowcasting network, whose layer_embed"):
        Nowcaster(base, model, path)
    state = load_file(network_file)
    save_file({**state, "more": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="must be of a nowcasting network: unexpected: more"):
        Nowcaster(base, model, path)
    save_file({**state, "node_proj.fc.0.bias": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"node_proj.fc.0.bias .* shape \(8,\), got \(2,\)"):
        Nowcaster(base, model, path)
    path.write_bytes(network_file.read_bytes()[:500])
    with pytest.raises(ValueError, match="is damaged"):
        Nowcaster(base, model, path)

    wide = nn.Sequential(nn.Conv2d(1, 2, 5), nn.Flatten(), nn.Linear(2, 1))
    other = torch.optim.SGD(wide.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"at most 9 positions .* 0.weight has 25"):
        Nowcaster(other, wide, network_file, example_inputs=(torch.zeros(1, 1, 5, 5),))
    with pytest.raises(ValueError, match="group 0 of the optimizer must hold parameters of the mo"):
        Nowcaster(other, model, "linear")


def test_the_meta_optimizer_makes_the_steps_of_the_wrapper() -> None:
    """Around the same Adam, with the same network; matrices and vectors have the same roles."""
    torch.manual_seed(0)
    network = EntryNetwork(8)
    inner = Nowcast(
        infer_permutation_spec(net(), torch.zeros(1, 6)),
        partial(make_adam, lr=0.01),
        lambda: network,
        period=10,
        num_steps=25,
    )
    model = net()
    params = {key: param.detach().clone() for key, param in model.named_parameters()}
    base = torch.optim.Adam(model.parameters(), lr=0.01)
    optimizer = Nowcaster(base, model, "linear", period=10, horizon=25)
    optimizer.predictor = EntryPrediction(network, roles_of(model))

    source = torch.Generator().manual_seed(1)
    state = inner.init_state(params)
    before = params
    for step in range(24):
        grads = {key: torch.randn(leaf.shape, generator=source) for key, leaf in params.items()}
        for key, param in model.named_parameters():
            param.grad = grads[key]
        optimizer.step()
        with torch.no_grad():
            updates, state = inner(grads, state, params, torch.tensor(1.0))
        before, params = params, tree.add(params, updates)
        for key, param in model.named_parameters():
            torch.testing.assert_close(params[key], param.detach(), rtol=1e-4, atol=1e-5)
        if step == 9:
            moves = [(params[key] - before[key]).abs().max().item() for key in params]
            assert max(moves) > 0.05  # a prediction, not a step of Adam
    assert optimizer.predictions == 2
