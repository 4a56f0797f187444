"""What is known of a pipeline, how sure, and what it cost."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from circinus.profiling import PipelineProfile
from circinus.reporting.quantities import bounded_score, duration, size


def profile_table(profile: PipelineProfile) -> RenderableType:
    """A row for each configuration, most accurate first."""
    table = Table(title=f"Profile of {profile.pipeline}", title_justify="left")
    table.add_column("configuration", overflow="fold")
    for column in ("items", "accuracy (bounds)", "mean time", "memory", "settled"):
        table.add_column(column, justify="right")
    unsettled = set(profile.unsettled)
    for measured in sorted(profile.configurations, key=lambda c: -c.accuracy.value):
        operators = measured.operators.values()
        table.add_row(
            str(measured.configuration),
            str(len(measured.items)),
            bounded_score(measured.accuracy),
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
        count = len(profile.unsettled)
        remarks.append(
            Text(f"{count} configurations are not settled for some objective; profile longer to settle them")
        )
    if profile.unmeasured:
        remarks.append(Text(f"{len(profile.unmeasured)} configurations were not measured at all"))
    remarks += [Text(f"left out: {failed.configuration}: {failed.reason}", style="red") for failed in profile.failed]
    if profile.interrupted:
        remarks.append(Text("interrupted; the same command goes on from here", style="yellow"))
    return remarks
