"""`circinus load`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli.options import (
    DEFAULT_ADDRESS,
    DEFAULT_PLAN,
    Address,
    Json,
    Kind,
    PlanFile,
    RunDir,
    duration_option,
    factor_option,
    positive_duration_option,
)
from circinus.serving.local import DEFAULT_RUN_FOLDER

if TYPE_CHECKING:
    from circinus.api.engine_options import EngineOptions
    from circinus.api.plan_context import LoadedPlan
    from circinus.serving.loadtest.load_report import LoadReport
    from circinus.serving.loadtest.load_test import LoadSpec
    from circinus.serving.loadtest.service_time_learning import PredictionsAtRun


def loadtest(
    plan_file: PlanFile = DEFAULT_PLAN,
    duration: Annotated[
        float,
        typer.Option(parser=positive_duration_option, metavar="DURATION", help="Measured time.", show_default="30s"),
    ] = 30.0,
    warm_up: Annotated[
        float,
        typer.Option(
            parser=duration_option, metavar="DURATION", help="Time before it that is not measured.", show_default="5s"
        ),
    ] = 5.0,
    rate_factor: Annotated[
        float,
        typer.Option(parser=factor_option, metavar="TIMES", help="Multiplies every query's rate.", show_default="1x"),
    ] = 1.0,
    trace: Annotated[
        Path | None, typer.Option(help="CSV file (time_s,query) with arrivals, instead of those that queries ask for.")
    ] = None,
    items: Annotated[int, typer.Option(min=1, help="How many items that planning did not see are sent.")] = 16,
    seed: Annotated[int, typer.Option(help="Of arrivals and of the order of items.")] = 0,
    keep_observations: Annotated[
        bool,
        typer.Option(
            " /--no-learning",
            show_default=False,
            help="Do not keep for later plans what was observed of service times.",
        ),
    ] = True,
    controlled: Annotated[
        bool,
        typer.Option(
            "--controlled", help="The engine is kept by circinus serve: queries may be on other rungs of their ladders."
        ),
    ] = False,
    engine: Kind = "local",
    address: Address = DEFAULT_ADDRESS,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    json: Json = False,
) -> None:
    """Send open-loop traffic to the applied plans and measure every request against every objective."""
    from circinus.api.engine_options import EngineOptions
    from circinus.api.plan_context import load_plan
    from circinus.cli.output import console, print_json
    from circinus.reporting.load_table import load_table, service_time_text
    from circinus.serving.loadtest.load_test import LoadSpec

    opened = load_plan(plan_file)
    traffic = LoadSpec(duration_s=duration, warm_up_s=warm_up, rate_factor=rate_factor, seed=seed, trace=trace)
    chosen = EngineOptions(engine, run_dir, address)
    report, seen, sent = _run(opened, plan_file, items, traffic, chosen, controlled=controlled)
    why_not_kept = _keep(opened, report) if keep_observations else "--no-learning"
    if json:
        further = {"items_sent": sent, "items_sent_seen_by_planning": seen, "observations_kept": not why_not_kept}
        print_json("load", {**vars(report), **further})
        return
    console().print(load_table(report))
    if report.learning is not None:
        console().print(service_time_text(report.learning, why_not_kept))
    if seen:
        console().print(
            f"{seen} of the {sent} different items sent were measured when planning, too: their accuracy is no test of "
            "the plan's promise",
            style="yellow",
        )


def _run(
    opened: LoadedPlan,
    plan_file: Path,
    items: int,
    traffic: LoadSpec,
    chosen_engine: EngineOptions,
    *,
    controlled: bool,
) -> tuple[LoadReport, int, int]:
    """The report, and how many of how many different items planning had seen."""
    import asyncio

    from circinus.api.engine_options import current_controller
    from circinus.api.traffic_items import count_profiled_items, select_traffic_items
    from circinus.cli.output import progress_console
    from circinus.errors import ServingError
    from circinus.reporting.progress import load_bar
    from circinus.serving.loadtest.load_test import run_load_test
    from circinus.serving.local.high_resolution_loop import new_event_loop
    from circinus.serving.state_serialization import state_fingerprint

    specification, matching, seed = opened.specification, opened.plan_set.matching, opened.plan_set.seed

    async def run() -> tuple[LoadReport, int, int]:
        async with chosen_engine.connected() as engine:
            status = await engine.status()
            if not controlled and status.state != state_fingerprint(opened.desired_state(status.mode)):
                holder = await asyncio.to_thread(current_controller, chosen_engine)
                raise ServingError(
                    f"{plan_file}: {chosen_engine} is controlled by {holder} (circinus serve), which may change plans "
                    f"under the load; add --controlled"
                    if holder
                    else f"{plan_file}: {chosen_engine} runs another plan, or this one as circinus serve kept it "
                    "(audited, replicas ready); apply this one first: "
                    f"circinus apply {plan_file} --mode {status.mode}{chosen_engine.options}"
                )
            chosen = select_traffic_items(specification, matching, opened.store, items, status.mode, seed)
            seen = count_profiled_items(specification, matching, opened.store, chosen, seed)
            expected = None if controlled else _expected(opened)  # other plans take other times
            with load_bar(progress_console()) as bar:
                report = await run_load_test(engine, specification, matching, chosen, traffic, bar, expected)
            return report, seen, sum(len(sent) for sent in chosen.values())

    with asyncio.Runner(loop_factory=new_event_loop) as runner:  # sends on time, to a fraction of a millisecond
        return runner.run(run())


def _keep(opened: LoadedPlan, report: LoadReport) -> str:
    """Put what was observed into the profile store; gives why it could not be: what was measured must not be lost."""
    from circinus.errors import ProfileError
    from circinus.profiling import save_observations

    if report.learning is None or not report.learning.observations:
        return ""
    try:
        save_observations(opened.store, report.learning.observations)
    except ProfileError as error:
        return str(error)
    return ""


def _expected(opened: LoadedPlan) -> PredictionsAtRun:
    """What the profile, as it is now and without corrections, says of the operators in use."""
    from datetime import UTC, datetime

    from circinus.errors import OperatorError, ProfileError
    from circinus.profiling import load_predicted_service_times
    from circinus.serving.loadtest.service_time_learning import PredictionsAtRun

    plan_set, services = opened.plan_set, {}
    plans = [assignment.chosen.plan for assignment in plan_set.matching.assignments]
    for name in sorted({plan.pipeline for plan in plans}):
        used = [plan.configuration for plan in plans if plan.pipeline == name]
        try:
            services[name] = load_predicted_service_times(
                opened.specification, name, opened.store, used, seed=plan_set.seed
            )
        except (OperatorError, ProfileError):  # then nothing is learnt, and that is said
            continue
    return PredictionsAtRun(services, datetime.now(UTC))
