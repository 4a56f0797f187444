"""Data grow noisy, or operators slow, while requests come: how soon that is noticed, and what is served meanwhile."""

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
from circinus.control.replanning.replanner import DRIFTED
from circinus.control.state_store import APPLIED, DRIFT, REPLAN, Event
from circinus.operators import Item
from circinus.serving.loadtest.open_loop import Arrival, OpenLoop, RequestOutcome, poisson_arrivals
from circinus.serving.loadtest.scoring import measure_queries
from circinus.serving.local.client import LocalEngineClient, start_daemon
from circinus.serving.local.high_resolution_loop import new_event_loop

TRUTHS, ANSWERS, PLAIN = "truths arrive", "audited against another plan", "nobody looks"
"""Ways to run the same plans."""
DATA, TIMES = "noisy data", "slower operators"
"""What changes."""
_SUBJECTS = {DATA: "accuracy of ", TIMES: f"{PIPELINE}/"}
"""How what moved is called then."""
SLOWER_TIMES = 1.6
_AUDITED = 0.1
"""Share of the answers."""
_TRUTH_AFTER_S = 1.0
_STRAGGLERS_S = 30.0
_LEAST_SPAN_S = 3.0
_SETTLED_S = 2.0
"""After other plans came into force, so that what was under way counts as of the time before."""


@dataclass(frozen=True)
class DriftOptions:
    """How long it is watched."""

    before_s: float = 25.0
    after_data_s: float = 100.0
    after_times_s: float = 50.0
    repeats: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Change:
    """What happens to all ways at once."""

    what: str
    at_s: float
    """From the begin of the traffic."""
    until_s: float
    """Its end."""
    ways: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Watched:
    """What one way did."""

    way: str
    answers: Sequence[RequestOutcome]
    events: Sequence[Event]
    """With seconds since the begin of the traffic."""


@dataclass(frozen=True)
class Noticed:
    """What a controller noticed of a change, and what it did; seconds from the change, None: never."""

    noticed_s: float | None
    values: int | None
    """Audits, or batches, that came since it moved."""
    in_force_s: float | None
    """Until other plans were."""
    reason: str
    plans: Sequence[str]
    """What was planned because of drift, in words."""
    early: int
    """Things that were said to have moved before anything did."""


def noticed(events: Sequence[Event], change: Change) -> Noticed:
    """Of what a controller said.

    Args:
        events: of it, with seconds since the begin of the traffic.
        change: what happened, and when.
    """
    moved = [event for event in events if event.kind == DRIFT]
    its = [one for one in moved if one.time_s >= change.at_s and one.subject.startswith(_SUBJECTS[change.what])]
    replans = [e for e in events if e.kind == REPLAN and e.details.get("why") == DRIFTED and e.time_s >= change.at_s]
    changing = [e for e in replans if e.details["changed"] or e.details["stopped"]]
    applied = [e.time_s for e in events if e.kind == APPLIED and changing and e.time_s >= changing[0].time_s]
    return Noticed(
        noticed_s=its[0].time_s - change.at_s if its else None,
        values=int(its[0].details["values"]) if its else None,
        in_force_s=applied[0] - change.at_s if applied else None,
        reason=its[0].reason if its else "",
        plans=[event.reason for event in replans],
        early=sum(one.time_s < change.at_s for one in moved),
    )


def spans(change: Change, in_force_s: float | None) -> dict[str, tuple[float, float]]:
    """Before the change, until other plans were in force, and after that, in seconds since the begin of the traffic."""
    new_s = change.until_s if in_force_s is None else min(change.at_s + in_force_s + _SETTLED_S, change.until_s)
    found = {"before": (0.0, change.at_s), "between": (change.at_s, new_s), "after": (new_s, change.until_s)}
    return {name: span for name, span in found.items() if span[1] - span[0] >= _LEAST_SPAN_S}


@dataclass
class _Served:
    """One way at work."""

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
        """Returns when the plans are in force."""
        if self.way == PLAIN:
            await asyncio.to_thread(circinus, self.folder, "apply", "--run-dir", str(self.folder / "run"))
            return
        options = ["--json", "--audit", f"{_AUDITED:.0%}", "--run-dir", str(self.folder / "run")]
        options += ["--truths", str(self.truths), "--truth-patience", "1h"] if self.way == TRUTHS else []
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
            told = json.loads(line)
            told.pop("would", None)
            self.events.append(Event(**told))
            if self.events[-1].kind == APPLIED:
                self.ready.set()

    async def end(self) -> None:
        """Everything of it."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            await self.process.wait()
        if self.reading is not None:
            await self.reading
        await self.engine.close()


async def _run(scene: DriftScene, change: Change, seed: int) -> tuple[list[Watched], list[Item]]:
    """All ways at the same time on the same requests, so that what else this machine does meets them alike."""
    arrivals = poisson_arrivals(scene.rates_per_s, change.until_s, seed)
    items = sent_items(arrivals, change.at_s if change.what == DATA else math.inf, seed)
    requests = requests_of(arrivals, items)
    served: list[_Served] = []
    beside: list[asyncio.Task[None]] = []
    try:
        for number, way in enumerate(change.ways):
            folder = scene.copied(f"{change.what}-{seed}-{number}".replace(" ", "-"))
            served.append(_Served(way, folder, start_daemon(folder / "run")))
        await asyncio.gather(*(one.begin() for one in served))
        began_s = time.time()
        beside += [asyncio.create_task(_tell(one.truths, arrivals, items)) for one in served if one.way == TRUTHS]
        if change.what == TIMES:
            beside.append(asyncio.create_task(_slow([one.folder for one in served], change.at_s)))
        answers = await asyncio.gather(
            *(OpenLoop(one.engine, _STRAGGLERS_S).send(arrivals, requests) for one in served)
        )
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*(one.end() for one in served), *beside, return_exceptions=True)
    found = [
        Watched(one.way, its, [replace(event, time_s=event.time_s - began_s) for event in one.events])
        for one, its in zip(served, answers, strict=True)
    ]
    return found, items


async def _tell(path: Path, arrivals: Sequence[Arrival], items: Sequence[Item]) -> None:
    """Truths, some time after the requests."""
    begin_s, told, due_s = time.monotonic(), 0, np.array([arrival.time_s for arrival in arrivals])
    while told < len(items):
        due = int(np.searchsorted(due_s, time.monotonic() - begin_s - _TRUTH_AFTER_S))
        with path.open("a", encoding="utf-8") as file:
            file.writelines(truth_line(item) for item in items[told:due])
        told = due
        await asyncio.sleep(0.5)


async def _slow(folders: Sequence[Path], at_s: float) -> None:
    await asyncio.sleep(at_s)
    for folder in folders:
        slowed(folder, SLOWER_TIMES)


def drifts(scene: DriftScene, options: DriftOptions, console: Console) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Noisy data with truths and without, then slower operators; beside what nobody looks after."""
    ends = {DATA: options.before_s + options.after_data_s, TIMES: options.before_s + options.after_times_s}
    changes = [
        Change(DATA, options.before_s, ends[DATA], (TRUTHS, ANSWERS, PLAIN)),
        Change(TIMES, options.before_s, ends[TIMES], (ANSWERS, PLAIN)),
    ]
    rows: list[dict[str, Any]] = []
    for change in changes:
        for seed in range(options.seed, options.seed + options.repeats):
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                found, items = runner.run(_run(scene, change, seed))
            more = [row for one in found if one.way != PLAIN for row in _rows(scene, change, one, found[-1], items)]
            for row in more:
                console.print(_in_words(row), highlight=False)
            rows += [{**row, "seed": seed} for row in more]
    return drift_figures(rows), rows


def told(watched: Watched, change: Change) -> dict[str, Any]:
    """For programs: what one way noticed and did."""
    return {
        "part": "drift",
        "what": change.what,
        "way": watched.way,
        **vars(noticed(watched.events, change)),
        "watched_s": change.until_s - change.at_s,
        "failed": lost(watched.answers),  # also in spans that are too short to tell a goodput of
        "events": [f"{event.time_s:.1f} s {event.kind} {event.subject}: {event.reason}" for event in watched.events],
    }


def _rows(
    scene: DriftScene, change: Change, watched: Watched, plain: Watched, items: Sequence[Item]
) -> list[dict[str, Any]]:
    """Of one way, with what came of the same requests in the same spans where nobody looked."""
    row = told(watched, change)
    for name, one in (("", watched), (" unwatched", plain)):
        for span, (begin_s, end_s) in spans(change, row["in_force_s"]).items():
            row[span + name] = _held(scene, one.answers, items, begin_s, end_s)
    return [row]


def _held(
    scene: DriftScene, answers: Sequence[RequestOutcome], items: Sequence[Item], begin_s: float, end_s: float
) -> dict[str, Any]:
    """Share of the weight of queries all of whose objectives held, by the true scores of their answers."""
    its = within(answers, begin_s, end_s)
    measured = measure_queries(
        scene.opened.specification,
        scene.opened.plan_set.matching,
        its,
        {PIPELINE: items},
        end_s - begin_s,
        begin_s,
    )
    weight = sum(query.weight for query in measured)
    return {
        "seconds": end_s - begin_s,
        "goodput": sum(query.weight for query in measured if query.satisfied) / weight,
        "requests": len(its),
        "failed": lost(its),
        "queries": {
            query.query: {
                "held": dict(query.slos_met or {}),
                "accuracy": query.score,
                "p95_s": None if query.latency_s is None else query.latency_s.p95_s,
            }
            for query in measured
        },
    }


def _in_words(row: Mapping[str, Any]) -> str:
    shares = [
        f"{name} {row[name]['goodput']:.0%} (unwatched {row[name + ' unwatched']['goodput']:.0%})"
        for name in ("before", "between", "after")
        if name in row
    ]
    when = "never noticed" if row["noticed_s"] is None else f"noticed after {row['noticed_s']:.1f} s"
    force = "no other plans" if row["in_force_s"] is None else f"other plans after {row['in_force_s']:.1f} s"
    return f"{row['what']}, {row['way']}: {when}, {force}; goodput {', '.join(shares)}"


def drift_figures(rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Medians over repeats; what was never noticed counts as long as it was watched."""
    figures: list[Figure] = []
    for what, way in dict.fromkeys((row["what"], row["way"]) for row in rows):
        its = [row for row in rows if (row["what"], row["way"]) == (what, way)]
        name = f"{what}, {way}" if what == DATA else f"{what} ({SLOWER_TIMES:g}x)"
        values = [row["values"] for row in its if row["values"] is not None]
        unit = "audits of the query" if what == DATA else "batches"
        note = f"{np.median(values):.0f} {unit}" if values else "not noticed"
        figures.append(Figure(f"{name}: until noticed", _median(its, "noticed_s"), None, "lower", "s", note))
        figures.append(
            Figure(f"{name}: until other plans are in force", _median(its, "in_force_s"), None, "lower", "s")
        )
        for span in ("before", "between", "after"):
            for suffix in ("", " unwatched"):
                shares = [row[span + suffix]["goodput"] for row in its if span in row]
                if shares:
                    where = {"before": "before", "between": "until other plans", "after": "after"}[span]
                    said = f"{name}: goodput {where}{', where nobody looks' if suffix else ''}"
                    figures.append(Figure(said, float(np.median(shares)), None, "higher", "of queries"))
    early, failed = sum(row["early"] for row in rows), sum(row["failed"] for row in rows)
    figures += [
        Figure("said to have moved before anything did", float(early), 0.0, "lower", "alarms"),
        Figure("requests that failed while plans followed what moved", float(failed), 0.0, "lower", "requests",
               "over the whole time, with a controller"),
    ]  # fmt: skip
    return figures


def _median(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(np.median([row["watched_s"] if row[key] is None else row[key] for row in rows]))
