"""Desired states as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.errors import ServingError
from circinus.serving.conformance_states import Step, chain
from circinus.serving.engine import Mode
from circinus.serving.state_file import state_from_json, state_to_json
from circinus.spec.model import Scalar

SCALARS = st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(
    st.dictionaries(st.text(min_size=1, max_size=5), SCALARS, max_size=3),
    st.integers(1, 9),
    st.sampled_from(Mode),
    st.none() | st.just(Path("/a/store.sqlite")),
)
def test_states_come_back_equal(knobs: dict[str, Scalar], replicas: int, mode: Mode, recordings: Path | None) -> None:
    first = Step("first", "add", knobs=tuple(sorted(knobs.items())), replicas=replicas)
    state = replace(
        chain("q", first, Step("second", "pair", after=("first", "first"), pool="far")),
        mode=mode,
        recordings=recordings,
        module_paths=(Path("/x"), Path("/y z")),
    )
    back = state_from_json(state_to_json(state))
    assert back == state
    # 1, 1.0 and True are equal in Python, and three different knob values.
    assert repr(back.deployments) == repr(state.deployments)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 1, "state": {}}', '{"schema_version": 99}'])
def test_damaged_documents_are_refused(text: str) -> None:
    with pytest.raises(ServingError, match="desired state"):
        state_from_json(text)


def test_document_names_its_schema_version() -> None:
    assert json.loads(state_to_json(chain("q", Step("first", "add"))))["schema_version"] == 1
