"""The looped ReLU network against integer arithmetic: every state bit, without tolerance."""

from math import log2

import pytest
import torch
from torch import Tensor

from tasks.networks.looped_relu import SubleqNetwork
from tasks.subleq.machine import Machine

SIZES = [(4, 4), (8, 3), (16, 8), (32, 6), (64, 16), (4, 32)]
LARGE_SIZES = [(256, 12), (1024, 10), (1024, 32)]


def random_machines(
    machine: Machine, count: int, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Memory, pc and program.

    Half of the machines have any words, half have words that overflow and collide.
    """
    source = torch.Generator().manual_seed(seed)
    size = machine.num_words
    top = 1 << machine.word_bits

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=source)

    edges = torch.tensor([0, 1, 2, top // 2 - 1, top // 2, top - 2, top - 1, size - 1])
    memory = draw(top, count, size)
    memory[count // 2 :] = edges[draw(len(edges), count - count // 2, size)]
    program = None
    if machine.separate:
        program = draw(size, count, size, 3)
        program[count // 2 :] = edges[draw(len(edges), count - count // 2, size, 3)] % size
    return memory, draw(size, count), program


def count_differences(network: SubleqNetwork, machines: int, steps: int) -> int:
    """State bits that differ, summed over all instructions of all machines."""
    memory, pc, program = random_machines(network.machine, machines)
    state = network.encode(memory, pc, program)
    wrong = 0
    for _ in range(steps):
        state = network(state)
        memory, pc = network.machine.step(memory, pc, program)
        wrong += int((state != network.encode(memory, pc, program)).sum())
    return wrong


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(("num_words", "word_bits"), SIZES)
def test_random_states(num_words, word_bits, separate, compact) -> None:
    dtype = torch.float64 if compact and word_bits > 22 else torch.float32
    network = SubleqNetwork(num_words, word_bits, separate, compact, dtype=dtype)
    assert count_differences(network, machines=50, steps=10) == 0


def test_the_largest_compact_word_of_a_precision() -> None:
    assert count_differences(SubleqNetwork(4, 23, compact=True), machines=200, steps=5) == 0
    with pytest.raises(ValueError, match="word_bits=24 needs 33554432"):
        SubleqNetwork(4, 24, compact=True)


@pytest.mark.slow
@pytest.mark.parametrize("separate", [False, True])
def test_hundred_thousand_random_instructions(separate) -> None:
    """50,000 for each kind of memory."""
    executed = 0
    for num_words, word_bits in SIZES + LARGE_SIZES:
        machines, steps = (16, 125) if num_words >= 256 else (100, 74)
        network = SubleqNetwork(num_words, word_bits, separate)
        wrong = count_differences(network, machines, steps)
        executed += machines * steps
        print(
            f"M {num_words}, N {word_bits}, separate {separate}: {machines * steps:,} "
            f"instructions, {wrong} bits differ"
        )
        assert wrong == 0
    assert executed >= 50_000


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("separate", [False, True])
def test_every_precision_is_exact(separate, dtype) -> None:
    network = SubleqNetwork(16, 32, separate, dtype=dtype)
    assert network.encode(*random_machines(network.machine, 2)).dtype == dtype
    assert count_differences(network, machines=20, steps=5) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_gpu_is_exact(dtype) -> None:
    network = SubleqNetwork(64, 16, dtype=dtype).to("cuda")
    memory, pc, _ = random_machines(network.machine, 1000)
    state, _ = network.run(network.encode(memory, pc), 50)
    for _ in range(50):
        memory, pc = network.machine.step(memory, pc)
    assert torch.equal(state, network.encode(memory, pc))


@pytest.mark.slow
def test_compiled_is_exact() -> None:
    network = SubleqNetwork(8, 4)
    network.compile(fullgraph=True)
    assert count_differences(network, machines=50, steps=10) == 0


def test_depth_and_weights_are_those_of_the_construction() -> None:
    network = SubleqNetwork(64, 16)
    compact = SubleqNetwork(64, 16, compact=True)
    assert len(network.layers) == 2 + 2 + 7 + 2 + 6 + 4 == 23
    assert len(compact.layers) == 9
    assert max(float(p.abs().max()) for p in network.parameters()) == 2**4
    assert max(float(p.abs().max()) for p in compact.parameters()) == 2**15
    for weight, bias in network.dense():
        assert (weight == weight.round()).all()
        assert (bias == bias.round()).all()


def test_weights_grow_as_n_log_n() -> None:
    ratios = []
    factored = []
    for num_words in (64, 256, 1024):
        network = SubleqNetwork(num_words, 16)
        n = network.machine.state_bits
        ratios.append(network.num_weights() / (n * log2(n)))
        stored = [p for name, p in network.named_parameters() if name.endswith("values")]
        factored.append(sum(p.numel() for p in stored) / network.num_weights())
        assert max(layer.wiring.shape[0] for layer in network.layers) < 3.1 * n
    assert ratios == pytest.approx([6.5] * 3, abs=0.25)
    # the low-rank parts are stored as two factors
    assert factored == pytest.approx([0.65, 0.55, 0.48], abs=0.01)


@pytest.mark.parametrize("separate", [False, True])
def test_dense_matrices_compute_the_same(separate) -> None:
    network = SubleqNetwork(8, 4, separate)
    state = network.encode(*random_machines(network.machine, 30))
    wires = state
    for weight, bias in network.dense():
        wires = (wires @ weight.T + bias).relu()
    assert torch.equal(wires, network(state))
    assert sum(int((weight != 0).sum()) for weight, _ in network.dense()) == network.num_weights()
    assert torch.equal(network.wires(state[0])[-1], wires[0])


@torch.no_grad()
def test_single_changed_weights_are_caught() -> None:
    """A weight or bias that is off by one shows in one step of 256 states.

    It does not where its wire never matters.
    """
    network = SubleqNetwork(8, 4)
    state = network.encode(*random_machines(network.machine, 256))
    right = network(state)
    source = torch.Generator().manual_seed(1)
    caught = 0
    tensors = list(network.parameters())
    sizes = torch.tensor([float(t.numel()) for t in tensors])
    for which in torch.multinomial(sizes, 300, replacement=True, generator=source).tolist():
        flat = tensors[which].view(-1)
        index = int(torch.randint(len(flat), (1,), generator=source))
        before = flat[index].item()
        flat[index] += 1.0 if torch.rand(1, generator=source) < 0.5 else -1.0
        caught += not torch.equal(network(state), right)
        flat[index] = before
    print(f"{caught} of 300 changes caught")
    assert caught >= 270
    assert torch.equal(network(state), right)


CASES = {  # memory of 8 words of 4 bits, pc -> memory, pc; the words at pc are a, b, c
    "subtracts and goes on": ([3, 4, 0, 2, 5, 0, 0, 0], 0, [3, 4, 0, 2, 3, 0, 0, 0], 3),
    "jumps at zero": ([3, 4, 6, 5, 5, 0, 0, 0], 0, [3, 4, 6, 5, 0, 0, 0, 0], 6),
    "jumps below zero": ([3, 4, 6, 5, 4, 0, 0, 0], 0, [3, 4, 6, 5, 15, 0, 0, 0], 6),
    "overflows to a negative number": ([3, 4, 6, 15, 7, 0, 0, 0], 0, [3, 4, 6, 15, 8, 0, 0, 0], 6),
    "underflows to a positive number": ([3, 4, 6, 1, 8, 0, 0, 0], 0, [3, 4, 6, 1, 7, 0, 0, 0], 3),
    "clears a word": ([4, 4, 6, 0, 9, 0, 0, 0], 0, [4, 4, 6, 0, 0, 0, 0, 0], 6),
    "jumps where it went to before it wrote there": (
        [3, 2, 6, 1, 0, 0, 0, 0],
        0,
        [3, 2, 5, 1, 0, 0, 0, 0],
        3,
    ),
    "wraps around the memory": ([7, 3, 0, 2, 1, 0, 0, 4], 7, [7, 3, 0, 2, 1, 0, 0, 3], 2),
    "ignores the upper bits of addresses": (
        [11, 12, 14, 5, 5, 0, 0, 0],
        0,
        [11, 12, 14, 5, 0, 0, 0, 0],
        6,
    ),
    "halts": ([7, 7, 0, 0, 0, 0, 0, 0], 0, [7, 7, 0, 0, 0, 0, 0, 0], 0),
}


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_instructions_worked_by_hand(name, compact) -> None:
    memory, pc, expected, expected_pc = CASES[name]
    network = SubleqNetwork(8, 4, compact=compact)
    after, pc_after = network.decode(
        network(network.encode(torch.tensor(memory), torch.tensor(pc)))
    )
    assert (after.tolist(), int(pc_after)) == (expected, expected_pc)


def test_run_stops_at_the_fixed_point_and_counts() -> None:
    """Counters of 1, 5 and 40 by a loop of one instruction, and one that never ends."""
    network = SubleqNetwork(16, 8)
    memory = torch.zeros(4, 16, dtype=torch.long)
    # 0: [13] -= [14]; at most 0: to 6, else to 3.  3: [15] -= [15], to 0.  6: [15] -= [15], to 6
    memory[:, :9] = torch.tensor([14, 13, 6, 15, 15, 0, 15, 15, 6])
    memory[:, 14] = torch.tensor([1, 1, 1, 0])
    memory[:, 13] = torch.tensor([1, 5, 40, 1])
    state, steps = network.run(network.encode(memory, torch.zeros(4, dtype=torch.long)), 200)
    assert steps.tolist() == [1, 9, 79, 200]
    assert torch.equal(network(state)[:3], state[:3])
    assert network.decode(state)[0][:3, 13].tolist() == [0, 0, 0]


def test_states_of_any_batch_shape_round_trip() -> None:
    network = SubleqNetwork(8, 5)
    memory, pc, _ = random_machines(network.machine, 6)
    state = network.encode(memory.view(2, 3, 8), pc.view(2, 3))
    assert state.shape == (2, 3, network.machine.state_bits)
    assert torch.equal(network(state).view(6, -1), network(network.encode(memory, pc)))
    assert torch.equal(network.decode(state)[0].view(6, 8), memory)
    assert torch.equal(network.decode(state)[1].view(6), pc)


def test_trainable_weights_get_gradients() -> None:
    network = SubleqNetwork(4, 4, trainable=True)
    assert not any(p.requires_grad for p in SubleqNetwork(4, 4).parameters())
    state = network.encode(*random_machines(network.machine, 64))
    network(state).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (lambda: Machine(12, 8), "num_words must be a power of two and at least 4, got 12"),
        (
            lambda: Machine(256, 7),
            r"word_bits must be from 8 \(an address of 256 words\) to 62, got 7",
        ),
        (lambda: Machine(4, 63), "to 62, got 63"),
        (
            lambda: Machine(4, 4).encode(torch.zeros(8), torch.zeros(())),
            r"memory must be \(..., 4\)",
        ),
        (
            lambda: Machine(4, 4).encode(torch.full((4,), 16), torch.tensor(0)),
            r"memory must be from 0 to 2\^4 - 1",
        ),
        (
            lambda: Machine(4, 4).encode(torch.zeros(4).long(), torch.tensor(4)),
            r"pc must be from 0 to 2\^2 - 1, got 4",
        ),
        (
            lambda: Machine(4, 4, True).encode(torch.zeros(4).long(), torch.tensor(0)),
            "got separate=True",
        ),
    ],
)
def test_bad_values_are_named(make_bad, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_bad()
