"""Truths as they arrive."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circinus.control.drift.truths import DatasetTruths, Truth, TruthFile
from circinus.errors import ServingError
from circinus.operators import Item


def _line(item: str, truth: object, pipeline: str = "p") -> str:
    return json.dumps({"pipeline": pipeline, "item": item, "truth": truth}) + "\n"


def test_those_of_a_data_set() -> None:
    truths = DatasetTruths({"p": [Item("a", 1, None)]})
    assert truths.find("p", "a") == Truth(None), "None is a truth, too"
    assert truths.find("p", "b") is None
    assert truths.find("q", "a") is None


def test_a_file_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "truths.jsonl"
    truths = TruthFile(path)
    assert truths.find("p", "a") is None
    path.write_text(_line("a", {"words": [1, 2]}))
    assert truths.find("p", "a") == Truth({"words": [1, 2]})
    with path.open("a") as file:
        file.write(_line("b", "two")[:-5])
        file.flush()
        assert truths.find("p", "b") is None, "it is still being written"
        file.write(_line("b", "two")[-5:] + _line("a", 3))
    assert truths.find("p", "b") == Truth("two")
    assert truths.find("p", "a") == Truth(3), "it was corrected"
    path.write_text(_line("c", 4))
    assert truths.find("p", "c") == Truth(4), "begun anew"
    assert truths.find("p", "b") == Truth("two")


@pytest.mark.parametrize("line", ["nonsense\n", "[1]\n", '{"pipeline": "p", "item": "a"}\n'])
def test_a_faulty_line_is_named_once(tmp_path: Path, line: str) -> None:
    path = tmp_path / "truths.jsonl"
    path.write_text(line + _line("b", 1))
    truths = TruthFile(path)
    with pytest.raises(ServingError, match=r"truths\.jsonl.*expected a line"):
        truths.find("p", "b")
    assert truths.find("p", "b") == Truth(1)


def test_no_more_are_kept_than_may_be(tmp_path: Path) -> None:
    path = tmp_path / "truths.jsonl"
    path.write_text("".join(_line(str(number), number) for number in range(5)))
    truths = TruthFile(path, most=2)
    assert truths.find("p", "4") == Truth(4)
    assert truths.find("p", "2") is None
