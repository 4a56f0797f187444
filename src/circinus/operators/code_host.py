"""Host of data sets and metrics: imports, describes and calls them, in the process that it is created in."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from circinus.errors import CircinusError, OperatorError, ProfileError
from circinus.operators.host import ReplyType, describe_exception
from circinus.operators.pickling import Payload, pack_list, pickle_value, unpack_list, unpickle_value
from circinus.operators.process_output import begin_call, print_exception
from circinus.operators.protocol import Item, operator_of
from circinus.operators.registry import resolve
from circinus.operators.source_version import file_state, source_version

_PACK_BYTES = 4 * 2**20
"""Size from which values of items are sent as a payload of their own: larger ones are not copied once more."""
_MAX_TEXT = 200
"""Maximum length of a score that is no number, in messages."""


class CodeRequest(StrEnum):
    """Request to a `CodeHost`, the first element of the header of a frame."""

    DESCRIBE = "describe"
    """Request for the `CodeDescription` of a reference."""
    BIND = "bind"
    """Request for the `CallMismatch` of a reference with (number of positional arguments, names of keywords)."""
    ITEMS = "items"
    """Request for the items of a data set with arguments: their `ItemEntry`s, then packed values, packed truths."""
    SCORES = "scores"
    """Request for the scores of a metric with names of sinks: a packed list with, item after item, the outputs of
    all sinks and the ground truth."""


EDITED = "edited"
"""Reply of a process whose modules have been edited since it imported them."""

ItemEntry = tuple[str, dict[str, str], str]
"""(key, strata, text of the strata for the fingerprint) of an item"""


@dataclass(frozen=True)
class OperatorSignature:
    """Parameters of a declared operator (see `OperatorFactory`)."""

    name: str
    knobs: tuple[str, ...]
    inputs: int | None
    version: str
    required_knobs: tuple[str, ...]
    takes_cpus: bool


@dataclass(frozen=True)
class CodeDescription:
    """Description of the object that a reference names."""

    type_name: str
    is_callable: bool
    operator: OperatorSignature | None
    """Parameters of an operator; None for other objects."""
    source_version: str | OperatorError
    """Version of its source, or the reason for none."""


@dataclass(frozen=True)
class CallMismatch:
    """Arguments that do not fit a function."""

    signature: str
    reason: str


@dataclass(frozen=True)
class ScoreFailure:
    """Missing score of an item."""

    reason: str
    """Predicate of a sentence whose subject is the metric; of an invalid score, its text."""
    is_invalid: bool = False
    """Whether the metric returned a value that is no number."""


class CodeHost:
    """`Executor` that imports the code of a specification, and calls its data sets and metrics."""

    def __init__(self, module_paths: Sequence[Path]) -> None:
        self._module_paths = tuple(module_paths)
        self._resolved: dict[str, Any] = {}
        self._imported: dict[str, tuple[int, int]] = {}
        """File of each imported module of `module_paths` -> (time of the last change in nanoseconds, bytes)."""
        self._modules = 0

    def answer(self, header: Any, payloads: Sequence[Payload]) -> tuple[Any, Sequence[Payload]]:
        """See `Executor.answer`. The header is a `CodeRequest` with arguments, the result may be a `CircinusError`."""
        request, *arguments = header
        begin_call()
        outputs: Sequence[Payload] = ()
        content: Any
        try:
            match request:
                case _ if request != CodeRequest.SCORES and self._is_edited():
                    content = EDITED
                case CodeRequest.DESCRIBE:
                    content = self._describe(*arguments)
                case CodeRequest.BIND:
                    content = self._mismatch(*arguments)
                case CodeRequest.ITEMS:
                    content, outputs = self._items(*arguments)
                case _:
                    content = self._scores(payloads[0], *arguments)
        except CircinusError as error:
            print_exception()
            content = error
        self._note_imports()
        return (ReplyType.DONE.value, content), outputs

    def _resolve(self, reference: str) -> Any:
        if reference not in self._resolved:
            self._resolved[reference] = resolve(reference, self._module_paths)
        return self._resolved[reference]

    def _describe(self, reference: str) -> CodeDescription:
        resolved = self._resolve(reference)
        factory = operator_of(resolved)
        version: str | OperatorError
        try:
            version = source_version(resolved)
        except OperatorError as error:
            version = error
        signature = None
        if factory is not None:
            parameters = factory.name, factory.knobs, factory.inputs, factory.version, factory.required_knobs
            signature = OperatorSignature(*parameters, factory.takes_cpus)
        return CodeDescription(type(resolved).__name__, callable(resolved), signature, version)

    def _mismatch(self, reference: str, positional: int, keywords: Sequence[str]) -> CallMismatch | None:
        try:
            signature = inspect.signature(self._resolve(reference))
        except (TypeError, ValueError):  # built-in functions may have none
            return None
        try:
            signature.bind(*[None] * positional, **dict.fromkeys(keywords))
        except TypeError as error:
            return CallMismatch(str(signature), str(error))
        return None

    def _items(self, reference: str, arguments: Mapping[str, Any]) -> tuple[list[ItemEntry], list[bytes]]:
        function = self._resolve(reference)
        try:
            items = tuple(function(**arguments))
        except BaseException as error:  # the user's function may raise anything
            raise OperatorError(
                f"the call with {dict(arguments)} failed with {describe_exception(error)}", code="dataset.failed"
            ) from error
        _check_items(items)
        values, truths, entries = _Packs(), _Packs(), []
        for item in items:
            try:
                values.add(pickle_value(item.value))
                truths.add(pickle_value(item.truth))
            except BaseException as error:  # a value's own methods may raise anything
                raise ProfileError(
                    f"the value or ground truth of item {item.key} cannot be pickled ({describe_exception(error)})",
                    code="dataset.unpicklable_item",
                    hint="Return plain data or arrays.",
                ) from error
            strata = {str(name): str(value) for name, value in item.strata.items()}
            entries.append((str(item.key), strata, f"{sorted(item.strata.items())}"))
        return entries, [*values.packed(), *truths.packed()]

    def _scores(self, rows: Payload, reference: str, sinks: Sequence[str]) -> list[float | ScoreFailure]:
        metric = self._resolve(reference)
        values, width = unpack_list(rows), len(sinks) + 1
        return [_score(metric, sinks, values[begin : begin + width]) for begin in range(0, len(values), width)]

    def _is_edited(self) -> bool:
        return any(file_state(file) != state for file, state in self._imported.items())

    def _note_imports(self) -> None:
        if len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and file not in self._imported and self._is_own(file):
                self._imported[file] = file_state(file)

    def _is_own(self, file: str) -> bool:
        """Return whether a file is in a folder of modules, except for packages that are installed below it."""
        ends = [file.removeprefix(f"{path}/") for path in self._module_paths]
        return any(end != file and "/site-packages/" not in f"/{end}" for end in ends)


class _Packs:
    """Payloads of packed lists, of about `_PACK_BYTES` each."""

    def __init__(self) -> None:
        self._packs: list[bytes] = []
        self._values: list[bytes] = []
        self._bytes = 0

    def add(self, value: bytes) -> None:
        self._values.append(value)
        self._bytes += len(value)
        if self._bytes >= _PACK_BYTES:
            self.packed()

    def packed(self) -> list[bytes]:
        """Pack the rest, and return the payloads."""
        if self._values:
            self._packs.append(pack_list(self._values))
        self._values, self._bytes = [], 0
        return self._packs


def _score(metric: Callable[..., Any], sinks: Sequence[str], row: Sequence[Payload]) -> float | ScoreFailure:
    begin_call()
    try:
        *outputs, truth = map(unpickle_value, row)
        score = metric(dict(zip(sinks, outputs, strict=True)) if len(outputs) > 1 else outputs[0], truth)
        with suppress(TypeError, ValueError, OverflowError):
            return float(score)
        return ScoreFailure(repr(score)[:_MAX_TEXT], is_invalid=True)
    except BaseException as error:  # the user's metric may raise anything
        return ScoreFailure(f"failed with {describe_exception(error)}")


def _check_items(items: Sequence[Any]) -> None:
    if not items:
        raise ProfileError("the data set has no items", code="dataset.empty")
    seen: set[str] = set()
    for index, item in enumerate(items):
        if not isinstance(item, Item):
            raise ProfileError(
                f"found {type(item).__name__} at index {index}, expected circinus.operators.Item",
                code="dataset.not_an_item",
            )
        if not isinstance(item.key, str) or not item.key:
            raise ProfileError(
                f"found the key {item.key!r} at index {index}, expected a non-empty string", code="dataset.invalid_key"
            )
        if item.key in seen:
            raise ProfileError(
                f"two items have the key {item.key}",
                code="dataset.duplicate_key",
                hint="Give each item its own key.",
            )
        seen.add(item.key)
