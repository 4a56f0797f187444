"""Tests of ground-truth sources."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from drift_scenario import MODULE, Listening

from circinus.control.drift.ground_truth import ChainedGroundTruth, DatasetGroundTruth, GroundTruth, GroundTruthFile
from circinus.errors import ServingError
from circinus.specification import DatasetSpec, Specification
from raised import raises_code


def _with_data(specification: Specification, dataset: DatasetSpec) -> Specification:
    pipeline = specification.pipelines["listen"].model_copy(update={"dataset": dataset})
    return replace(specification, pipelines={"listen": pipeline})


def _line(item: str, truth: object, pipeline: str = "p") -> str:
    return json.dumps({"pipeline": pipeline, "item": item, "truth": truth}) + "\n"


def test_those_of_a_data_set_as_it_is_specified(listening: Listening) -> None:
    now = listening.specification
    truths = DatasetGroundTruth(lambda: now)
    assert truths.find("listen", "0.175-2") == GroundTruth(2)
    assert truths.find("listen", "0.000-2") is None
    assert truths.find("", "0.175-2") is None
    now = _with_data(now, DatasetSpec(uses=f"{MODULE}:quiet", arguments={"count": 20}, held_out=0.0))
    assert truths.find("listen", "0.350-2") == GroundTruth(2)
    assert truths.find("listen", "0.175-2") is None


def test_of_a_data_set_that_cannot_be_built_it_is_said_once(listening: Listening) -> None:
    faulty = _with_data(listening.specification, DatasetSpec(uses=f"{MODULE}:loud"))
    truths = DatasetGroundTruth(lambda: faulty)
    with raises_code(ServingError, "dataset.no_ground_truths") as caught:
        truths.find("listen", "0.175-2")
    assert caught.value.location == "pipeline listen"
    assert "loud" in caught.value.message
    assert truths.find("listen", "0.175-2") is None


def test_what_somebody_tells_goes_before_the_data_set(listening: Listening, tmp_path: Path) -> None:
    path = tmp_path / "truths.jsonl"
    path.write_text(_line("0.175-2", 17, "listen") + _line("b", None, "listen"))
    truths = ChainedGroundTruth(GroundTruthFile(path), DatasetGroundTruth(lambda: listening.specification))
    assert truths.find("listen", "0.175-2") == GroundTruth(17)
    assert truths.find("listen", "0.350-4") == GroundTruth(4)
    assert truths.find("listen", "b") == GroundTruth(None), "None is a truth, too"
    assert truths.find("listen", "c") is None


def test_a_file_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "truths.jsonl"
    truths = GroundTruthFile(path)
    assert truths.find("p", "a") is None
    path.write_text(_line("a", {"words": [1, 2]}))
    assert truths.find("p", "a") == GroundTruth({"words": [1, 2]})
    with path.open("a") as file:
        file.write(_line("b", "two")[:-5])
        file.flush()
        assert truths.find("p", "b") is None, "it is still being written"
        file.write(_line("b", "two")[-5:] + _line("a", 3))
    assert truths.find("p", "b") == GroundTruth("two")
    assert truths.find("p", "a") == GroundTruth(3), "it was corrected"
    path.write_text(_line("c", 4))
    assert truths.find("p", "c") == GroundTruth(4), "begun anew"
    assert truths.find("p", "b") == GroundTruth("two")


@pytest.mark.parametrize("line", ["nonsense\n", "[1]\n", '{"pipeline": "p", "item": "a"}\n'])
def test_a_faulty_line_is_named_once(tmp_path: Path, line: str) -> None:
    path = tmp_path / "truths.jsonl"
    path.write_text(line + _line("b", 1))
    truths = GroundTruthFile(path)
    with raises_code(ServingError, "ground_truth.invalid_line") as caught:
        truths.find("p", "b")
    assert caught.value.location == str(path)
    assert truths.find("p", "b") == GroundTruth(1)


def test_no_more_are_kept_than_may_be(tmp_path: Path) -> None:
    path = tmp_path / "truths.jsonl"
    path.write_text("".join(_line(str(number), number) for number in range(5)))
    truths = GroundTruthFile(path, max_entries=2)
    assert truths.find("p", "4") == GroundTruth(4)
    assert truths.find("p", "2") is None
