"""Count of sent items that the profile was measured on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import circinus as c
from circinus.api.traffic_items import count_profiled_items, select_traffic_items
from circinus.serving import Mode
from cli_runner import as_a_new_process
from prepared import prepared_starter


def test_items_are_counted_without_a_store(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    folder, store = prepared_starter(tmp_path_factory).copy(tmp_path / "application"), tmp_path / "absent.sqlite"
    with as_a_new_process((), folder):
        matching, specification = c.Plan.load("plan.json").matching, c.Workspace(".").specification
        for held_out, count in ((0.25, 0), (0.0, 3)):
            pipelines = {
                name: pipeline.model_copy(
                    update={"dataset": pipeline.dataset.model_copy(update={"held_out": held_out})}
                )
                for name, pipeline in specification.pipelines.items()
            }
            changed = replace(specification, pipelines=pipelines)
            sent = select_traffic_items(changed, matching, store, 3, Mode.REAL, 0)
            assert sum(len(items) for items in sent.values()) == 3
            assert count_profiled_items(changed, matching, store, sent, 0) == count
