"""Drift under load, by noisy data or slower operators: time to detection, and goodput until plans are replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.workloads.drifting_till import (
    PIPELINE,
    DriftScene,
    circinus,
    requests_of,
    sent_items,
    slowed,
    truth_line,
)
from benchmarks.workloads.traffic import lost, within
from circinus.control.replanning.replanner import ReplanTrigger
from circinus.control.state_store import Event, EventKind
from circinus.operators import Item
from circinus.serving.loadtest.open_loop import Arrival, OpenLoop, RequestOutcome, poisson_arrivals
from circinus.serving.loadtest.scoring import measure_queries
from circinus.serving.local.client import LocalEngineClient, start_daemon
from circinus.serving.local.high_resolution_loop import new_event_loop

TRUTHS, ANSWERS, PLAIN = "truths arrive", "audited against another plan", "nobody looks"
"""Ways to run the plans."""
DATA, TIMES = "noisy data", "slower operators"
"""Kinds of drift."""
_SUBJECTS = {DATA: "accuracy of ", TIMES: f"{PIPELINE}/"}
"""Prefix of the subject of drift events, per kind of drift."""
SLOWER_TIMES = 1.6
_AUDITED = 0.1
"""Share of audited answers."""
_TRUTH_AFTER_S = 1.0
_STRAGGLERS_S = 30.0
_MIN_SPAN_S = 3.0
_SETTLED_S = 2.0
"""Seconds after new plans came into force in which requests in flight still count to the span before."""


@dataclass(frozen=True)
class DriftOptions:
    """Durations, repeats and seed."""

    before_s: float = 25.0
    after_data_s: float = 100.0
    after_times_s: float = 50.0
    repeats: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Change:
    """Drift that affects all ways concurrently."""

    what: str
    at_s: float
    """Seconds from the start of the traffic."""
    until_s: float
    """End of the traffic."""
    ways: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Watched:
    """Outcomes and events of one way."""

    way: str
    answers: Sequence[RequestOutcome]
    events: Sequence[Event]
    """Events with seconds since the start of the traffic."""


@dataclass(frozen=True)
class Noticed:
    """Detection of a change by a controller and its reaction, in seconds from the change; None: never."""

    noticed_s: float | None
    values: int | None
    """Number of audits or batches since the change."""
    in_force_s: float | None
    """Seconds until new plans were in force."""
    reason: str
    plans: Sequence[str]
    """Reasons of replans because of drift."""
    early: int
    """Number of drift events before the change."""


def noticed(events: Sequence[Event], change: Change) -> Noticed:
    """Return the detection of a change according to the events of a controller.

    Args:
        events: events with seconds since the start of the traffic.
        change: kind and time of the change.
    """
    drifted = [event for event in events if event.kind == EventKind.DRIFT]
    detected = [e for e in drifted if e.time_s >= change.at_s and e.subject.startswith(_SUBJECTS[change.what])]
    replans = [
        e
        for e in events
        if e.kind == EventKind.REPLAN and e.details.get("why") == ReplanTrigger.DRIFT and e.time_s >= change.at_s
    ]
    changing = [e for e in replans if e.details["changed"] or e.details["stopped"]]
    applied = [e.time_s for e in events if e.kind == EventKind.APPLIED and changing and e.time_s >= changing[0].time_s]
    return Noticed(
        noticed_s=detected[0].time_s - change.at_s if detected else None,
        values=int(detected[0].details["values"]) if detected else None,
        in_force_s=applied[0] - change.at_s if applied else None,
        reason=detected[0].reason if detected else "",
        plans=[event.reason for event in replans],
        early=sum(event.time_s < change.at_s for event in drifted),
    )


def spans(change: Change, in_force_s: float | None) -> dict[str, tuple[float, float]]:
    """Return the spans before the change, until new plans were in force, and after, in seconds of the traffic."""
    new_s = change.until_s if in_force_s is None else min(change.at_s + in_force_s + _SETTLED_S, change.until_s)
    named = {"before": (0.0, change.at_s), "between": (change.at_s, new_s), "after": (new_s, change.until_s)}
    return {name: span for name, span in named.items() if span[1] - span[0] >= _MIN_SPAN_S}


@dataclass
class _Deployment:
    """Engine and controller of one way."""

    way: str
    folder: Path
    engine: LocalEngineClient
    events: list[Event] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None
    reading: asyncio.Task[None] | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def truths(self) -> Path:
        return self.folder / "truths.jsonl"

    async def begin(self) -> None:
        """Start the way and wait until the plans are in force."""
        if self.way == PLAIN:
            await asyncio.to_thread(circinus, self.folder, "apply", "--run-dir", str(self.folder / "run"))
            return
        options = ["--json", "--audit-rate", f"{_AUDITED:.0%}", "--run-dir", str(self.folder / "run")]
        options += ["--ground-truth", str(self.truths), "--ground-truth-timeout", "1h"] if self.way == TRUTHS else []
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "circinus", "serve", "plan.json", *options),
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
        )
        self.reading = asyncio.create_task(self._read(self.process))
        await asyncio.wait_for(self.ready.wait(), 60.0)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            event = json.loads(line)
            event.pop("would", None)
            self.events.append(Event(**event))
            if self.events[-1].kind == EventKind.APPLIED:
                self.ready.set()

    async def end(self) -> None:
        """Stop controller and engine."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            await self.process.wait()
        if self.reading is not None:
            await self.reading
        await self.engine.close()


async def _run(scene: DriftScene, change: Change, seed: int) -> tuple[list[Watched], list[Item]]:
    """Run all ways concurrently on the same requests, so that other load of this machine affects them alike."""
    arrivals = poisson_arrivals(scene.rates_per_s, change.until_s, seed)
    items = sent_items(arrivals, change.at_s if change.what == DATA else math.inf, seed)
    requests = requests_of(arrivals, items)
    served: list[_Deployment] = []
    tasks: list[asyncio.Task[None]] = []
    try:
        for number, way in enumerate(change.ways):
            folder = scene.copied(f"{change.what}-{seed}-{number}".replace(" ", "-"))
            served.append(_Deployment(way, folder, start_daemon(folder / "run")))
        await asyncio.gather(*(way.begin() for way in served))
        start_s = time.time()
        tasks += [asyncio.create_task(_write_truths(w.truths, arrivals, items)) for w in served if w.way == TRUTHS]
        if change.what == TIMES:
            tasks.append(asyncio.create_task(_slow([way.folder for way in served], change.at_s)))
        answers = await asyncio.gather(
            *(OpenLoop(way.engine, _STRAGGLERS_S).send(arrivals, requests) for way in served)
        )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*(way.end() for way in served), *tasks, return_exceptions=True)
    results = [
        Watched(way.way, outcomes, [replace(event, time_s=event.time_s - start_s) for event in way.events])
        for way, outcomes in zip(served, answers, strict=True)
    ]
    return results, items


async def _write_truths(path: Path, arrivals: Sequence[Arrival], items: Sequence[Item]) -> None:
    """Write the ground truth of requests, some time after them."""
    start_s, written, due_s = time.monotonic(), 0, np.array([arrival.time_s for arrival in arrivals])
    while written < len(items):
        due = int(np.searchsorted(due_s, time.monotonic() - start_s - _TRUTH_AFTER_S))
        with path.open("a", encoding="utf-8") as file:
            file.writelines(truth_line(item) for item in items[written:due])
        written = due
        await asyncio.sleep(0.5)


async def _slow(folders: Sequence[Path], at_s: float) -> None:
    await asyncio.sleep(at_s)
    for folder in folders:
        slowed(folder, SLOWER_TIMES)


def drifts(scene: DriftScene, options: DriftOptions, console: Console) -> PartResult:
    """Run noisy data with and without ground truth, then slower operators, each also without a controller."""
    ends = {DATA: options.before_s + options.after_data_s, TIMES: options.before_s + options.after_times_s}
    changes = [
        Change(DATA, options.before_s, ends[DATA], (TRUTHS, ANSWERS, PLAIN)),
        Change(TIMES, options.before_s, ends[TIMES], (ANSWERS, PLAIN)),
    ]
    rows: list[dict[str, Any]] = []
    for change in changes:
        for seed in range(options.seed, options.seed + options.repeats):
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                results, items = runner.run(_run(scene, change, seed))
            more = [_row(scene, change, way, results[-1], items) for way in results if way.way != PLAIN]
            for row in more:
                console.print(_summary(row), highlight=False)
            rows += [{**row, "seed": seed} for row in more]
    return drift_figures(rows), rows


def detection_row(watched: Watched, change: Change) -> dict[str, Any]:
    """Return the row of one way: detection, reaction and events."""
    return {
        "part": "drift",
        "what": change.what,
        "way": watched.way,
        **vars(noticed(watched.events, change)),
        "watched_s": change.until_s - change.at_s,
        "failed": lost(watched.answers),  # also in spans that are too short for a goodput
        "events": [f"{event.time_s:.1f} s {event.kind} {event.subject}: {event.reason}" for event in watched.events],
    }


def _row(scene: DriftScene, change: Change, watched: Watched, plain: Watched, items: Sequence[Item]) -> dict[str, Any]:
    """Return the row of one way, with the goodput of the way without a controller in the same spans."""
    row = detection_row(watched, change)
    for name, way in (("", watched), (" unwatched", plain)):
        for span, (start_s, end_s) in spans(change, row["in_force_s"]).items():
            row[span + name] = _goodput(scene, way.answers, items, start_s, end_s)
    return row


def _goodput(
    scene: DriftScene, answers: Sequence[RequestOutcome], items: Sequence[Item], start_s: float, end_s: float
) -> dict[str, Any]:
    """Return the share of the weight of queries with all SLOs met, by the true scores of their answers."""
    counted = within(answers, start_s, end_s)
    measured = measure_queries(
        scene.opened.specification,
        scene.opened.plan_set.matching,
        counted,
        {PIPELINE: items},
        end_s - start_s,
        start_s,
    )
    weight = sum(query.weight for query in measured)
    return {
        "seconds": end_s - start_s,
        "goodput": sum(query.weight for query in measured if query.satisfied) / weight,
        "requests": len(counted),
        "failed": lost(counted),
        "queries": {
            query.query: {
                "held": dict(query.slos_met or {}),
                "accuracy": query.score,
                "p95_s": None if query.latency_s is None else query.latency_s.p95_s,
            }
            for query in measured
        },
    }


def _summary(row: Mapping[str, Any]) -> str:
    shares = [
        f"{name} {row[name]['goodput']:.0%} (unwatched {row[name + ' unwatched']['goodput']:.0%})"
        for name in ("before", "between", "after")
        if name in row
    ]
    when = "never noticed" if row["noticed_s"] is None else f"noticed after {row['noticed_s']:.1f} s"
    force = "no other plans" if row["in_force_s"] is None else f"other plans after {row['in_force_s']:.1f} s"
    return f"{row['what']}, {row['way']}: {when}, {force}; goodput {', '.join(shares)}"


def drift_figures(rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Return medians over repeats; a change that was never detected counts with the watched time."""
    figures: list[Figure] = []
    for what, way in dict.fromkeys((row["what"], row["way"]) for row in rows):
        repeats = [row for row in rows if (row["what"], row["way"]) == (what, way)]
        name = f"{what}, {way}" if what == DATA else f"{what} ({SLOWER_TIMES:g}x)"
        values = [row["values"] for row in repeats if row["values"] is not None]
        unit = "audits of the query" if what == DATA else "batches"
        note = f"{np.median(values):.0f} {unit}" if values else "not noticed"
        figures.append(Figure(f"{name}: until noticed", _median(repeats, "noticed_s"), None, "lower", "s", note))
        figures.append(
            Figure(f"{name}: until other plans are in force", _median(repeats, "in_force_s"), None, "lower", "s")
        )
        for span in ("before", "between", "after"):
            for suffix in ("", " unwatched"):
                shares = [row[span + suffix]["goodput"] for row in repeats if span in row]
                if shares:
                    where = {"before": "before", "between": "until other plans", "after": "after"}[span]
                    figure = f"{name}: goodput {where}{', where nobody looks' if suffix else ''}"
                    figures.append(Figure(figure, float(np.median(shares)), None, "higher", "of queries"))
    early, failed = sum(row["early"] for row in rows), sum(row["failed"] for row in rows)
    figures += [
        Figure("said to have moved before anything did", float(early), 0.0, "lower", "alarms"),
        Figure("requests that failed while plans followed what moved", float(failed), 0.0, "lower", "requests",
               "over the whole time, with a controller"),
    ]  # fmt: skip
    return figures


def _median(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(np.median([row["watched_s"] if row[key] is None else row[key] for row in rows]))
