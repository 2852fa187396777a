"""What every process of the tests of sharded parameters does: each case against one process."""

import copy
import sys

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as checkpoints
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from learned_opt import LearnedOptimizer, infer_permutation_spec

DATA = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.sin(3 * DATA[:, :2])


class Net(nn.Module):
    """Uneven and empty shards, a scalar, and a parameter that never has a gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(5, 6)
        self.last = nn.Linear(6, 2)
        self.gain = nn.Parameter(torch.ones(1))
        self.idle = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu()) * self.gain


def train(network: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int) -> None:
    for _ in range(num_steps):
        optimizer.zero_grad()
        (network(DATA) - TARGETS).square().mean().backward()
        optimizer.step()


def make(network: nn.Module, **options) -> LearnedOptimizer:
    return LearnedOptimizer.from_pretrained("unf-transfer", network, weight_decay=0.1, **options)


def whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def check_equal(network: nn.Module, reference: nn.Module) -> None:
    for (name, a), b in zip(network.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(whole(a.detach()), b.detach(), rtol=0, atol=1e-6, msg=name)


def sharded(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    return fully_shard(network, mesh=mesh)


def split(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    plan = {"first": ColwiseParallel(), "last": RowwiseParallel()}
    return parallelize_module(network, mesh, plan)


def check_steps(mesh: DeviceMesh) -> None:
    for wrap in (sharded, split):
        for dtype in (torch.float32, torch.bfloat16):
            reference = Net().to(dtype)
            network = wrap(Net().to(dtype), mesh)
            if dtype == torch.bfloat16:  # sums of processes round otherwise: the same gradients
                ours, theirs = make(network), make(reference)
                for _ in range(3):
                    for a, b in zip(network.parameters(), reference.parameters(), strict=True):
                        b.grad = torch.sin(b.detach())
                        a.grad = torch.sin(a.detach())
                    ours.step()
                    theirs.step()
            else:
                train(reference, make(reference), 4)
                train(network, make(network), 4)
            check_equal(network, reference)


def check_zero() -> None:
    """Each process has the states of its part of the parameters."""
    reference = Net()
    optimizer = make(reference)
    train(reference, optimizer, 3)

    network = Net()
    options = {"meta_optimizer": optimizer.meta_optimizer, "weight_decay": 0.1, "module": network}
    zero = ZeroRedundancyOptimizer(
        network.parameters(), optimizer_class=LearnedOptimizer, **options
    )
    train(network, zero, 3)
    check_equal(network, reference)
    assert len(zero.optim.state) < len(optimizer.state)

    zero.consolidate_state_dict()
    if dist.get_rank() == 0:
        states = zero.state_dict()["state"].values()
        steps = sorted(int(state["step"]) for state in states)
        assert steps == [0] + [3] * len(optimizer.state)  # one parameter has no gradient


def check_hybrid(mesh: DeviceMesh) -> None:
    """Shards along one axis of the mesh, copies along the other."""
    reference = Net()
    network = fully_shard(Net(), mesh=mesh)
    train(reference, make(reference), 3)
    train(network, make(network), 3)
    check_equal(network, reference)


def check_spec_and_refusals(mesh: DeviceMesh) -> None:
    reference = Net()
    spec = infer_permutation_spec(reference, DATA)
    network = sharded(Net(), mesh)
    train(reference, make(reference, symmetry=spec), 2)
    train(network, make(network, symmetry=spec), 2)
    check_equal(network, reference)

    for name in ("unf-transfer", "unf-mlp-fashion"):  # refused before anything is traced
        with pytest.raises(ValueError, match="sharded"):
            LearnedOptimizer.from_pretrained(name, network, DATA)


def check_nonfinite(mesh: DeviceMesh) -> None:
    network = sharded(Net(), mesh)
    optimizer = make(network)
    train(network, optimizer, 1)
    before = [param.to_local().clone() for param in network.parameters()]
    for param in network.parameters():
        if param.grad is not None and dist.get_rank() == 1 and param.grad.to_local().numel():
            param.grad.to_local().fill_(float("nan"))
    optimizer.step()
    assert optimizer.skipped == 1
    for old, param in zip(before, network.parameters(), strict=True):
        assert torch.equal(old, param.to_local())


def check_checkpoints(mesh: DeviceMesh, folder: str) -> None:
    network = sharded(Net(), mesh)
    optimizer = make(network)
    train(network, optimizer, 2)
    values = {name: param.detach().clone() for name, param in network.named_parameters()}
    state = get_optimizer_state_dict(network, optimizer)
    checkpoints.save({"optimizer": state}, checkpoint_id=folder)
    elsewhere = [param for param in optimizer.state if len(optimizer.state[param]) == 1]
    total = torch.tensor(len(elsewhere))
    dist.all_reduce(total)  # each of five trained tensors is whole on one process alone
    assert total == 5 * (dist.get_world_size() - 1), total
    train(network, optimizer, 2)

    again = sharded(Net(), mesh)
    resumed = make(again)
    with torch.no_grad():
        for name, param in again.named_parameters():
            param.copy_(values[name])
    loaded = {"optimizer": get_optimizer_state_dict(again, resumed)}
    checkpoints.load(loaded, checkpoint_id=folder)
    set_optimizer_state_dict(again, resumed, loaded["optimizer"])
    train(again, resumed, 2)
    check_equal(again, _unsharded(network))

    plain = optimizer.state_dict()
    resumed.load_state_dict(copy.deepcopy(plain))
    train(network, optimizer, 1)
    train(again, resumed, 1)
    check_equal(again, _unsharded(network))


def _unsharded(network: nn.Module) -> Net:
    twin = Net()
    with torch.no_grad():
        for mine, param in zip(twin.parameters(), network.parameters(), strict=True):
            mine.copy_(whole(param.detach()))
    return twin


def main(rank: int, num_ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", num_ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=num_ranks)
    mesh = init_device_mesh("cpu", (num_ranks,))
    check_steps(mesh)
    check_zero()
    check_hybrid(init_device_mesh("cpu", (1, num_ranks), mesh_dim_names=("copy", "shard")))
    check_hybrid(init_device_mesh("cpu", (num_ranks, 1), mesh_dim_names=("copy", "shard")))
    check_spec_and_refusals(mesh)
    check_nonfinite(mesh)
    check_checkpoints(mesh, f"{folder}/checkpoint")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
