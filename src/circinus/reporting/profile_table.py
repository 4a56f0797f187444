"""What is known of a pipeline, how sure, and what it cost."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from circinus.profiling import FailedConfiguration, PipelineProfile
from circinus.spec.spoken import bounded, duration, score, size


def profile_table(profile: PipelineProfile, direction: str) -> RenderableType:
    """A row for each configuration, best first.

    Args:
        profile: what is known.
        direction: of the metric: `maximize` or `minimize`.
    """
    sign = -1.0 if direction == "maximize" else 1.0
    table = Table(title=f"Profile of {profile.pipeline}", title_justify="left")
    table.add_column("configuration", overflow="fold")
    for column in ("items", "accuracy (bounds)", "mean time", "memory", "settled"):
        table.add_column(column, justify="right")
    unsettled = set(profile.unsettled)
    for measured in sorted(profile.configurations, key=lambda c: sign * c.accuracy.value):
        operators = measured.operators.values()
        table.add_row(
            escape(str(measured.configuration)),
            str(len(measured.items)),
            bounded(score, measured.accuracy),
            duration(sum(float(operator.service_s.mean()) for operator in operators)),
            size(sum(operator.peak_memory_bytes for operator in operators)),
            "no" if measured.configuration in unsettled else "yes",
        )
    return Group(table, *_remarks(profile))


def _remarks(profile: PipelineProfile) -> list[Text]:
    remarks = [
        Text(
            f"{duration(profile.profiled_s)} of processing on a data set of {profile.dataset_items} items, "
            f"{duration(profile.saved_s)} saved by shared beginnings; each bound may fail with probability "
            f"{profile.risk:g}"
        )
    ]
    if profile.unsettled:
        words = f"configurations not settled for some objective: {len(profile.unsettled)}"
        remarks.append(Text(f"{words}; profile longer to settle them"))
    if profile.unmeasured:
        remarks.append(Text(f"configurations not measured at all: {len(profile.unmeasured)}"))
    by_reason: dict[str, list[FailedConfiguration]] = {}
    for failed in profile.failed:
        by_reason.setdefault(failed.reason, []).append(failed)
    for reason, alike in by_reason.items():
        others = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        remarks.append(Text(f"left out: {alike[0].configuration}{others}: {reason}", style="red"))
    if profile.interrupted:
        remarks.append(Text("interrupted; the same command goes on from here", style="yellow"))
    return remarks
