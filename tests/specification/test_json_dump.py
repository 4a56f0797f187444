"""JSON text: equal to the standard library's values, in ASCII."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.specification import LatencySlo
from circinus.specification.json_dump import json_text, refuse_not_finite

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)


@given(VALUES)
def test_reads_back_and_is_ascii(value: object) -> None:
    text = json_text(value, indent=1, by_alias=False)
    assert text.isascii()
    refuse_not_finite(text)
    assert json.loads(text) == value


def test_numbers_that_are_not_finite_are_null_or_found() -> None:
    assert json.loads(json_text({"a": math.nan}, indent=2, by_alias=True, not_finite="null")) == {"a": None}
    for number in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=r"found -?(NaN|Infinity), expected finite numbers"):
            refuse_not_finite(json_text([number], indent=1, by_alias=True))
    refuse_not_finite(json_text(["NaN", "Infinity"], indent=1, by_alias=True))


def test_names_of_files_that_are_not_in_utf_8_are_escaped() -> None:
    text = json_text(
        {"file": Path(os.fsdecode(b"\xff")), "size": math.nan}, indent=None, by_alias=True, not_finite="null"
    )
    assert text == r'{"file":"\udcff","size":null}'


@dataclass(frozen=True)
class Entry:
    path: Path
    slo: LatencySlo


def test_dataclasses_paths_and_models_are_written() -> None:
    entry = Entry(Path("a") / "b", LatencySlo(limit_s=0.3))
    by_name = json.loads(json_text(entry, indent=1, by_alias=False))
    assert by_name == {"path": "a/b", "slo": {"percentile": 95.0, "limit_s": "300ms"}}
    assert json.loads(json_text(entry, indent=1, by_alias=True))["slo"] == json.loads(
        LatencySlo(limit_s=0.3).model_dump_json(by_alias=True)
    )
