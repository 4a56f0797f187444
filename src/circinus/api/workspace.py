"""The front door: a specification with its profile store, engine and plans."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from circinus.api.engine_options import EngineKind, EngineOptions
from circinus.api.progress import ProgressFactory, no_progress

if TYPE_CHECKING:
    from circinus.api.deployment import DeployedPlan
    from circinus.api.plan_context import LoadedPlan
    from circinus.api.results import (
        AdmissionResult,
        Explanation,
        FrontierReport,
        Plan,
        ProfileReport,
        SimulationReport,
        ValidationReport,
    )
    from circinus.profiling import MeasurementBackend
    from circinus.specification import Query, Specification

Paths = str | os.PathLike[str]
Duration = float | str  # seconds, or a text such as "2min"

_log = logging.getLogger(__name__)
logging.getLogger("circinus").addHandler(logging.NullHandler())


class Workspace:
    """A specification with its profile store, engine and plans; one method for each verb of the command line.

    Args:
        specification: folder or YAML files, or a specification made in Python.
        store: profile store; by default `.circinus/profiles.sqlite` beside the specification.
        seed: seed of the order in which items are measured.
        engine: `local` for processes of this machine, `ray` for a Ray cluster.
        run_dir: run directory of the local engine.
        address: address of the Ray cluster, as `ray.init` takes it.

    Example:
        >>> import circinus as c
        >>> workspace = c.Workspace(getfixture("shop"))
        >>> workspace.validate().rows()[0]["pipeline"]
        'reader'
    """

    def __init__(
        self,
        specification: Specification | Paths | Sequence[Paths] = ".",
        *,
        store: Paths | None = None,
        seed: int = 0,
        engine: EngineKind = "local",
        run_dir: Paths | None = None,
        address: str = "auto",
    ) -> None:
        from circinus.serving.local import DEFAULT_RUN_FOLDER
        from circinus.specification.specification import Specification

        self._paths: list[Path] = []
        self._specification: Specification | None = None
        if isinstance(specification, Specification):
            self._specification = specification
        elif isinstance(specification, str | os.PathLike):
            self._paths = [Path(specification)]
        else:
            self._paths = [Path(path) for path in specification]
        first = self._paths[0] if self._paths else Path()
        folder = first if first.is_dir() else first.parent
        self.store = folder / ".circinus" / "profiles.sqlite" if store is None else Path(store)
        self.seed = seed
        self.engine = EngineOptions(engine, Path(run_dir) if run_dir is not None else DEFAULT_RUN_FOLDER, address)

    @property
    def specification(self) -> Specification:
        """The specification; files are read at the first use.

        Raises:
            SpecError: files are missing or faulty; carries all problems.
        """
        if self._specification is None:
            from circinus.specification.loader import load_specification

            self._specification = load_specification(self._paths)
        return self._specification

    def validate(self, *, check_operators: bool = True) -> ValidationReport:
        """Check the specification and, by default, import and check the operators, metrics and data sets.

        Raises:
            SpecError: carries all problems, with file and line where there are any.
        """
        from circinus.api.results import ValidationReport
        from circinus.errors import SpecError
        from circinus.operators.validation import check_operators as problems_of

        problems = problems_of(self.specification) if check_operators else ()
        if problems:
            raise SpecError(problems)
        return ValidationReport(self.specification)

    def profile(
        self,
        pipelines: Collection[str] | None = None,
        *,
        budget: Duration | None = None,
        exhaustive: bool = False,
        sources: Mapping[str, MeasurementBackend] | None = None,
        progress: ProgressFactory = no_progress,
    ) -> ProfileReport:
        """Measure the configurations that could lower the cost of a query, until every SLO is decided.

        An interrupted call is resumed by the next one.

        Args:
            pipelines: names of pipelines; by default all.
            budget: time for each pipeline, in seconds or as `"2min"`; by default until every SLO is decided.
            exhaustive: whether to measure every configuration on every item.
            sources: pipeline -> measurement backend, where it is not this machine.
            progress: observer for each pipeline.

        Raises:
            ProfileError: the store cannot be used, or a pipeline does not exist.
            OperatorError: the code of an operator is not found.
        """
        from circinus.api.quantities import seconds
        from circinus.api.results import ProfileReport
        from circinus.planning.sampler import make_sampler
        from circinus.profiling import profile_pipeline

        profiles = {}
        for name in self._pipelines(pipelines):
            _log.info("profile pipeline %s into %s", name, self.store)
            with progress(name) as observer:
                profiles[name] = profile_pipeline(
                    self.specification,
                    name,
                    self.store,
                    budget_s=None if budget is None else seconds(budget),
                    seed=self.seed,
                    observer=observer,
                    source=(sources or {}).get(name),
                    explorer=make_sampler(self.specification, name),
                    exhaustive=exhaustive,
                )
            if profiles[name].interrupted:
                break
        return ProfileReport(profiles, self.specification)

    def profile_report(
        self,
        pipelines: Collection[str] | None = None,
        *,
        sources: Mapping[str, MeasurementBackend] | None = None,
    ) -> ProfileReport:
        """Return the profiles in the store, with a verdict for each configuration, and measure nothing.

        Raises:
            ProfileError: a pipeline was never profiled, or the store cannot be read.
        """
        from circinus.api.results import ProfileReport
        from circinus.planning.sampler import make_sampler
        from circinus.profiling import load_profile

        profiles = {
            name: load_profile(
                self.specification,
                name,
                self.store,
                seed=self.seed,
                source=(sources or {}).get(name),
                judged=True,
                explorer=make_sampler(self.specification, name),
            )
            for name in self._pipelines(pipelines)
        }
        return ProfileReport(profiles, self.specification)

    def record_trace(self, path: Paths, pipeline: str | None = None) -> Path:
        """Write the measurements of one pipeline to a trace file, to plan elsewhere, and return its path.

        Raises:
            ProfileError: the pipeline was never profiled, or it is not named and there are several.
        """
        from circinus.errors import ProfileError
        from circinus.profiling import export_trace, save_trace

        names = self._pipelines(None if pipeline is None else [pipeline])
        if len(names) != 1:
            raise ProfileError(
                f"a trace is of one pipeline, and the specification has {', '.join(names)}",
                code="trace.several_pipelines",
                hint="Name one.",
            )
        save_trace(export_trace(self.specification, names[0], self.store, seed=self.seed), Path(path))
        return Path(path)

    def plan(
        self,
        *,
        output: Paths | None = None,
        incumbent: Plan | None = None,
        churn_price_usd_per_h: float = 0.0,
        max_changes: int | None = None,
        time_limit: Duration | None = None,
        sources: Mapping[str, MeasurementBackend] | None = None,
        use_corrections: bool = True,
    ) -> Plan:
        """Choose configuration, placement and allocation for all queries together.

        Args:
            output: plan file to write; by default none is written.
            incumbent: running plan, which changes only where something is gained.
            churn_price_usd_per_h: minimum saving that justifies changing a running query's plan.
            max_changes: maximum number of running queries whose plan may change; by default any number.
            time_limit: time for the matching; by default 5 s, and 0.1 s for each query beyond 40.
            sources: pipeline -> measurement backend, where it is not this machine.
            use_corrections: whether service times observed under traffic correct the profile.

        Raises:
            ProfileError: a pipeline was never profiled.
            PlanningError: the plan file cannot be written, or the problem is malformed.
        """
        from circinus.api.planning_service import make_plan
        from circinus.api.quantities import seconds
        from circinus.api.ray_profiling import machine_warning
        from circinus.api.results import Plan
        from circinus.matching import Incumbent, PlanDiff, save_plan_set

        running = None
        if incumbent is not None:
            running = Incumbent.of(incumbent.matching, change_usd_per_h=churn_price_usd_per_h, most_changes=max_changes)
        path = None if output is None else Path(output)
        result = make_plan(
            self.specification,
            path or self._default_plan_file(),
            self.store,
            seed=self.seed,
            running=running,
            time_limit_s=None if time_limit is None else seconds(time_limit),
            sources=sources,
            corrected=use_corrections,
        )
        if path is not None:
            save_plan_set(result.plan_set, path)
        served, queries = len(result.plan_set.matching.assignments), len(self.specification.queries)
        _log.info("planned %d of %d queries in %.2f s", served, queries, result.plan_set.planning_s)
        warnings = {
            f"pipeline {name}: {reason}"
            for name, profile in result.profiles.items()
            if (reason := machine_warning(profile, self.specification)) is not None
        }
        warnings |= {f"passed over: {document}" for document in self.specification.skipped_documents}
        changes = None if running is None else PlanDiff.between(running.plans, result.plan_set.matching)
        return Plan(result.plan_set, path, tuple(sorted(warnings)), changes)

    def load_plan(self, path: Paths = "plan.json", *, check_fresh: bool = True) -> Plan:
        """Read a plan file of this specification.

        Raises:
            PlanningError: the file does not exist, or it is no plan file of this version.
            StalePlanError: the specification or the code has changed since.
        """
        from circinus.api.results import Plan
        from circinus.matching import require_fresh

        plan = Plan.load(Path(path))
        if check_fresh:
            require_fresh(plan.file, self.specification)
        return plan

    def frontier(self, query: str) -> FrontierReport:
        """Return the plans of one query that no other plan beats in cost and resources.

        Raises:
            ProfileError: the query's pipeline was never profiled.
        """
        from circinus.api.planning_service import load_profiles
        from circinus.api.results import FrontierReport
        from circinus.errors import PlanningError
        from circinus.planning import plan_query
        from circinus.specification import Network

        chosen = self._query(query)
        profiles = load_profiles(self.specification, [chosen.pipeline], self.store, seed=self.seed)
        infrastructure = self.specification.infrastructure
        if infrastructure is None:
            raise PlanningError("the specification has no infrastructure", code="specification.no_infrastructure")
        pipeline = self.specification.pipelines[chosen.pipeline]
        return FrontierReport(plan_query(chosen, pipeline, profiles[chosen.pipeline], Network(infrastructure)))

    def admit(self, query: str, into: Plan) -> AdmissionResult:
        """Decide on one more query beside a running plan, whose other queries keep their plans.

        Args:
            query: query of the specification that the plan does not serve.
            into: running plan.

        Raises:
            StalePlanError: the specification or the code has changed in more than this query.
        """
        from datetime import UTC, datetime
        from time import perf_counter

        from circinus.api.results import AdmissionResult, Plan
        from circinus.matching import Admission, add_query, admit_query, require_fresh

        wanted = self._query(query)
        require_fresh(into.file, self.specification, new_query=query)
        if query in into:
            return AdmissionResult(query, Admission(wanted, into[query]), into, 0.0, 0.0)
        profiles = self._opened(into).profiles({wanted.pipeline})
        started = perf_counter()
        admission, matching = admit_query(self.specification, profiles, into.matching, query)
        answered_s = perf_counter() - started
        if admission.assignment is None:
            return AdmissionResult(query, admission, into, 0.0, answered_s)
        file = add_query(
            into.file,
            self.specification,
            profiles[wanted.pipeline],
            matching,
            query,
            created_at=datetime.now(UTC),
            planning_s=answered_s,
        )
        added_usd_per_h = matching.cost_usd_per_h - into.cost_usd_per_h
        return AdmissionResult(query, admission, Plan(file, into.path), added_usd_per_h, answered_s)

    def explain(self, plan: Plan, queries: Collection[str] | None = None) -> Explanation:
        """Return the reason of each decision, the alternatives, and what would admit a rejected query.

        Args:
            plan: plan of this workspace.
            queries: names of queries; by default all of the plan.

        Raises:
            PlanningError: the plan has no such query.
        """
        from circinus.api.results import Explanation

        decided = {*plan, *plan.rejected}
        for name in queries or ():
            if name not in decided:
                raise self._unknown_query(name, decided)
        names = decided if queries is None else set(queries)
        return Explanation(plan, {q.name: q for q in self.specification.queries if q.name in names})

    def simulate(
        self,
        plan: Plan,
        *,
        load: float = 1.0,
        duration: Duration = "1h",
        warm_up: Duration | None = None,
        seed: int = 0,
    ) -> SimulationReport:
        """Run a plan request by request in simulated time, through queues, batches and links.

        Args:
            plan: plan of this workspace.
            load: factor on the rate of each query.
            duration: simulated time, in seconds or as `"10min"`.
            warm_up: simulated time before figures are taken; by default a tenth of the duration.
            seed: seed of arrivals and items.

        Raises:
            PlanningError: the plan serves no query, or a number has no meaning.
        """
        from circinus.api.quantities import seconds
        from circinus.api.results import SimulationReport
        from circinus.api.simulation import simulate_plan

        duration_s = seconds(duration)
        warm_up_s = duration_s / 10 if warm_up is None else seconds(warm_up)
        return SimulationReport(
            simulate_plan(self._opened(plan), load=load, duration_s=duration_s, warm_up_s=warm_up_s, seed=seed)
        )

    def deploy(
        self,
        plan: Plan,
        *,
        mode: Literal["real", "replay"] = "real",
        items: int = 16,
        progress: ProgressFactory = no_progress,
    ) -> DeployedPlan:
        """Deploy exactly this plan on the engine, and return the running deployment.

        Args:
            plan: plan of this workspace.
            mode: `real` runs operators on this infrastructure; `replay` returns recorded outputs after the recorded
                service times, so that a laptop can stand in for a cloud.
            items: number of held-out items that are recorded for a replay.
            progress: observer of the recording.

        Raises:
            StalePlanError: the specification or the code has changed since the plan was made.
            ServingError: the plan does not fit this machine, or a replica does not start.
        """
        from circinus.api.deployment import deploy
        from circinus.api.replay_recording import record_plans
        from circinus.matching import require_fresh
        from circinus.serving import Mode

        opened = self._opened(plan)
        replayed = Mode(mode) is Mode.REPLAY
        require_fresh(plan.file, self.specification, profile_store=self.store if replayed else None)
        opened.require_served_query()
        if replayed:
            plans = [assignment.chosen.plan for assignment in plan.matching.assignments]
            record_plans(self.specification, self.store, plans, items, seed=plan.file.seed, progress=progress)
        _log.info("deploy in mode %s on %s", mode, self.engine)
        return deploy(opened, self.engine, Mode(mode))

    def _opened(self, plan: Plan) -> LoadedPlan:
        from circinus.api.plan_context import LoadedPlan

        return LoadedPlan(plan.file, self.specification, self.store)

    def _default_plan_file(self) -> Path:
        first = self._paths[0] if self._paths else Path()
        return (first if first.is_dir() else first.parent) / "plan.json"

    def _pipelines(self, names: Collection[str] | None) -> list[str]:
        from circinus.errors import ProfileError

        present = list(self.specification.pipelines)
        for name in names or ():
            if name not in present:
                raise ProfileError(f"no pipeline {name}, expected one of {', '.join(present)}", code="pipeline.unknown")
        return present if names is None else list(names)

    def _query(self, name: str) -> Query:
        queries = {query.name: query for query in self.specification.queries}
        if name not in queries:
            raise self._unknown_query(name, queries)
        return queries[name]

    def _unknown_query(self, name: str, present: Collection[str]) -> Exception:
        from circinus.errors import PlanningError

        return PlanningError(f"no query {name}, expected one of {', '.join(sorted(present))}", code="query.unknown")
