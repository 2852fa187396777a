"""Which classes the nodes of a file from anywhere may name, and with what arguments.

A node is what Hydra would instantiate, in a safe subset: ``_target_`` names a class of ours, or of
a module that the user trusts, ``_partial_`` leaves it to be called later, all other keys are
arguments: numbers, text, lists and nodes.
"""

import importlib
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from math import isnan
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

from torch import nn

from learned_opt.deploy.plain_data import shown

KEYS = {"_target_", "_partial_"}
TORCH_OPTIMIZERS = "torch.optim"
# of a whole number that a module is built from; more layers or channels fit into no file
MAX_WHOLE_NUMBER = 2**20
MAX_DOTS = 20  # of a full name
WIDTHS = ("channels", "size")  # how names of arguments end that must be at least 1

log = logging.getLogger(__name__)


class AllowedClasses(NamedTuple):
    """What a file may name.

    Args:
        packages: full names that classes must begin with, each with a dot at its end.
        kind: the base of those classes.
        functions: beginnings of modules whose members of any kind may be named.
        trust: modules of others that the user lets a file import, with all below them.
    """

    packages: tuple[str, ...]
    kind: type
    functions: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()

    def constructor(self, target: Any, where: str) -> Callable[..., Any]:
        """The class of a full name.

        Raises:
            ValueError: it may not be named, or there is none; nothing else was imported.
        """
        if not _is_full_name(target):
            raise ValueError(self._refusal(target, where))
        if self.trusts(target):
            return _trusted(target, where)
        if not target.startswith(self.packages):
            advice = f" To import it all the same, give trust=[{target.partition('.')[0]}]."
            raise ValueError(self._refusal(target, where) + advice)

        module_name, _, name = target.rpartition(".")
        try:
            candidate = getattr(importlib.import_module(module_name), name, None)
        except ModuleNotFoundError as error:
            raise ValueError(self._refusal(target, where)) from error

        # a module's own imports (torch, nn, ctypes) are reachable by name, but defined elsewhere
        defined_in = str(getattr(candidate, "__module__", None))
        is_ours = f"{defined_in}.".startswith(self.packages)
        is_class = isinstance(candidate, type) and issubclass(candidate, self.kind)
        is_function = callable(candidate) and defined_in == module_name
        is_allowed = is_class or (is_function and target.startswith(self.functions))
        if name.startswith("_") or not is_ours or not is_allowed:
            raise ValueError(self._refusal(target, where))
        return cast(Callable[..., Any], candidate)

    def trusts(self, target: str) -> bool:
        """Whether a full name lies in a module that the user trusts."""
        return any(target.startswith(f"{module}.") for module in self.trust)

    def check(self, node: Any, where: str) -> None:
        """Check the classes and the arguments of a node and of all below it; builds nothing.

        Args:
            node: plain data.
            where: its path in the config, for messages.

        Raises:
            ValueError: names the path, and the class or argument that may not stand there.
        """
        if isinstance(node, list):
            for i, part in enumerate(node):
                self.check(part, f"{where}[{i}]")
            return
        if not isinstance(node, Mapping):
            return

        keys = {str(key) for key in node}
        if self.trusts(str(node.get("_target_"))):
            keys.discard("_args_")  # what our own files need not is left to trusted classes
        unknown = sorted(key for key in keys - KEYS if key.startswith("_"))
        if unknown:
            raise ValueError(f"{where} has keys that are not supported: {', '.join(unknown)}.")
        if "_target_" in node:
            constructor = self.constructor(node["_target_"], where)
            if not self.trusts(node["_target_"]):
                self._check_arguments(constructor, node, where)

        for key, part in node.items():
            self.check(part, f"{where}.{key}")

    def _check_arguments(
        self, constructor: Callable[..., Any], node: Mapping[str, Any], where: str
    ) -> None:
        arguments = {key: value for key, value in node.items() if key not in KEYS}
        try:
            inspect.signature(constructor).bind_partial(**arguments)
        except TypeError as error:
            raise ValueError(
                f"{where} {node['_target_']} does not take these arguments: {error}."
            ) from error

        is_module = isinstance(constructor, type) and issubclass(constructor, nn.Module)
        function = constructor.__init__ if isinstance(constructor, type) else constructor
        hints = get_type_hints(function)
        for key, value in arguments.items():
            if not _fits(value, hints.get(key, Any)):
                kind = _kind_of(hints[key])
                raise ValueError(f"{where}.{key} must be {kind}, got {shown(value)}.")
            if is_module and isinstance(value, int):
                _check_whole_number(key, value, where)
        self._check_class_paths(constructor, arguments, where)

    def _check_class_paths(
        self, constructor: Callable[..., Any], arguments: Mapping[str, Any], where: str
    ) -> None:
        """Arguments that the class itself takes for names of classes to import."""
        for key in getattr(constructor, "class_paths", ()):
            path = str(arguments.get(key, ""))
            if key not in arguments or path.startswith(f"{TORCH_OPTIMIZERS}."):
                continue
            if not self.trusts(path):
                raise ValueError(
                    f"{where}.{key} must name a class of {TORCH_OPTIMIZERS}, or of a module in "
                    f"trust=[MODULE], got {shown(path)}."
                )

    def _refusal(self, target: Any, where: str) -> str:
        packages = " or ".join(package.rstrip(".") for package in self.packages)
        return f"{where} names {shown(target)}, which is no class of {packages}."


def trusted_modules(value: Any) -> tuple[str, ...]:
    """The modules that a user trusts, from an argument or a config.

    Args:
        value: None for none, one name or several.

    Raises:
        ValueError: it is something else; it must name what is imported.

    >>> trusted_modules(["mypkg", "other.optimizers"])
    ('mypkg', 'other.optimizers')
    """
    if value is None:
        return ()
    names = [value] if isinstance(value, str) else value
    modules = list(names) if isinstance(names, Iterable) else [names]

    for module in modules:
        is_text = isinstance(module, str)
        if not is_text or not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(
                f"trust must name the modules to import, e.g. trust=[mypkg], got {shown(module)}."
            )
    return tuple(map(str, modules))


def _trusted(target: str, where: str) -> Callable[..., Any]:
    """A class of a module that the user trusts."""
    module_name, _, name = target.rpartition(".")
    _announce(module_name)
    try:
        candidate = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{where} names {target!r}, which cannot be had: {error}.") from error
    if not callable(candidate):
        raise ValueError(f"{where} names {target!r}, which is no class.")
    return candidate


def _is_full_name(target: Any) -> bool:
    """Whether a value could be the full name of a class."""
    if not isinstance(target, str) or target.count(".") > MAX_DOTS:
        return False  # Python imports packages within packages by calling itself
    return all(part.isidentifier() for part in target.split("."))


@cache
def _announce(module: str) -> None:
    """Once for each module, although its classes are looked up several times."""
    log.warning("imports %s for a file, because trust names it", module)


def _check_whole_number(key: str, value: int, where: str) -> None:
    least = 1 if key.endswith(WIDTHS) else 0
    if not isinstance(value, bool) and not least <= value <= MAX_WHOLE_NUMBER:
        raise ValueError(
            f"{where}.{key} must lie between {least} and {MAX_WHOLE_NUMBER}, got {shown(value)}."
        )


def _fits(value: Any, hint: Any) -> bool:
    """Whether plain data can be an argument of a type; of most types all that is no scalar is."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, choice) for choice in get_args(hint))
    if hint is NoneType or value is None:
        return value is None and hint in (NoneType, Any)
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and not isnan(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    if origin is Callable or hint is Callable:
        return isinstance(value, Mapping) and "_target_" in value
    if origin is Mapping:
        of_values = get_args(hint)[1]
        is_mapping = isinstance(value, Mapping)
        return is_mapping and all(_fits(part, of_values) for part in value.values())
    return True


def _kind_of(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if hint in names:
        return names[hint]
    if get_origin(hint) is Callable:
        return "the config of a class"
    return f"{hint}".replace("typing.", "")
