"""Diagnostics of `check_operators`, each with the line of its field."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from circinus.errors import Diagnostic
from circinus.operators.validation import check_operators
from circinus.specification import DatasetSpec, MetricSpec, OperatorSpec, Pipeline, Specification, load_specification

_MODULE = "checked_code"
_CODE = """
from circinus.operators import operator

@operator
def whisper(audio, *, model, beam=1):
    return audio

@operator
def join(left, right):
    return left

@operator
class Any:
    def __init__(self, *, size=1, cpus=1.0): ...
    def process(self, *inputs): return inputs[0]

def plain(x):
    return x

def score(output, truth):
    return 1.0

def items(count=3):
    return []

number = 3
"""

_PIPELINE = """\
apiVersion: circinus/v1
kind: Pipeline
metadata: {name: p}
spec:
  operators:
    - name: first
      uses: checked_code:whisper
      knobs:
        model: [tiny, base]
        beam: {choices: [1, 5], only_if: {model: base}}
    - name: second
      uses: checked_code:Any
      after: first
    - name: third
      uses: checked_code:join
      after: [first, second]
  metric: {name: score, uses: checked_code:score}
  dataset:
    uses: checked_code:items
    arguments: {count: 5}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / f"{_MODULE}.py").write_text(_CODE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, _MODULE, raising=False)
    return tmp_path


def _faults(folder: Path, *changes: tuple[str, str]) -> tuple[Diagnostic, ...]:
    text = _PIPELINE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "p.yaml").write_text(text)
    return check_operators(load_specification([folder / "p.yaml"]))


def test_a_pipeline_whose_code_fits_has_no_fault(folder: Path) -> None:
    assert _faults(folder) == ()


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "words"),
    [
        ("checked_code:whisper", "checked_code:whispr", 7, "spec.operators[0].uses", ["whispr", "mean whisper?"]),
        ("checked_code:whisper", "chcked_code:whisper", 7, "spec.operators[0].uses", ["mean checked_code?"]),
        ("checked_code:whisper", "no-such-entry", 7, "spec.operators[0].uses", ["entry point"]),
        ("checked_code:whisper", "checked_code:plain", 7, "spec.operators[0].uses", ["type function", "@operator"]),
        ("model: [tiny", "modle: [tiny", 9, "spec.operators[0].knobs.modle", ["knob modle", "did you mean model?"]),
        ("after: first\n", "after: first\n      knobs: {cups: 1}\n", 14, "spec.operators[1].knobs.cups", ["(size)"]),
        ("beam:", "bean:", 10, "spec.operators[0].knobs.bean", ["a knob of whisper (model, beam)", "mean beam?"]),
        ("after: [first, second]", "after: [first]", 16, "spec.operators[2].after", ["1 input", "expected 2", "join"]),
        ("      after: [first, second]\n", "", 14, "spec.operators[2].after", ["no operator before it", "expected 2"]),
        ("checked_code:score", "checked_code:number", 17, "spec.metric.uses", ["is a int", "expected a function"]),
        ("checked_code:score", "checked_code:plain", 17, "spec.metric.uses", ["(x)", "the ground truth"]),
        ("checked_code:items", "checked_code:item", 19, "spec.dataset.uses", ["Did you mean items?"]),
        ("{count: 5}", "{cuont: 5}", 20, "spec.dataset.arguments", ["(count=3)", "cuont"]),
    ],
)  # fmt: skip
def test_one_fault_at_its_line(folder: Path, old: str, new: str, line: int, field: str, words: list[str]) -> None:
    changes = [(old, new)]
    if "model:" in old:  # drop the condition on the renamed knob, so that only the code disagrees
        changes.append(("only_if: {model: base}", "ordered: true"))
    (fault,) = _faults(folder, *changes)
    assert (fault.file, fault.line, fault.field) == (str(folder / "p.yaml"), line, field)
    for word in words:
        assert word in str(fault)


def test_a_required_knob_must_be_given_and_always(folder: Path) -> None:
    conditional = ("model: [tiny, base]", "model: {choices: [tiny], only_if: {beam: 5}}")
    (fault,) = _faults(folder, conditional, (", only_if: {model: base}", ""))
    assert (fault.line, fault.field) == (9, "spec.operators[0].knobs.model.only_if")
    assert "no default" in str(fault)
    missing = "      knobs:\n        model: [tiny, base]\n        beam: {choices: [1, 5], only_if: {model: base}}\n"
    (fault,) = _faults(folder, (missing, ""))
    assert (fault.line, fault.field) == (6, "spec.operators[0].knobs")
    assert "no knob model" in str(fault)


def test_every_fault_is_found_at_once(folder: Path) -> None:
    faults = _faults(
        folder,
        ("checked_code:whisper", "checked_code:nothing"),
        ("[first, second]", "[second]"),
        ("checked_code:score", "checked_code:number"),
    )
    assert [fault.line for fault in faults] == [7, 16, 17]


def test_a_pipeline_made_in_python_is_named_instead_of_a_file(folder: Path) -> None:
    pipeline = Pipeline(
        name="made",
        operators=[OperatorSpec(name="a", uses="checked_code:join")],
        metric=MetricSpec(name="m", uses="checked_code:score"),
        dataset=DatasetSpec(uses="checked_code:items"),
    )
    (fault,) = check_operators(Specification.of([pipeline], module_paths=[folder]))
    assert str(fault).startswith("Pipeline made: operators[0].after: found no operator before it")
