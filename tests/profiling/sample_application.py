"""A small application with real operators, whose every call is written down."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circinus.operators import resolve
from circinus.profiling import load_dataset
from circinus.profiling.measurement.local_runner import LocalRunner
from circinus.profiling.measurement.operator_session import OperatorSession
from circinus.profiling.store.measurement_keys import MeasurementKeys, pipeline_code
from circinus.specification import (
    AccuracySlo,
    Configuration,
    DatasetSpec,
    Knob,
    MetricSpec,
    OperatorSpec,
    Pipeline,
    Query,
    Slos,
    Specification,
    configurations,
)

FIRST = """
import os
from circinus.operators import operator

def told(operator, key):
    with open(os.environ["SAMPLE_LOG"], "a") as log:
        log.write(f"{operator} {key}\\n")

@operator
def prepare(value, *, gain: int):
    told(f"prepare{gain}", value["key"])
    return {**value, "x": value["x"] * gain}
"""

SECOND = """
import os
from circinus.operators import operator
from sample_first import told

@operator
class Left:
    def __init__(self, *, quality: str, cpus: float):
        told(f"load-left-{quality}", cpus)
        self.quality = quality

    def process(self, values):
        for value in values:
            told(f"left-{self.quality}", value["key"])
        return [value["x"] + (0.0 if self.quality == "high" else 0.3) for value in values]

@operator
def right(value):
    told("right", value["key"])
    return value["key"]

@operator
def joined(x, key):
    told("joined", key)
    return (key, x)
"""

DATA = """
import os
from circinus.operators import Item

def items(count=24):
    with open(os.environ["SAMPLE_LOG"], "a") as log:
        log.write("dataset -\\n")
    return [
        Item(f"i{i:02d}", {"key": f"i{i:02d}", "x": i / 100}, i / 100, {"third": str(i % 3)}) for i in range(count)
    ]

def close(answer, truth):
    return max(0.0, 1.0 - abs(answer[1] - truth))
"""

PASSES = """
import time

now_s = [0.0]

def passes(seconds):
    # Time passes for whoever measures in this process, and nobody waits.
    time.perf_counter = time.process_time = time.thread_time = lambda: now_s[0]
    now_s[0] += seconds
"""
"""For operators that take a given time on a machine of any speed: `passes(seconds)`, called in a replica alone."""

SOURCES = {"sample_first": FIRST, "sample_second": SECOND, "sample_data": DATA}


def sample_pipeline(name: str = "sample", **changes: Any) -> Pipeline:
    """prepare -> (left, right) -> joined: four configurations, of which gain 1 with quality high is exact."""
    values: dict[str, Any] = {
        "name": name,
        "operators": (
            OperatorSpec(name="prepare", uses="sample_first:prepare", knobs=(Knob(name="gain", choices=(1, 20)),)),
            OperatorSpec(
                name="left",
                uses="sample_second:Left",
                after=("prepare",),
                knobs=(Knob(name="quality", choices=("low", "high")),),
            ),
            OperatorSpec(name="right", uses="sample_second:right", after=("prepare",)),
            OperatorSpec(name="joined", uses="sample_second:joined", after=("left", "right")),
        ),
        "metric": MetricSpec(name="close", uses="sample_data:close"),
        "dataset": DatasetSpec(uses="sample_data:items", held_out=0.0),
    }
    return Pipeline(**{**values, **changes})


def first_keys(application: Application, count: int) -> list[str]:
    """Keys of the items that are measured first."""
    dataset = load_dataset(application.pipeline, [application.folder])
    return [dataset.items[index].key for index in dataset.order[:count]]


def accuracy_query(threshold: float, pipeline: str = "sample") -> Query:
    slos = Slos(accuracy=AccuracySlo(threshold=threshold))
    return Query(name=f"at-least-{threshold}", pipeline=pipeline, source="here", rate_per_s=1.0, slos=slos)


@dataclass
class Application:
    """The sample in a folder of its own."""

    folder: Path
    pipeline: Pipeline = field(default_factory=sample_pipeline)
    queries: tuple[Query, ...] = ()

    @property
    def store(self) -> Path:
        return self.folder / "profiles.sqlite"

    @property
    def specification(self) -> Specification:
        return Specification(
            pipelines={self.pipeline.name: self.pipeline},
            infrastructure=None,
            queries=self.queries,
            module_paths=(self.folder,),
        )

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        return tuple(configurations(self.pipeline))

    def configuration(self, gain: int, quality: str) -> Configuration:
        wanted = {"gain": gain}, {"quality": quality}
        return next(
            c for c in self.configurations if (c["prepare"].as_dict(), c["left"].as_dict()) == wanted
        )  # fmt: skip

    def write(self, module: str, source: str) -> None:
        """Write a module; the next one who resolves it gets it as it is now."""
        (self.folder / f"{module}.py").write_text(source, encoding="utf-8")
        self.forget()

    def edit(self, module: str, old: str, new: str) -> None:
        before = (self.folder / f"{module}.py").read_text(encoding="utf-8")
        assert old in before
        self.write(module, before.replace(old, new))

    def score_alike(self) -> None:
        """Score the items alone: whatever times are measured, nobody is surely as accurate as another before the end.

        Without a query all configurations are then measured on all items.
        """
        self.edit("sample_data", "max(0.0, 1.0 - abs(answer[1] - truth))", "1.0 - int(answer[0][1:]) / 100")

    def forget(self) -> None:
        for name in SOURCES:
            sys.modules.pop(name, None)

    def addresses(self) -> MeasurementKeys:
        return MeasurementKeys(self.pipeline, pipeline_code(self.pipeline, [self.folder]))

    def runner(self, session: OperatorSession | None = None) -> LocalRunner:
        return LocalRunner(self.addresses(), [self.folder], session=session)

    def items(self, count: int = 24) -> Sequence[Any]:
        found: Sequence[Any] = resolve("sample_data:items", [self.folder])(count)
        return found

    def calls(self) -> Counter[str]:
        """How often each operator was called, warm-up calls included: `left-low i03` -> times."""
        log = self.folder / "calls.log"
        return Counter(log.read_text(encoding="utf-8").splitlines()) if log.exists() else Counter()

    def calls_of(self, operator: str) -> Counter[str]:
        """Item -> calls of one operator."""
        found: Counter[str] = Counter()
        for line, times in self.calls().items():
            name, _, item = line.partition(" ")
            if name == operator:
                found[item] += times
        return found

    def clear_calls(self) -> None:
        (self.folder / "calls.log").unlink(missing_ok=True)
