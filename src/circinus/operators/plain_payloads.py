"""Plain payloads: values of data types alone, which cannot run code when they are unpickled.

A pickle is a program: it names functions, which the unpickler imports and calls. `plain_payload` interprets one with a
few instructions and a table of types, and serializes the result again: only bytes from this process are passed on. The
functions of the table check their arguments, because those of numpy trust a pickle with sizes and memory layouts. The
interpreter takes about 1 µs for each value; payloads with a valid seal (`circinus.seals`) need none.
"""

from __future__ import annotations

import datetime
import io
import pickle
import re
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, ClassVar
from uuid import UUID

import numpy as np

from circinus.operators.pickling import PROTOCOL, Payload, is_list, pack_list, unpack_list

_MAX_VALUES = 1_000_000
"""Bound of time and memory: an instruction creates an object of at most some 200 bytes, or one as long as its data."""
_SMALL, _MAX_TEXT = 256, 4096
"""Length of an argument whose copy counts as any object, and the longest text of a number or path."""
_VALUES_OF_PICKLE = 10
"""Values that take as long as beginning another pickle."""
_MAX_GROWTH, _GROWTH_BYTES = 4, 1 << 16
"""Bound of the result's size relative to the payload, and in addition: shared parts become separate ones."""
_MAX_DEPTH = 16
"""Bound of lists within lists that stay serialized: each level copies its values."""
_MAX_STEPS = 1_000_000_000
"""Bound of the time of adding keys, some 2 ns each: a slot that another key has, as a sender can choose numbers."""
_STEPS_OF_PART, _STEPS_OF_COMPARISON, _PART_BYTES = 1_000, 2_000, 1024
"""Steps of hashing a part of a key, and of comparing parts of keys of one hash, up to that size."""
_SCATTERED = 1 << 16
"""Numbers below it have too few multiples of a power of two to fill many slots in turn; hashes of texts are random."""


class UnsafePayloadError(Exception):
    """Payload that may run code when it is unpickled, or is damaged."""


def plain_payload(data: Payload) -> bytes:
    """Return the payload of the same value, serialized by this process.

    Supported are built-in scalars and containers, ordered dictionaries, deques, dates and times, decimal numbers,
    UUIDs, pure paths, and numpy arrays, scalars and dtypes without Python objects.

    Raises:
        UnsafePayloadError: the payload has another type, is damaged, or has more values than its bytes account for.

    Example:
        >>> from circinus.operators.pickling import pickle_value, unpickle_value
        >>> unpickle_value(plain_payload(pickle_value({"box": (1, 2.5)})))
        {'box': (1, 2.5)}
        >>> plain_payload(pickle_value(print))
        Traceback (most recent call last):
        ...
        circinus.operators.plain_payloads.UnsafePayloadError: type builtins.print
    """
    try:
        return _plain(data, _Budget(_MAX_GROWTH * len(data) + _GROWTH_BYTES), _MAX_DEPTH)
    except UnsafePayloadError:
        raise
    except Exception as error:  # interpreting a damaged pickle may raise anything
        raise UnsafePayloadError(f"damaged data ({type(error).__name__}: {_excerpt(str(error))})") from error


def _plain(data: Payload, budget: _Budget, depth: int) -> bytes:
    budget.count_values()
    if is_list(data):
        if not depth:
            raise UnsafePayloadError(f"more than {_MAX_DEPTH} lists within each other")
        return pack_list([_plain(value, budget, depth - 1) for value in unpack_list(data)])
    budget.count_values(_VALUES_OF_PICKLE)
    pickle.Pickler(budget, protocol=PROTOCOL).dump(_PlainUnpickler(io.BytesIO(data), budget).load())
    return budget.written()


def _excerpt(text: str) -> str:
    """Return the beginning of a text of others, with escapes for control characters."""
    return repr(text[:80])[1:-1]


class _Budget:
    """Rest of the bounds of a payload, and the file in memory for its values."""

    def __init__(self, bytes_left: int) -> None:
        self._bytes_left = bytes_left
        self._values_left, self._steps_left = _MAX_VALUES, _MAX_STEPS
        self._parts: list[bytes] = []

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._count_bytes(len(part))
        self._parts.append(part)
        return len(part)

    def written(self) -> bytes:
        """Return what was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)

    def _count_bytes(self, count: int) -> None:
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise UnsafePayloadError("more data than the payload has bytes for")

    def count_values(self, count: int = 1) -> None:
        self._values_left -= count
        if self._values_left < 0:
            raise UnsafePayloadError(f"more than {_MAX_VALUES:,} values")

    def count_arguments(self, arguments: tuple[Any, ...]) -> None:
        """Count what a call copies or walks through: many calls may share one argument."""
        self.count_values(len(arguments))
        for argument in arguments:
            if isinstance(argument, tuple):
                self.count_values(len(argument))
            elif isinstance(argument, str | bytes | bytearray) and len(argument) > _SMALL:
                self._count_bytes(len(argument))

    def count_keys(self, keys: Iterable[Any], hashes: dict[int, int]) -> None:
        """Count the steps of adding keys to a container, which are not interruptible.

        Args:
            keys: keys to add.
            hashes: hash -> count of keys in the container whose sender can choose the hash; the new ones are added.
        """
        for key in keys:
            parts = self._count_parts(key)
            key_hash = hash(key)
            equal = hashes.get(key_hash, 0)
            self._count_steps(len(hashes) + equal * parts * parts * _STEPS_OF_COMPARISON)
            if not (type(key) in (str, bytes) or (type(key) is int and abs(key) < _SCATTERED)):
                hashes[key_hash] = equal + 1

    def _count_parts(self, key: Any) -> int:
        """Count the parts of a key before it is hashed, and return their number: parts may share parts."""
        if isinstance(key, np.void | np.dtype):  # fields may overlap, and each have such fields
            raise UnsafePayloadError(f"a numpy.{'void' if isinstance(key, np.void) else 'dtype'} as a key")
        own = 1 + sys.getsizeof(key) // _PART_BYTES
        self._count_steps(own * _STEPS_OF_PART)
        return own + sum(map(self._count_parts, key)) if isinstance(key, tuple | frozenset) else own

    def _count_steps(self, count: int) -> None:
        self._steps_left -= count
        if self._steps_left < 0:
            raise UnsafePayloadError("keys that take too long to compare")


class _Part:
    """Object that must not be left in a value."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise UnsafePayloadError("a function or an unfinished object")


class _Constructor(_Part):
    """Replacement of a callable that a pickle names."""

    def __init__(self, construct: Callable[..., Any]) -> None:
        self.construct = construct


class _Draft(_Part):
    """Object without its state, which follows."""

    def __init__(self, finish: Callable[[Any], Any]) -> None:
        self.finish = finish
        self.memo_index: int | None = None


def _counted(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return an instruction that is counted."""

    def load_counted(unpickler: _PlainUnpickler) -> None:
        unpickler.budget.count_values()
        load(unpickler)

    return load_counted


class _PlainUnpickler(pickle._Unpickler):
    """Unpickler with the types of `_CONSTRUCTORS`, and with the instructions that protocol 5 needs for them."""

    stack: list[Any]
    memo: dict[int, Any]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: io.BytesIO, budget: _Budget) -> None:
        super().__init__(file)
        self.budget = budget
        self._hashes: dict[int, dict[int, int]] = {}
        """Counts of hashes by id of the container, see `_Budget.count_keys`."""

    def find_class(self, module: str, name: str) -> _Constructor:
        try:
            return _CONSTRUCTORS[module, name]
        except KeyError:
            raise UnsafePayloadError(f"type {_excerpt(f'{module}.{name}')}") from None

    def load_reduce(self) -> None:
        arguments, constructor = _of_type(tuple, self.stack.pop()), _of_type(_Constructor, self.stack.pop())
        self.budget.count_arguments(arguments)
        self.stack.append(constructor.construct(*arguments))

    def load_build(self) -> None:
        state, draft = self.stack.pop(), _of_type(_Draft, self.stack.pop())
        if isinstance(state, tuple):
            self.budget.count_arguments(state)
        self.stack.append(draft.finish(state))
        if draft.memo_index is not None:
            self.memo[draft.memo_index] = self.stack[-1]

    def load_memoize(self) -> None:
        value = self.stack[-1]
        if isinstance(value, _Draft):
            value.memo_index = len(self.memo)
        self.memo[len(self.memo)] = value

    def load_bytearray8(self) -> None:
        self.stack.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def load_additems(self) -> None:
        members = self.pop_mark()
        self._count_keys(_of_type(set, self.stack[-1]), members).update(members)

    def load_frozenset(self) -> None:
        members = self.pop_mark()
        self.budget.count_keys(members, {})
        self.stack.append(frozenset(members))

    def _extend(self, elements: list[Any]) -> None:
        _of_type((list, deque), self.stack[-1]).extend(elements)

    def _set_items(self, items: list[Any]) -> None:
        keys = items[::2]
        self._count_keys(_of_type(dict, self.stack[-1]), keys).update(zip(keys, items[1::2], strict=True))

    def _count_keys(self, container: Any, keys: list[Any]) -> Any:
        """Count keys that are added to a container, and return it."""
        hashes = self._hashes.pop(id(container), {})
        self.budget.count_keys(keys, hashes)
        if hashes:
            self._hashes[id(container)] = hashes
        return container

    dispatch: ClassVar = {
        **{
            code[0]: _counted(pickle._Unpickler.dispatch[code[0]])
            for code in (
                *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
                *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
                *(pickle.SHORT_BINBYTES, pickle.BINBYTES, pickle.BINBYTES8),
                *(pickle.SHORT_BINUNICODE, pickle.BINUNICODE, pickle.BINUNICODE8),
                *(pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.TUPLE),
                *(pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET),
                *(pickle.BINGET, pickle.LONG_BINGET, pickle.STACK_GLOBAL),
            )
        },
        pickle.REDUCE[0]: _counted(load_reduce),
        pickle.NEWOBJ[0]: _counted(load_reduce),
        pickle.BUILD[0]: _counted(load_build),
        pickle.MEMOIZE[0]: _counted(load_memoize),
        pickle.BYTEARRAY8[0]: _counted(load_bytearray8),
        pickle.APPEND[0]: _counted(load_append),
        pickle.APPENDS[0]: _counted(load_appends),
        pickle.SETITEM[0]: _counted(load_setitem),
        pickle.SETITEMS[0]: _counted(load_setitems),
        pickle.ADDITEMS[0]: _counted(load_additems),
        pickle.FROZENSET[0]: _counted(load_frozenset),
    }


def _of_type(expected: Any, value: Any) -> Any:
    if not isinstance(value, expected):
        raise UnsafePayloadError(f"a {type(value).__name__} where another object is needed")
    return value


def _dtype(description: str, align: bool = False, copy: bool = False) -> _Draft:
    """Return the draft of a dtype: numpy's `dtype.__setstate__` does not check that fields are inside, nor objects."""

    def finish(state: tuple[Any, ...]) -> np.dtype[Any]:
        _, order, subarray, names, fields, itemsize, _, _, *metadata = _of_type(tuple, state)
        if names is not None:
            fields = _of_type(dict, fields)
            formats, offsets = zip(*(fields[name] for name in _of_type(tuple, names)), strict=True)
            content = {"names": list(names), "formats": list(formats), "offsets": list(offsets), "itemsize": itemsize}
            dtype = np.dtype(content)  # type: ignore[call-overload]
        else:
            unit = ""
            if metadata and description in ("M8", "m8"):
                name, count, *_ = _of_type(tuple, metadata[0][1])
                unit = f"[{int(count)}{name if isinstance(name, str) else name.decode()}]"
            if not re.fullmatch(r"[biufcmMSUV]\d*(\[\d+\w+\])?", description + unit, re.ASCII):
                raise UnsafePayloadError(f"type numpy.dtype({_excerpt(description)})")
            dtype = np.dtype(description + unit)
        if subarray is not None or dtype.hasobject:
            raise UnsafePayloadError("a dtype with objects or subarrays")
        ordered: np.dtype[Any] = dtype if names is not None else dtype.newbyteorder(order)
        return ordered

    return _Draft(finish)


def _array(
    buffer: bytes | bytearray, dtype: np.dtype[Any], shape: Any, order: str = "C", axes: Any = None
) -> np.ndarray[Any, Any]:
    """Return an array of exactly the bytes of `buffer`."""
    _of_type(np.dtype, dtype)
    array = np.ndarray(shape, dtype, _of_type((bytes, bytearray), buffer), order="F" if order == "F" else "C")
    if array.nbytes != len(buffer) or (not buffer and array.size > 1):  # elements may have no bytes
        raise UnsafePayloadError(f"an array of {array.size} elements with {len(buffer)} bytes of data")
    return array if axes is None else array.transpose(axes)


def _reconstruct(subtype: _Constructor, shape: tuple[int, ...], typecode: bytes) -> _Draft:
    if subtype is not _CONSTRUCTORS["numpy", "ndarray"] or shape != (0,):
        raise UnsafePayloadError("a subclass of numpy.ndarray")

    def finish(state: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        _, shape, dtype, is_fortran, buffer = state
        return _array(buffer, dtype, shape, "F" if is_fortran else "C")

    return _Draft(finish)


def _texts(construct: Callable[..., Any]) -> Callable[..., Any]:
    def construct_checked(*texts: Any) -> Any:
        if sum(len(_of_type(str, text)) for text in texts) > _MAX_TEXT:
            raise UnsafePayloadError(f"a number or path of over {_MAX_TEXT:,} characters")
        return construct(*texts)

    return construct_checked


def _numbers(construct: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *numbers: construct(*(_of_type((int, float, type(None)), number) for number in numbers))


def _validated(construct: Callable[..., Any]) -> Callable[..., Any]:
    """Return a constructor of times that checks what the unpickled bytes say."""
    return lambda *arguments: construct(*arguments).replace()


def _refused(*arguments: Any) -> Any:
    raise UnsafePayloadError("a call of numpy.ndarray")


_FUNCTIONS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("builtins", "complex"): _numbers(complex),
    ("builtins", "range"): _numbers(range),
    ("builtins", "slice"): _numbers(slice),
    ("collections", "OrderedDict"): lambda: OrderedDict(),
    ("collections", "deque"): lambda elements=(), maxlen=None: deque(_of_type(tuple, elements), maxlen),
    ("datetime", "date"): _validated(datetime.date),
    ("datetime", "datetime"): _validated(datetime.datetime),
    ("datetime", "time"): _validated(datetime.time),
    ("datetime", "timedelta"): _numbers(datetime.timedelta),
    ("datetime", "timezone"): datetime.timezone,
    ("decimal", "Decimal"): _texts(Decimal),
    ("pathlib", "PurePosixPath"): _texts(PurePosixPath),
    ("pathlib._local", "PurePosixPath"): _texts(PurePosixPath),
    ("uuid", "UUID"): lambda: _Draft(lambda state: UUID(int=state["int"])),
    ("numpy", "ndarray"): _refused,
    ("numpy", "dtype"): _dtype,
    **{
        (f"numpy.{core}.{module}", name): construct
        for core in ("core", "_core")  # before and since numpy 2
        for module, name, construct in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", lambda dtype, data: _array(data, dtype, (1,))[0]),
            ("numeric", "_frombuffer", _array),
        )
    },
}
_CONSTRUCTORS = {names: _Constructor(function) for names, function in _FUNCTIONS.items()}
