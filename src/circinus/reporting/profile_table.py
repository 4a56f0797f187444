"""What is known of a pipeline, how sure, and what it cost."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from circinus.profiling import ConfigurationVerdict, FailedConfiguration, OperatorProfile, PipelineProfile, Verdict
from circinus.reporting.class_table import speed_table
from circinus.spec import KnobValues
from circinus.spec.spoken import format_bytes, format_duration, format_interval, format_range, format_score


def profile_table(profile: PipelineProfile, direction: str, warning: str | None = None) -> RenderableType:
    """A row for each configuration, best first; then one for each operator with its knobs, and what it all cost.

    Args:
        profile: what is known.
        direction: of the metric: `maximize` or `minimize`.
        warning: why it is not to be believed as it stands; None: nothing speaks against it.
    """
    sign = -1.0 if direction == "maximize" else 1.0
    table = Table(title=f"Profile of {profile.pipeline}", title_justify="left")
    table.add_column("configuration", overflow="fold")
    for column in ("items", "accuracy (bounds)", "mean time", "memory"):
        table.add_column(column, justify="right")
    table.add_column("verdict", overflow="fold")
    for measured in sorted(profile.configurations, key=lambda c: sign * c.accuracy.value):
        operators = measured.operators.values()
        table.add_row(
            escape(str(measured.configuration)),
            str(len(measured.items)),
            format_interval(format_score, measured.accuracy),
            format_duration(sum(float(operator.service_s.mean()) for operator in operators)),
            format_bytes(sum(operator.peak_memory_bytes for operator in operators)),
            _verdict(profile.verdicts.get(measured.configuration)),
        )
    tables = [_operators(profile)] if profile.configurations else []
    if any(operator.speeds.measured for found in profile.configurations for operator in found.operators.values()):
        tables.append(speed_table(profile))
    return Group(table, *tables, *_remarks(profile, warning))


def _operators(profile: PipelineProfile) -> Table:
    """A row for each operator with its own knob values, over all prefixes that it was measured under."""
    table = Table(title="Operators", title_justify="left")
    for column in ("operator", "knobs"):
        table.add_column(column, overflow="fold")
    for column in ("mean time", "output", "load", "start-up", "memory", "allocations measured"):
        table.add_column(column, justify="right")
    alike: dict[tuple[str, KnobValues], list[OperatorProfile]] = {}
    for name in profile.configurations[0].operators:
        for measured in profile.configurations:
            alike.setdefault((name, measured.configuration[name]), []).append(measured.operators[name])
    for (name, knobs), found in alike.items():
        service_s = [float(operator.service_s.mean()) for operator in found]
        table.add_row(
            escape(name),
            escape(str(knobs)),
            format_range(format_duration, min(service_s), max(service_s)),
            format_bytes(sum(float(operator.output_bytes.mean()) for operator in found) / len(found)),
            format_duration(found[0].load_s),
            "" if found[0].startup_s is None else format_duration(found[0].startup_s),
            format_bytes(found[0].peak_memory_bytes),
            f"{len(found[0].measured_allocations)} of {len(found[0].batch_ratio)}",
        )
    return table


def search_summary(profile: PipelineProfile) -> str:
    """How many configurations were measured, and what that says of the others."""
    all_of_them = len(profile.configurations) + len(profile.failed) + profile.unmeasured
    why = f"; {profile.certificate}" if profile.certificate is not None else ""
    return f"{len(profile.configurations):,} of {all_of_them:,} configurations were measured{why}"


def _verdict(judgement: ConfigurationVerdict | None) -> str:
    return "" if judgement is None else escape(f"{judgement.verdict}: {judgement.reason}")


def _remarks(profile: PipelineProfile, warning: str | None) -> list[Text]:
    held_out = f", {profile.held_out_items} of them held out" if profile.held_out_items else ""
    remarks = [
        Text(
            f"{format_duration(profile.profiled_s)} of processing, {format_duration(profile.saved_s)} saved by shared beginnings; "
            f"with probability {1 - profile.risk:g} all that is said of accuracy holds"
        ),
        Text(f"data set: {profile.dataset_items} items{held_out}; version {profile.dataset_fingerprint[:12]}"),
        Text(f"measured on: {profile.machine or 'not recorded'}"),
    ]
    if warning is not None:
        remarks.append(Text(f"warning: {warning}", style="yellow"))
    if profile.undecided:
        words = f"undecided configurations: {len(profile.undecided)}"
        remarks.append(Text(f"{words}; profile longer to decide them"))
    elif profile.configurations and profile.all_decided:
        believed = any(found.verdict is Verdict.UNLIKELY for found in profile.verdicts.values())
        words = "nothing is worth measuring further for these queries"
        why = ": what is not decided most likely makes no plan cheaper" if believed else ": everything is decided"
        remarks.append(Text(words + why))
    if profile.unmeasured:
        remarks.append(Text(search_summary(profile)))
    if profile.certificate is not None and profile.certificate.prior:
        remarks.append(Text(f"known from elsewhere: {profile.certificate.prior}"))
    by_reason: dict[str, list[FailedConfiguration]] = {}
    for failed in profile.failed:
        by_reason.setdefault(failed.reason, []).append(failed)
    for reason, alike in by_reason.items():
        others = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        remarks.append(Text(f"left out: {alike[0].configuration}{others}: {reason}", style="red"))
    if profile.interrupted:
        remarks.append(Text("interrupted; the same command goes on from here", style="yellow"))
    return remarks
