"""Plain payloads: values of data types come back, nothing of a hostile pickle runs, and no payload grows."""

from __future__ import annotations

import datetime
import os
import pickle
import struct
import subprocess
import sys
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from circinus.operators.pickling import pack_list, pickle_value, unpickle_value
from circinus.operators.plain_payloads import UnsafePayloadError, plain_payload

keys = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.uuids() | st.dates(),
    lambda parts: st.tuples(parts, parts) | st.frozensets(parts, max_size=3),
    max_leaves=5,
)
values = st.recursive(
    keys
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC))
    | st.times()
    | st.timedeltas()
    | st.builds(PurePosixPath, st.text(st.characters(categories=["L"]), min_size=1))
    | st.builds(range, st.integers(-9, 9), st.integers(-9, 9)),
    lambda parts: st.lists(parts) | st.dictionaries(keys, parts) | st.builds(deque, st.lists(parts)) | st.tuples(parts),
    max_leaves=20,
)
dtypes = (
    arrays.scalar_dtypes()
    | arrays.byte_string_dtypes()
    | arrays.unicode_string_dtypes()
    | arrays.array_dtypes(arrays.scalar_dtypes(), max_size=3, allow_subarrays=False)
)


@given(value=values)
def test_values_of_data_types_come_back(value: Any) -> None:
    found = unpickle_value(plain_payload(pickle_value(value)))
    assert found == value
    assert type(found) is type(value)


def test_many_keys_come_back() -> None:
    value = [
        {f"key {k}": {k, (k, 1)} for k in range(20_000)},
        set(range(60_000)),
        {(k << 20, -1 - k) for k in range(20_000)},
        {uuid.UUID(int=k) for k in range(5_000)},
    ]
    assert unpickle_value(plain_payload(pickle_value(value))) == value


@given(array=arrays.arrays(dtypes, arrays.array_shapes(min_side=0)), view=st.sampled_from(["C", "F", "K", "strided"]))
def test_arrays_come_back(array: np.ndarray[Any, Any], view: str) -> None:
    assume(array.dtype.names is None or all(len(field) == 2 for field in array.dtype.fields.values()))  # no titles
    if view == "strided":
        array = array[::2]
    elif view == "K":
        array = np.moveaxis(array, 0, -1)
    else:
        array = np.asarray(array, order=view)  # type: ignore[call-overload]
    found = unpickle_value(plain_payload(pickle_value([array, array, *array.flat][:4])))
    assert _native(found[0]).dtype == _native(array).dtype
    assert found[0].shape == array.shape
    assert _native(found[0]).tobytes() == _native(array).tobytes()
    assert found[0] is found[1]
    assert [type(scalar) for scalar in found[2:]] == [type(scalar) for scalar in [*array.flat][:2]]


def _native(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array in this machine's byte order, into which some pickles of numpy turn others."""
    return array.astype(array.dtype.newbyteorder("="))


@pytest.mark.parametrize("name", ["numpy.core", "numpy._core"])
def test_arrays_of_both_numpy_generations_are_read(name: str) -> None:
    array = np.arange(6.0).reshape(2, 3)
    for value in (array, array[:, ::2], array[0, 1]):
        data = pickle_value(value)
        np.testing.assert_array_equal(unpickle_value(plain_payload(_renamed(data, name))), value)


def _renamed(data: bytes, name: str) -> bytes:
    """The pickle with modules of numpy as another generation names them."""
    data = data[:2] + data[11:]  # without the frame, which has a length
    for module in ("numeric", "multiarray"):
        for core in ("numpy.core", "numpy._core"):
            data = data.replace(_short_text(f"{core}.{module}"), _short_text(f"{name}.{module}"))
    return data


def _short_text(text: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode()


def test_other_data_types_come_back() -> None:
    identifier = uuid.UUID(int=7)
    value = {
        "deque": deque([1, [2]], maxlen=3),
        "ordered": OrderedDict([("b", 1), ("a", 2)]),
        "shared": [identifier, identifier, {identifier: Decimal("1.50")}],
        "buffers": [bytearray(b"1"), b"2", np.dtype("f4"), np.datetime64("2026-01-01"), np.float32(3)],
        "set": {1, 2},
        "slice": slice(1, None, 2),
        "many": list(range(3000)),
        "zone": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "x")),
    }
    found = unpickle_value(plain_payload(pickle_value(value)))
    assert found == value
    assert found["deque"].maxlen == 3
    assert list(found["ordered"]) == ["b", "a"]
    assert found["shared"][0] is found["shared"][1]


def test_lists_of_values_that_stay_serialized_are_checked_inside() -> None:
    assert unpickle_value(plain_payload(pack_list([pickle_value(1), pack_list([pickle_value("x")])]))) == [1, ["x"]]
    with pytest.raises(UnsafePayloadError, match=r"posix\.system"):
        plain_payload(pack_list([pickle_value(1), pack_list([pickle_value(_Call(os.system, "true"))])]))


def test_lists_within_lists_share_their_bounds() -> None:
    nested, deep = pickle_value(1), pickle_value(1)
    for _ in range(10):
        nested = pack_list([nested])
    for _ in range(30):
        deep = pack_list([deep])
    plain_payload(nested)
    with pytest.raises(UnsafePayloadError, match="lists"):
        plain_payload(deep)
    number = pickle.LONG1 + b"\xff" + b"\1" * 255 + pickle.MEMOIZE
    grown = START + pickle.EMPTY_LIST + number + pickle.APPEND + 200 * (pickle.BINGET + b"\0" + pickle.APPEND) + b"."
    plain_payload(pack_list([grown]))
    with pytest.raises(UnsafePayloadError, match="more data"):
        plain_payload(pack_list([grown] * 10))


def test_messages_show_a_bounded_printable_part_of_foreign_text() -> None:
    for payload in (
        START + pickle.BINUNICODE + struct.pack("<I", 10**6) + b"\x1b" * 10**6 + _short_text("x") + b"\x93.",
        START + _global("decimal", "Decimal") + _short_text("\x1b[2J" * 40) + pickle.TUPLE1 + pickle.REDUCE + b".",
        START + DTYPE.replace(_short_text("V8"), _short_text("\x1b[2J" * 40)) + pickle.MARK + 8 * b"N" + b"tb.",
    ):
        with pytest.raises(UnsafePayloadError) as caught:
            plain_payload(payload)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500


class _Call:
    """Object whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


@dataclass
class Sample:
    """Type of a user's module."""

    value: int


FIELD_OUTSIDE = (3, "|", None, ("a",), {"a": (np.dtype("f8"), 99)}, 8, 1, 0)
OBJECT_IN_BYTES = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
"""States of a dtype that the `__setstate__` of numpy accepts."""
RECONSTRUCT = np.zeros(1)[:0].__reduce__()[0]
OBJECT_FIELD = np.dtype([("a", "O")])


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (_Call(os.system, "touch run"), r"posix\.system"),
        (_Call(eval, "1"), r"builtins\.eval"),
        (_Call(getattr, "", "join"), r"builtins\.getattr"),
        (_Call(np.load, "run", None, True), "numpy"),
        (print, r"builtins\.print"),
        (np.ndarray, "function"),
        (Sample(1), r"test_plain_payloads\.Sample"),
        (Sample, r"test_plain_payloads\.Sample"),
        (object(), "object"),
        (_Call(np.ndarray, (10**12,)), "numpy.ndarray"),
        (_Call(np.dtype, "O"), "unfinished"),
        (np.array([None]), "O8"),
        (OBJECT_FIELD, "O8"),
        (np.ma.masked_array([1.0]), "numpy"),
        (_Call(deque, range(10**15)), "range"),
        (_Call(RECONSTRUCT, np.matrix, (0,), b"b", state=()), "matrix"),
        (_Call(RECONSTRUCT, np.ndarray, (10**12,), b"b", state=()), "subclass"),
        (_Call(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (10**12,), np.dtype("f8"), False, b"1234")), "buffer"),
        (_Call(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (10**15,), np.dtype("V0"), False, b"")), "elements"),
        (_Call(RECONSTRUCT, np.ndarray, (0,), b"b", state={"shape": 1}), "damaged"),
        (
            _Call(np.dtype, "V8", False, True, state=FIELD_OUTSIDE),
            "itemsize",
        ),
        (_Call(np.dtype, "V8", False, True, state=OBJECT_IN_BYTES), "O8"),
        (_Call(np.dtype, "(9,9)f8", False, True, state=(3, "|", None, None, None, -1, -1, 0)), r"\(9,9\)"),
    ],
)
def test_other_types_and_calls_are_refused(value: Any, named: str, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for payload in (pickle_value(value), pickle_value([1, {"x": value}])):
        with pytest.raises(UnsafePayloadError, match=named):
            plain_payload(payload)
    assert not list(tmp_path.iterdir())


START = pickle.PROTO + b"\5"


def _nested_key(depth: int) -> bytes:
    """A dictionary whose key takes 2^depth steps to hash."""
    nesting = pickle.EMPTY_TUPLE + pickle.MEMOIZE
    for level in range(depth):
        nesting += 2 * (pickle.BINGET + bytes([level])) + pickle.TUPLE2 + pickle.MEMOIZE
    return START + pickle.EMPTY_DICT + nesting + pickle.NONE + pickle.SETITEM + pickle.STOP


def _global(module: str, name: str) -> bytes:
    return _short_text(module) + _short_text(name) + pickle.STACK_GLOBAL


def _nested_dtype_key(depth: int) -> bytes:
    """A dictionary whose key is a dtype with 2^depth fields in one byte."""
    dtype: Any = np.dtype("u1")
    for _ in range(depth):
        dtype = np.dtype({"names": ["a", "b"], "formats": [dtype, dtype], "offsets": [0, 0], "itemsize": 1})
    return START + pickle.EMPTY_DICT + pickle_value(dtype)[11:-1] + pickle.NONE + pickle.SETITEM + pickle.STOP


def _nested_sets(depth: int) -> bytes:
    """A set of two equal frozensets, which take 2^depth steps to compare."""
    nesting = b""
    for memo_index in range(2 * depth):
        is_innermost = memo_index in (0, depth)
        inner = pickle.EMPTY_TUPLE if is_innermost else 2 * (pickle.BINGET + bytes([memo_index - 1])) + pickle.TUPLE2
        nesting += pickle.MARK + inner + pickle.FROZENSET + pickle.MEMOIZE
    members = b"".join(pickle.BINGET + bytes([memo_index]) for memo_index in (depth - 1, 2 * depth - 1))
    return START + nesting + pickle.EMPTY_SET + pickle.MARK + members + pickle.ADDITEMS + pickle.STOP


def _repeated(function: bytes, arguments: bytes, state: bytes = b"") -> bytes:
    """A tuple of the results of calls that share their arguments."""
    shared, indexes = START + pickle.MARK, []
    for part in (function, arguments, state or pickle.NONE):
        shared += part + pickle.MEMOIZE
        indexes.append(pickle.BINGET + bytes([shared.count(pickle.MEMOIZE) - 1]))
    call = indexes[0] + indexes[1] + pickle.REDUCE + (indexes[2] + pickle.BUILD if state else b"")
    return shared + call * 200_000 + pickle.TUPLE + pickle.STOP


def _bytes(count: int, opcode: bytes = pickle.BINBYTES) -> bytes:
    return opcode + struct.pack("<I", count) + b"1" * count


def _colliding_keys(count: int) -> bytes:
    """A dictionary of numbers with one hash, which takes too long to build here, too."""
    numbers = (pickle.LONG1 + b"\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + pickle.NONE for k in range(count))
    return START + pickle.EMPTY_DICT + pickle.MARK + b"".join(numbers) + b"u."


def _keys_beside_collisions() -> bytes:
    """A dictionary of numbers, and a text that is set again and again."""
    numbers = b"".join(pickle.LONG1 + b"\x08" + struct.pack("<Q", k << 30) + pickle.NONE for k in range(8_000))
    repeated = _short_text("key") + pickle.MEMOIZE + pickle.NONE + (pickle.BINGET + b"\0" + pickle.NONE) * 200_000
    return START + pickle.EMPTY_DICT + pickle.MARK + numbers + b"u" + pickle.MARK + repeated + b"u."


VOID = pickle_value(np.dtype("V100000"))[11:-1]
FIELDS = pickle_value(np.dtype([(f"f{k}", "u1") for k in range(100)]).__reduce__()[2])[11:-1]
RANGE = _global("builtins", "range") + pickle.BININT + struct.pack("<i", 30_000_000) + pickle.TUPLE1 + pickle.REDUCE
DTYPE = _global("numpy", "dtype") + _short_text("V8") + pickle.TUPLE1 + pickle.REDUCE
RANGE_AS_NAMES = pickle.MARK + 3 * pickle.NONE + 2 * RANGE + 3 * pickle.NONE + pickle.TUPLE


def _bombs() -> list[bytes]:
    return [
        START + pickle.NONE + pickle.LONG_BINPUT + b"\xff\xff\xff\xff" + pickle.STOP,
        START + pickle.BYTEARRAY8 + struct.pack("<Q", 10**12) + pickle.STOP,
        START + pickle.BINBYTES8 + struct.pack("<Q", 10**12) + pickle.STOP,
        START + pickle.FRAME + struct.pack("<Q", 10**12) + pickle.STOP,
        _nested_key(200),
        _nested_dtype_key(22),
        _nested_sets(40),
        START + _global("builtins", "complex") + RANGE + pickle.REDUCE + pickle.STOP,
        START + DTYPE + RANGE + pickle.BUILD + pickle.STOP,
        START + DTYPE + RANGE_AS_NAMES + pickle.BUILD + pickle.STOP,
        _colliding_keys(20_000),
        pickle_value({uuid.UUID(int=k * (2**61 - 1)) for k in range(2_000)}),
        _repeated(_global("decimal", "Decimal"), _bytes(4_000, pickle.BINUNICODE) + pickle.TUPLE1),
        _repeated(_global("decimal", "Decimal"), _bytes(10**6, pickle.BINUNICODE) + pickle.TUPLE1),
        _repeated(_global("pathlib", "PurePosixPath"), pickle.MARK + _short_text("folder") * 10_000 + pickle.TUPLE),
        _repeated(_global("collections", "deque"), pickle.MARK + pickle.NONE * 100_000 + pickle.TUPLE + pickle.TUPLE1),
        _repeated(_global("numpy._core.multiarray", "scalar"), VOID + _bytes(100_000) + pickle.TUPLE2),
        _repeated(_global("numpy", "dtype"), _short_text("V100") + pickle.TUPLE1, FIELDS),
        _keys_beside_collisions(),
        pack_list([pickle_value(None)] * 300_000),
        pack_list(
            [START + pickle.EMPTY_SET + 20_000 * pickle.NONE + pickle.MARK + b"N" * 20_000 + pickle.TUPLE + b"."] * 60
        ),
        START + pickle.MARK + pickle.EMPTY_SET * 3_000_000 + pickle.LIST + pickle.STOP,
        START + pickle.EMPTY_LIST * 3_000_000 + pickle.STOP,
        START + pickle.EMPTY_TUPLE + pickle.TUPLE1 * 1_000_000 + pickle.STOP,
        START + pickle.EMPTY_DICT + pickle.EMPTY_TUPLE + pickle.TUPLE1 * 100_000 + pickle.NONE + b"s.",
        START
        + pickle.EMPTY_LIST
        + pickle.LONG1
        + b"\xff"
        + b"\1" * 255
        + pickle.MEMOIZE
        + pickle.APPEND
        + (pickle.BINGET + b"\0" + pickle.APPEND) * 100_000
        + pickle.STOP,
        b"\0\xff\xff\xff\xff",
        b"\0\1\0\0\0" + struct.pack("<Q", 2**63),
        b"",
        b"text",
        b"cposix\nsystem\n(S'touch run'\ntR.",
        START + b"\x8c\5posix\x8c\6system\x93.",
    ]


_REFUSALS = """
import os, resource, sys
from circinus.operators.plain_payloads import UnsafePayloadError, plain_payload

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

for number, size in enumerate(map(int, sys.argv[1:])):
    payload = sys.stdin.buffer.read(size)
    if os.fork():
        os.wait()
        continue
    used = peak()
    try:
        plain_payload(payload)
    except UnsafePayloadError:
        os.write(1, f"{number} {peak() - used}\\n".encode())
    os._exit(0)
"""


def test_bombs_and_other_protocols_are_refused_in_little_memory() -> None:
    """Each in a process of its own, as memory is measured by its peak."""
    bombs = _bombs()
    command = [sys.executable, "-c", _REFUSALS, *(str(len(bomb)) for bomb in bombs)]
    run = subprocess.run(command, input=b"".join(bombs), capture_output=True, check=True)
    grown_kib = {int(number): int(grown) for number, grown in map(bytes.split, run.stdout.splitlines())}
    assert list(grown_kib) == list(range(len(bombs))), run.stderr.decode()
    assert max(grown_kib.values()) < 400_000, grown_kib  # a million empty sets have 220 MB
