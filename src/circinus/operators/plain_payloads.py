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
_MAX_GROWTH, _GROWTH_BYTES = 4, 1 << 16
"""Bound of the result's size relative to the payload, and in addition: shared parts become separate ones."""


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
        if is_list(data):
            return pack_list([plain_payload(value) for value in unpack_list(data)])
        result = _BoundedFile(_MAX_GROWTH * len(data) + _GROWTH_BYTES)
        pickle.Pickler(result, protocol=PROTOCOL).dump(_PlainUnpickler(io.BytesIO(data)).load())
    except UnsafePayloadError:
        raise
    except Exception as error:  # interpreting a damaged pickle may raise anything
        raise UnsafePayloadError(f"damaged data ({type(error).__name__}: {error})") from error
    return b"".join(result.parts)


class _BoundedFile:
    """File in memory that accepts `left` bytes."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.parts: list[bytes] = []

    def write(self, data: Any) -> int:
        part = bytes(data)
        self.left -= len(part)
        if self.left < 0:
            raise UnsafePayloadError("more data than the payload has bytes for")
        self.parts.append(part)
        return len(part)


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
        unpickler.values_left -= 1
        if unpickler.values_left < 0:
            raise UnsafePayloadError(f"more than {_MAX_VALUES:,} values")
        load(unpickler)

    return load_counted


class _PlainUnpickler(pickle._Unpickler):
    """Unpickler with the types of `_CONSTRUCTORS`, and with the instructions that protocol 5 needs for them."""

    stack: list[Any]
    memo: dict[int, Any]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.values_left = _MAX_VALUES
        self._keys_left = _MAX_VALUES

    def find_class(self, module: str, name: str) -> _Constructor:
        try:
            return _CONSTRUCTORS[module, name]
        except KeyError:
            raise UnsafePayloadError(f"type {module}.{name}") from None

    def load_reduce(self) -> None:
        arguments, constructor = self.stack.pop(), self.stack.pop()
        self.stack.append(_of_type(_Constructor, constructor).construct(*arguments))

    def load_build(self) -> None:
        state, draft = self.stack.pop(), _of_type(_Draft, self.stack.pop())
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
        members = self._hashable(self.pop_mark())
        _of_type(set, self.stack[-1]).update(members)

    def load_frozenset(self) -> None:
        members = frozenset(self._hashable(self.pop_mark()))
        self.stack.append(members)

    def _extend(self, elements: list[Any]) -> None:
        _of_type((list, deque), self.stack[-1]).extend(elements)

    def _set_items(self, items: list[Any]) -> None:
        _of_type(dict, self.stack[-1]).update(zip(self._hashable(items[::2]), items[1::2], strict=True))

    def _hashable(self, keys: Iterable[Any]) -> Iterable[Any]:
        """Return the keys. Hashing tuples that share parts may take exponentially long, and is not interruptible."""
        for key in keys:
            self._keys_left -= 1
            if self._keys_left < 0:
                raise UnsafePayloadError(f"more than {_MAX_VALUES:,} parts of keys")
            if isinstance(key, tuple):
                self._hashable(key)
        return keys

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
        _, order, subarray, names, fields, itemsize, _, _, *metadata = state
        if names is not None:
            formats, offsets = zip(*(fields[name] for name in names), strict=True)
            content = {"names": list(names), "formats": list(formats), "offsets": list(offsets), "itemsize": itemsize}
            dtype = np.dtype(content)  # type: ignore[call-overload]
        else:
            unit = ""
            if metadata and description in ("M8", "m8"):
                name, count, *_ = metadata[0][1]
                unit = f"[{int(count)}{name if isinstance(name, str) else name.decode()}]"
            if not re.fullmatch(r"[biufcmMSUV]\d*(\[\d+\w+\])?", description + unit, re.ASCII):
                raise UnsafePayloadError(f"type numpy.dtype({description[:40]!r})")
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
    return lambda *texts: construct(*(_of_type(str, text) for text in texts))


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
