"""Overload of a real engine over HTTP: refusals, goodput, memory, large bodies, and the way back to normal."""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.hardening.bounded_worker import PEAK_BYTES
from benchmarks.hardening.http_load import HttpClients, HttpOutcome, exchange, percentile_ms
from benchmarks.hardening.process_watch import memory_bytes, reset_peak
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure, records_table
from benchmarks.workloads.operators import with_pauses
from circinus.serving import DesiredState
from circinus.serving.local.client import start_daemon
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.serving.local.run_dir import RunDirectory
from circinus.testing.desired_states import StageSpec, chain, limited

LOADS = (1.0, 1.5, 3.0, 5.0)
_CLIENTS = 200
_PAUSE_S, _REPLICAS = 0.05, 2
_LIMIT_S = 1.0
"""Latency limit of the query, and deadline of each request."""
_QUERY, _SITE = "q", "home"
_CALIBRATION_S = 5
_BODY_BYTES = 50 * 2**20
_BODIES = 6
_BODIES_S = 60.0
_CALM, _CALM_S = 0.5, 10.0
"""Load after the overload, relative to the capacity, and its duration."""

_COLUMNS = (
    "load", "offered_per_s", "goodput_per_s", "refused", "refused_p99_ms", "answered_p99_ms", "peak_mib", "statuses",
)  # fmt: skip


@dataclass(frozen=True)
class LoadOutcome:
    """Outcomes of one load."""

    load: float
    duration_s: float
    requests: Sequence[HttpOutcome]
    peak_bytes: float

    @property
    def goodput_per_s(self) -> float:
        """Requests per second that were answered within their limit."""
        return sum(request.is_good(_LIMIT_S) for request in self.requests) / self.duration_s

    @property
    def refusals(self) -> list[HttpOutcome]:
        """Requests that were refused for overload."""
        return [request for request in self.requests if request.is_refused]

    @property
    def statuses(self) -> Counter[int]:
        """Status -> number of requests."""
        return Counter(request.status for request in self.requests)


def overload(duration_s: float, seed: int, console: Console) -> PartResult:
    """Send loads up to five times the measured capacity.

    Args:
        duration_s: seconds of each load.
        seed: of the arrivals.
        console: prints the table.
    """
    with (
        tempfile.TemporaryDirectory(prefix="circinus-overload-") as name,
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        return runner.run(_overloaded(Path(name) / "engine", duration_s, seed, console))


def _desired() -> DesiredState:
    step = StageSpec("slow", "pause", knobs=(("seconds", _PAUSE_S),), replicas=_REPLICAS)
    state = with_pauses(chain(_QUERY, step), [step], cpus=0.1)
    # As for a query with `late: drop`: what cannot be answered within the limit is not served.
    routes = tuple(limited(route, _LIMIT_S - _PAUSE_S, drops=True) for route in state.routes)
    return replace(state, routes=routes)


async def _overloaded(folder: Path, duration_s: float, seed: int, console: Console) -> PartResult:
    engine = start_daemon(folder)
    try:
        await engine.apply(_desired())
        await engine.listen_http(("127.0.0.1", 0))
        directory = RunDirectory(folder.absolute())
        address, process = directory.http_address(), directory.process()
        assert address is not None, "the engine listens"
        assert process is not None, "the engine runs"
        clients = HttpClients(address, f"/{_SITE}/{_QUERY}", _CLIENTS)
        capacity_per_s = await clients.capacity(_CALIBRATION_S, 2 * _REPLICAS)
        console.print(f"capacity {capacity_per_s:.1f}/s, {_REPLICAS / _PAUSE_S:g}/s without overhead", highlight=False)
        calm_clients = HttpClients(address, f"/{_SITE}/{_QUERY}", _CLIENTS)
        *loads, most = LOADS
        outcomes = [await _loaded(clients, process, load, capacity_per_s, duration_s, seed) for load in loads]
        outcome, normal_s = await asyncio.gather(
            _loaded(clients, process, most, capacity_per_s, duration_s, seed),
            _back_to_normal(calm_clients, capacity_per_s, duration_s, seed),
        )
        outcomes.append(outcome)
        bodies, body_peak = await _large_bodies(address, process)
        for each in (clients, calm_clients):
            await each.close()
    finally:
        await engine.close()
    return _result(outcomes, capacity_per_s, normal_s, bodies, body_peak, console)


async def _loaded(
    clients: HttpClients, process: int, load: float, capacity_per_s: float, duration_s: float, seed: int
) -> LoadOutcome:
    reset_peak(process)
    requests = await clients.load(load * capacity_per_s, duration_s, _LIMIT_S, seed)
    return LoadOutcome(load, duration_s, requests, memory_bytes(process))


async def _back_to_normal(clients: HttpClients, capacity_per_s: float, after_s: float, seed: int) -> float:
    """Wait for the end of the overload; return the time from then until other clients' requests are all in time.

    They come at half the capacity; infinity if some are late to the end.
    """
    await asyncio.sleep(after_s)
    requests = await clients.load(_CALM * capacity_per_s, _CALM_S, _LIMIT_S, seed)
    late_s = [request.scheduled_s for request in requests if not request.is_good(_LIMIT_S)]
    last_s = max(late_s, default=0.0)
    return last_s if last_s < _CALM_S - 1.0 else math.inf


async def _large_bodies(address: tuple[str, int], process: int) -> tuple[list[int], float]:
    """Send large bodies at once; return the statuses of the answers, and the maximum memory of the engine."""

    async def send() -> int:
        try:
            async with asyncio.timeout(_BODIES_S):
                reader, writer = await asyncio.open_connection(*address)
                headers = {"content-type": "application/octet-stream"}
                status, *_ = await exchange(reader, writer, f"/{_SITE}/{_QUERY}", bytes(_BODY_BYTES), headers)
                writer.close()
                return status
        except TimeoutError:
            return -1
        except (OSError, EOFError, ValueError):
            return 0

    reset_peak(process)
    statuses = await asyncio.gather(*(send() for _ in range(_BODIES)))
    return list(statuses), memory_bytes(process)


def _result(
    outcomes: Sequence[LoadOutcome],
    capacity_per_s: float,
    normal_s: float,
    bodies: Sequence[int],
    body_peak: float,
    console: Console,
) -> PartResult:
    at_capacity, *over = outcomes
    most = over[-1]
    refusals = [refusal for outcome in over for refusal in outcome.refusals]
    refused_s = [refusal.answer_s for refusal in refusals]
    told = [refusal.headers.get("retry-after", "").isdecimal() for refusal in refusals]
    silent = sum(outcome.statuses[-1] + outcome.statuses[0] for outcome in outcomes)
    rows = [_row(outcome, capacity_per_s) for outcome in outcomes]
    rows.append({"part": "overload", "bodies": list(bodies), "peak_mib": body_peak / 2**20, "normal_s": normal_s})
    console.print(records_table([{column: row[column] for column in _COLUMNS} for row in rows[:-1]], "overload"))
    memory = f"{body_peak / 2**20:.0f} MiB"
    console.print(
        f"{_BODIES} bodies of 50 MiB: statuses {sorted(bodies)}, {memory}; normal after {normal_s:.1f} s",
        highlight=False,
    )
    note = f"{len(refusals)} refusals at {', '.join(f'{load:g}x' for load in LOADS[1:])}, {_CLIENTS} clients"
    mib = most.peak_bytes / 2**20
    return [
        Figure("overload: refusals, p99", percentile_ms(refused_s, 99), 20.0, "lower", "ms", note),
        Figure("overload: refusals with Retry-After", sum(told) / len(told) if told else math.nan, 1.0, "higher",
               "of refusals", note),
        Figure("overload: goodput at 5x over that at capacity", most.goodput_per_s / at_capacity.goodput_per_s, 0.95,
               "higher", "times", f"{most.goodput_per_s:.1f}/s of {capacity_per_s:.1f}/s, limit {_LIMIT_S:g} s"),
        Figure("overload: requests without an answer or a reason", float(silent), 0.0, "lower", "requests",
               f"of {sum(len(outcome.requests) for outcome in outcomes)}"),
        Figure("overload: memory at 5x over that at capacity", most.peak_bytes / at_capacity.peak_bytes, 1.1, "lower",
               "times", f"{mib:.0f} MiB"),
        Figure("overload: memory with bodies of 50 MiB", body_peak / 2**20, PEAK_BYTES / 2**20, "lower", "MiB",
               f"{_BODIES} at once; statuses {', '.join(map(str, sorted(set(bodies))))}"),
        Figure("overload: large bodies without an answer", float(sum(status <= 0 for status in bodies)), 0.0, "lower",
               "requests", f"of {_BODIES}"),
        Figure("overload: back to normal", normal_s, 5.0, "lower", "s", f"all in time at {_CALM:g}x of the capacity"),
    ], rows  # fmt: skip


def _row(outcome: LoadOutcome, capacity_per_s: float) -> dict[str, Any]:
    return {
        "part": "overload",
        "load": outcome.load,
        "offered_per_s": len(outcome.requests) / outcome.duration_s,
        "capacity_per_s": capacity_per_s,
        "goodput_per_s": outcome.goodput_per_s,
        "refused": len(outcome.refusals),
        "refused_p50_ms": percentile_ms([refusal.answer_s for refusal in outcome.refusals], 50),
        "refused_p99_ms": percentile_ms([refusal.answer_s for refusal in outcome.refusals], 99),
        "answered_p99_ms": percentile_ms([r.lag_s + r.answer_s for r in outcome.requests if r.status == 200], 99),
        "waited_for_a_client_p99_ms": percentile_ms([request.lag_s for request in outcome.requests], 99),
        "peak_mib": outcome.peak_bytes / 2**20,
        "statuses": {str(status): count for status, count in sorted(outcome.statuses.items())},
    }
