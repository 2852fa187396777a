"""An optimizer whose theta comes from files, and goes to them."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from learned_opt.deploy import hub, pretrained
from learned_opt.deploy.foreign_classes import trusted_modules
from learned_opt.deploy.inputs import check_model, unwrap
from learned_opt.deploy.model_symmetries import Symmetries, restricted
from learned_opt.deploy.parity import check_parity
from learned_opt.deploy.weights import save_theta
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec


class Packaged(torch.optim.Optimizer):
    """What ``LearnedOptimizer`` has to do with files.

    Attributes:
        meta_optimizer: the optimizer with its theta.
        metadata: what its ``theta.json`` holds; None where it does not come from files.
    """

    meta_optimizer: MetaOptimizer
    metadata: dict[str, Any] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        model: nn.Module,
        example_inputs: Any = None,
        revision: str | None = None,
        trust: Sequence[str] = (),
        weights: str | Path | None = None,
        symmetry: str | PermutationSpec = "trace",
        params: Iterable[Any] | None = None,
        **options: Any,
    ) -> Self:
        """A trained optimizer for a model.

        Args:
            name: a packaged name, a folder or run folder that holds ``theta.safetensors``, or an id
                of the hub.
            model: what it will train.
            example_inputs: a tensor, a tuple or a dict that the model accepts, to trace its
                symmetries with. Needed only where theta reads how tensors hang together; the
                packaged ``unf-transfer`` takes the kind of each from its shape without them.
            revision: branch, tag or commit on the hub.
            trust: modules to import where the files name classes of them, e.g. ``("mypkg",)``;
                nothing but classes of this package is imported otherwise.
            weights: the authors' file of ``celo``, ``celo_adam`` or ``velo``.
            symmetry: ``trace``, ``none`` for a model that cannot be traced (no axis permutes), or
                the spec of the model, as ``infer_permutation_spec`` gives it.
            params: the parameters that it will train, where it shall not be all: tensors of the
                model, or param groups. The others cost nothing.
            options: further arguments of the constructor.

        Raises:
            ValueError: nothing has that name; the files are not ours, damaged or of another
                format; or the model cannot be traced, which names the operation.
            ConnectionError: the hub cannot be reached and its cache does not hold the files.
        """
        network = unwrap(model)
        modules = trusted_modules(trust)
        meta_optimizer, metadata = pretrained.load(name, revision, modules, weights)
        check_model(network, meta_optimizer.simplified().separable)
        reading = Symmetries(network, example_inputs, symmetry)
        fitted = pretrained.fit(meta_optimizer, metadata, reading)

        if params is not None:
            params = list(params)
            fitted = restricted(fitted, network, params)
        trained = network if params is None else params
        constructor: Any = cls
        optimizer: Self = constructor(trained, fitted, **{"module": model, **options})
        optimizer.metadata = metadata
        return optimizer

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write theta and what is known about it to a folder that ``from_pretrained`` reads.

        Args:
            folder: made where it is missing.

        Returns:
            Path: the folder.

        Raises:
            ValueError: the optimizer was not made by ``from_pretrained``, or its steps are not
                those of meta-training.
        """
        if self.metadata is None:
            raise ValueError(
                "only an optimizer made by from_pretrained knows the config that its files must "
                "hold."
            )
        check_parity(self.meta_optimizer, type(self))
        save_theta(Path(folder), dict(self.meta_optimizer.named_parameters()), self.metadata)
        return Path(folder)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """``save_pretrained`` to a model repository of the hub.

        Args:
            repo_id: ``owner/name``, made if there is none.
            options: of ``huggingface_hub.HfApi.create_repo``, e.g. ``private``, ``token``.

        Returns:
            str: address of the commit.

        Raises:
            ConnectionError: the hub cannot be reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            return hub.push(self.save_pretrained(folder), repo_id, **options)
