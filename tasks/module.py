"""A task of any ``nn.Module``, any loss and any data."""

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor
from torch.func import functional_call
from typing_extensions import override

from tasks.base import Batch, Params, TaskFamily, TaskParams
from tasks.keyed.mode import KeyedDraws
from tasks.module_data import Columns
from tasks.module_losses import Figures, Loss, Measured, OfBatch, Supervised
from tasks.module_masks import leave_masks_alone
from tasks.module_memory import AUTO
from tasks.module_norms import BatchNorms
from tasks.module_params import InitialParams, ModuleSource
from tasks.module_roles import Role, Roles
from tasks.module_splits import train_and_test
from tasks.module_trial import Trial
from tasks.network_task import facts_of_network, split_bounds, split_sizes
from tasks.networks.base import check_sizes

NORM_BATCHES = 8  # of training data, whose statistics batch norm evaluates with


class ModuleTask(TaskFamily):
    """One module trained on one data set: what a PyTorch user has, as it is.

    Every chain starts with weights of its own: a constructor is called anew, of a module that
    stands already a copy is reset by its layers' ``reset_parameters``. Parameters without
    ``requires_grad`` and buffers are constants.

    Dropout, ``torch.randn_like`` and their kin draw from a key in the batch. Batch norm trains
    with the statistics of its batch and evaluates with those of training data, computed with
    the parameters of that moment, so no running averages are kept; ``num_batches_tracked``
    stays. ``evaluate`` runs the module in evaluation mode, and so do batches of ``valid``, but
    for batch norm.

    Args:
        module: an ``nn.Module``, which is never changed, or a constructor of one without
            arguments, such as a class or ``functools.partial``.
        loss: ``(outputs, targets) -> scalar``, a function or an ``nn.Module``.
        data: tensors or arrays (one, a tuple, a dict), a map-style ``torch.utils.data.Dataset``,
            a ``datasets.Dataset`` or ``DatasetDict``, labelled images, the path of a CSV or
            parquet file, the id of a data set on the hub, or a ``DataSource``.
        batch_loss: in the place of ``loss``, ``(module, batch) -> scalar`` for everything else;
            the batch is a tuple, or a dict where columns have names.
        inputs: column that the module reads, list of columns that are joined as features, or
            mapping from an argument of its forward to either. Without, the columns are those of a
            tuple: the last is the target, and where there is one alone, it is both.
        targets: the same for the loss; None for the inputs, as autoencoders have it.
        output: name or number of the part of the module's outputs that the loss reads, such as
            ``logits``.
        test: held-out data, of a kind as ``data``.
        test_fraction: share of the data that is held out, drawn at random, the same in every
            run; 0.2 where neither ``test`` is there nor a part ``test`` of the data.
        valid_fraction: share of the training data that is kept for ``valid``, drawn likewise.
        in_memory: whether a ``datasets.Dataset``, a file or a data set of the hub is read into
            memory; False decodes its rows once into files in the cache of the datasets library,
            from which batches are read; "auto" does so where it would take more than half of the
            free memory.
        batch_size: examples in a batch, drawn with replacement.
        eval_batch_size: held-out examples that go through the module at once.
        figures: further held-out figures by name: functions of the arguments of the loss. By
            default the accuracy, where outputs are (B, classes) and targets are labels (B,).
        name: of the task in reports; by default that of the module's class.

    Raises:
        ValueError: anything of it cannot be trained on; says what and why.
        FileNotFoundError: there is no such file.
        ConnectionError: the hub cannot be reached and its cache does not hold the data set.

    >>> points = torch.linspace(-1, 1, 50)[:, None]
    >>> line = ModuleTask(partial(torch.nn.Linear, 1, 1), torch.nn.MSELoss(), (points, 3 * points))
    >>> line.describe()["num_train"], line.splits
    (40, ('train',))
    >>> params = {"weight": torch.tensor([[3.0]]), "bias": torch.zeros(1)}
    >>> line.evaluate(params, {})
    {'test_loss': tensor(0.)}
    """

    def __init__(
        self,
        module: ModuleSource,
        loss: Loss | None = None,
        data: Any = None,
        *,
        batch_loss: Loss | None = None,
        inputs: Role = None,
        targets: Role = None,
        output: str | int | None = None,
        test: Any = None,
        test_fraction: float | None = None,
        valid_fraction: float = 0.0,
        in_memory: bool | str = AUTO,
        batch_size: int = 128,
        eval_batch_size: int = 1024,
        figures: Figures | None = None,
        name: str | None = None,
    ) -> None:
        check_sizes(batch_size=batch_size, eval_batch_size=eval_batch_size)
        roles = Roles(inputs, targets)
        make_objective = _objective(loss, batch_loss, roles, output, figures)

        self.initial = InitialParams(module)
        self.network = self.initial.module
        self.name = name or type(self.network).__name__
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.train, self.test = train_and_test(
            data, test, test_fraction, roles, loss is not None, in_memory
        )

        self.num_train, self.num_valid = split_sizes(len(self.train.rows), valid_fraction)
        self.splits = ("train", "valid") if self.num_valid else ("train",)
        if self.num_valid:  # data may come sorted
            self.train = self.train.shuffled()

        leave_masks_alone(self.network)
        self.norms = BatchNorms(self.network)
        self.draws_at_random = self._try(make_objective)
        self.objective = make_objective(self.network)

    @override
    def sample(self, generator: torch.Generator) -> TaskParams:
        return {}

    @override
    def init(self, generator: torch.Generator, task: TaskParams) -> Params:
        return self.initial.draw(generator)

    @override
    def batch(self, generator: torch.Generator, task: TaskParams, split: str = "train") -> Batch:
        bounds = split_bounds(split, self.num_train, self.num_valid)
        positions = torch.randint(*bounds, (self.batch_size,), generator=generator)
        batch = self.train.source.draw(self.train.rows[positions])

        if split == "valid":
            batch["valid"] = torch.tensor(True)  # that it is there tells the loss
        if self.draws_at_random:
            batch["noise"] = torch.randint(2**62, (), generator=generator)
        return batch

    @override
    def without_noise(self, batch: Batch) -> Batch:
        return {name: value for name, value in batch.items() if name != "noise"}

    @override
    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        self._set_mode(training="valid" not in batch)
        columns = self.train.source.gather(batch)
        loss, _ = self._run(params, columns, batch.get("noise"))
        return loss

    @override
    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        statistics = self._norm_statistics(params)
        self.network.eval()

        totals: dict[str, Tensor] = {}
        for rows in self.test.rows.split(self.eval_batch_size):
            columns = self.test.gather(rows)
            loss, figures = self._run(params | statistics, columns, _fixed_key(params), True)
            for name, figure in {**figures, "test_loss": loss}.items():
                totals[name] = totals.get(name, 0.0) + figure * len(rows)
        return {name: total / len(self.test.rows) for name, total in totals.items()}

    @override
    def to(self, device: torch.device | str) -> Self:
        self.objective = self.objective.to(device)  # the network is a part of it
        self.train.source.to(device)
        self.test.source.to(device)
        return self

    @override
    def describe(self) -> dict[str, Any]:
        facts = facts_of_network(self.name, self.network, self.num_train, self.num_valid)
        facts |= {"num_test": len(self.test.rows), "batch_size": self.batch_size}

        first, second = self.train.source, self.test.source
        digits = first.fingerprint
        if second is not first:  # as many digits of both
            digits = digits[:8] + second.fingerprint[:8]
        return {**facts, "data": first.name, "fingerprint": digits}

    @override
    def rows(self, split: str) -> Tensor:
        part = {"train": self.train, "test": self.test}[split]
        features = [column.flatten(1) for column in _tables(part.gather(part.rows))]
        return torch.cat(features, 1)  # (n, d)

    def _set_mode(self, training: bool) -> None:
        self.network.train(training)
        if not training:
            self.norms.train()

    def _run(
        self, params: Params, columns: Columns, key: Tensor | None, measure: bool = False
    ) -> Measured:
        """The loss of a batch, and the figures where they are asked for."""
        tensors = {f"module.{name}": value for name, value in params.items()}
        with KeyedDraws(key):
            return functional_call(self.objective, tensors, (columns, measure))

    def _norm_statistics(self, params: Params) -> dict[str, Tensor]:
        """Buffers of batch norms for these parameters; none where there is no batch norm."""
        if not self.norms.layers:
            return {}

        self._set_mode(training=False)
        self.norms.start()
        for rows in self.train.spread(NORM_BATCHES, self.batch_size, self.num_train):
            self._run(params, self.train.gather(rows), _fixed_key(params))
        return self.norms.stop()

    def _try(self, make_objective: Any) -> bool:
        """Refuse what cannot be trained; returns whether a forward pass draws at random."""
        trial = Trial(self.name, self.network, make_objective)
        for part in (self.train, self.test):
            for rows in part.telling(self.batch_size):
                trial.run(part.gather(rows))
        return trial.num_draws > 0


def _objective(
    loss: Loss | None,
    batch_loss: Loss | None,
    roles: Roles,
    output: str | int | None,
    figures: Figures | None,
) -> Any:
    """A constructor ``module -> module of the loss``.

    Raises:
        ValueError: not exactly one loss, a loss with parameters, or settings of the other one.
    """
    if (loss is None) == (batch_loss is None):
        raise ValueError(
            "give exactly one of loss, of outputs and targets, and batch_loss, of module and batch."
        )
    if output is not None and loss is None:
        raise ValueError(f"output {output!r} is for loss; batch_loss gets the module itself.")

    function = batch_loss if loss is None else loss
    if not callable(function):
        raise ValueError(f"loss must be a function or an nn.Module, got {function!r}.")
    if isinstance(function, torch.nn.Module) and list(function.parameters()):
        raise ValueError(
            f"loss {type(function).__name__} has parameters, which nothing would train; make it "
            "part of the module."
        )

    function = copy.deepcopy(function)  # a module of the loss moves to the device of the run
    if loss is None:
        return partial(OfBatch, loss=function, figures=figures)
    return partial(Supervised, roles=roles, loss=function, output=output, figures=figures)


def _fixed_key(params: Params) -> Tensor:
    """The key of draws in evaluation: the same for all parameters."""
    device = next(iter(params.values())).device
    return torch.zeros((), dtype=torch.int64, device=device)


def _tables(columns: Mapping[str, Tensor]) -> list[Tensor]:
    """Columns with at least two axes."""
    return [column[:, None] if column.ndim == 1 else column for column in columns.values()]
