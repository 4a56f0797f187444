"""Tables and lines of the engine status and of controller events."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from circinus.reporting.tables import TwoLines, make_table
from circinus.reporting.wrapping import printable
from circinus.specification import replica_keys
from circinus.specification.formatting import format_duration, format_share

if TYPE_CHECKING:
    from circinus.control.state_store import Event
    from circinus.matching import SizedDeployment
    from circinus.serving import EngineStatus
    from circinus.serving.engine import PartStatus


def event_line(event: Event, *, would: bool = False, dated: bool = False) -> str:
    """Return `14:03:05 step archive from rung 0 to 1: overloaded: ...`, in local time.

    Args:
        event: the event.
        would: whether the event is the decision of a dry run.
        dated: whether to include the date.
    """
    timestamp = datetime.fromtimestamp(event.time_s).strftime("%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S")
    details = event.details
    change = f" from rung {details['from']} to {details['to']}" if "from" in details and "to" in details else ""
    text = f"{'would ' if would else ''}{event.kind} {event.subject}{change}: {event.reason}"
    return f"{timestamp} {printable(text)}"


def deployment_changes(running: EngineStatus | None, planned: Sequence[SizedDeployment], mode: str) -> str:
    """Return the numbers of deployments to start, resize, end and keep; if any are running, with a line for each.

    Args:
        running: status of the engine; None: none runs.
        planned: deployments of the plan.
        mode: mode to deploy in; an engine in another mode replaces all replicas.
    """
    statuses = () if running is None else running.deployments
    old = replica_keys(status.deployment for status in statuses)
    new = replica_keys((sized.deployment for sized in planned), old)
    before = {old[status.deployment]: (status.deployment.name, status.target_replicas) for status in statuses}
    after = {new[sized.deployment]: (sized.deployment.name, sized.replicas) for sized in planned}
    start = [f"start {name}: {count}" for key, (name, count) in after.items() if key not in before]
    common = [(*after[key], before[key][1]) for key in after if key in before]
    resize = [f"resize {name}: {previous} to {count}" for name, count, previous in common if previous != count]
    end = [f"end {name}: {count}" for key, (name, count) in before.items() if key not in after]
    kept = f"{len(common) - len(resize)} kept"
    if common and running is not None and running.mode != mode:
        kept += f", all replicas replaced (mode {running.mode} to {mode})"
    numbers = f"{len(start)} to start, {len(resize)} to resize, {len(end)} to end, {kept}"
    numbers = f"planned changes of deployments: {numbers}"
    return "\n  ".join([numbers, *([*start, *resize, *end] if before else [])])


def _part_line(query: str, number: int, part: PartStatus) -> str:
    """Return `captions, part 2: 30% of the requests planned, 30.2% of 500 measured`."""
    measured = "no request yet"
    if part.measured_share is not None:
        measured = f"{part.measured_share:.1%} measured ({part.requests} requests)"
    line = f"{query}, part {number + 1}: {format_share(part.share)} of the requests planned, {measured}"
    return line if part.available else f"{line}; no replica, its requests take the other parts"


def status_table(status: EngineStatus) -> RenderableType:
    """Return a table with a row for each deployment; without any message, there is no column for it."""
    figures = ("ready", "queue", "runs", "restarts", "start-up")
    remark = "message" if any(deployment.message for deployment in status.deployments) else ""
    table = make_table(f"Engine ({status.mode} mode)", ("deployment",), figures, remark, one_line=True)
    for deployment in status.deployments:
        ready = f"{deployment.replicas_ready}/{deployment.target_replicas}"
        table.add_row(
            TwoLines(deployment.deployment.name, "@"),
            ready if deployment.replicas_ready == deployment.target_replicas else f"[red]{ready}[/red]",
            str(deployment.queue_length),
            str(deployment.requests),
            str(deployment.restarts),
            "" if deployment.startup_s is None else format_duration(deployment.startup_s),
            *([escape(deployment.message)] if remark else []),
        )
    lines = [f"queries: {', '.join(status.routes) or 'none'}"]
    lines += [
        _part_line(split.query, number, part) for split in status.splits for number, part in enumerate(split.parts)
    ]
    if status.http:
        lines.append(f"requests: POST {status.http}/SITE/QUERY, or circinus request QUERY")
    if status.output:
        folder = Path(status.output)
        with suppress(ValueError):
            folder = folder.relative_to(Path.cwd())
        lines.append(f"operators' output: {folder}")
    return Group(table, Text("\n".join(lines)))
