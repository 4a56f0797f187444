"""The front door: a specification with its profile store, engine and plans."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from circinus.api.defaults import DEFAULT_PLAN, DeploymentMode
from circinus.api.profiling_workspace import Sources
from circinus.api.progress import ProgressFactory, no_progress
from circinus.api.quantities import AnyPath, Duration, choice, count, factor, price, seconds
from circinus.api.reporting_workspace import file_of
from circinus.api.sizing_workspace import SizingWorkspace

if TYPE_CHECKING:
    from circinus.api.control import ControlOptions, PlanController
    from circinus.api.deployment import DeployedPlan
    from circinus.api.plan_context import LoadedPlan
    from circinus.api.plans import AdmissionResult, Explanation, FrontierReport, Plan
    from circinus.api.reports import SimulationReport
    from circinus.control.state_store import Event
    from circinus.simulation.simulate import Progress
    from circinus.specification import Query


class Workspace(SizingWorkspace):
    """A specification with its profile store, engine and plans; one method for each verb of the command line.

    Args:
        specification: folder or YAML files, or a specification made in Python.
        store: profile store; by default `.circinus/profiles.sqlite` beside the specification.
        seed: seed of the order in which items are measured.
        engine: `local` for processes of this machine, `ray` for a Ray cluster.
        run_dir: run directory of the local engine.
        address: address of the Ray cluster, as `ray.init` takes it.
        http: address (host, port) for HTTP requests, of the local engine or of every node of a cluster; False: none.
        http_tokens: file with lines `TENANT TOKEN` or `* TOKEN`, of which each HTTP request needs one.

    Example:
        >>> import circinus as c
        >>> workspace = c.Workspace(".")  # a folder of YAML files
        >>> plan = workspace.plan(output="plan.json")
        >>> plan["archive"].chosen.plan.pipeline
        'mend'
    """

    def plan(
        self,
        *,
        output: AnyPath | None = None,
        budget: Duration | None = None,
        incumbent: Plan | None = None,
        churn_price_usd_per_h: float = 0.0,
        max_changes: int | None = None,
        time_limit: Duration | None = None,
        max_plans: int | None = None,
        sources: Sources | None = None,
        corrections: bool = True,
        progress: ProgressFactory = no_progress,
    ) -> Plan:
        """Choose configuration, placement and allocation for all queries together.

        Args:
            output: plan file to write; by default none is written.
            budget: time for profiling all pipelines in use first; by default nothing is measured.
            incumbent: running plan, which changes only where something is gained.
            churn_price_usd_per_h: minimum saving that justifies changing a running query's plan.
            max_changes: maximum number of running queries whose plan may change; by default any number.
            time_limit: time for all matchings together; by default 20 s, and 0.1 s for each query beyond 40, at most
                60 s.
            max_plans: maximum number of plans on each query's frontier, among which the matching chooses first; by
                default 60.
            sources: pipeline -> measurement backend, where it is not this machine.
            corrections: whether service times observed under traffic correct the profile.
            progress: observer for each pipeline that is measured.

        Raises:
            ProfileError: a pipeline was never profiled.
            PlanningError: the plan file cannot be written, or the problem is malformed.
            KeyboardInterrupt: profiling was interrupted; what was measured is stored.

        Example:
            >>> first = workspace.plan()
            >>> second = workspace.plan(incumbent=first, max_changes=0)
            >>> second.changes.changed
            ()
        """
        from circinus.api.planning_service import make_plan, pipelines_in_use, planning_warnings
        from circinus.api.plans import Plan
        from circinus.matching import Incumbent, PlanDiff

        churn_usd_per_h = price(churn_price_usd_per_h, "churn_price_usd_per_h")
        max_changes = None if max_changes is None else count(max_changes, "max_changes")
        measured = None
        if budget is not None:
            names = pipelines_in_use(self.specification)
            measured = self.profile(names, budget=budget, sources=sources, progress=progress)
            if measured.interrupted:
                raise KeyboardInterrupt
        matching = None if incumbent is None else file_of(incumbent, "incumbent").matching
        running = None
        if matching is not None:
            running = Incumbent.of(matching, change_usd_per_h=churn_usd_per_h, max_changes=max_changes)
        path = None if output is None else Path(output)
        result = make_plan(
            self._code,
            path or self._folder / DEFAULT_PLAN,
            self.store,
            seed=self.seed,
            running=running,
            time_limit_s=None if time_limit is None else seconds(time_limit, "time_limit"),
            max_plans=None if max_plans is None else count(max_plans, "max_plans", minimum=1),
            sources=sources,
            corrected=corrections,
        )
        plan = Plan(
            result.plan_set,
            path,
            tuple(sorted(planning_warnings(result, self.specification))),
            None if matching is None else PlanDiff.between(matching, result.plan_set.matching),
            None if incumbent is None else incumbent.path,
            {} if measured is None else measured.profiles,
            self.specification.metric_names,
        )
        if path is not None:
            plan.save(path)
        return plan

    def load_plan(self, path: AnyPath = DEFAULT_PLAN, *, check_fresh: bool = True) -> Plan:
        """Read a plan file of this specification.

        Raises:
            PlanningError: the file does not exist, or it is no plan file of this version.
            StalePlanError: the served queries, their pipelines, the infrastructure or the code has changed since.

        Example:
            >>> len(workspace.load_plan("plan.json"))
            2
        """
        from circinus.api.plans import Plan
        from circinus.matching import require_fresh

        plan = Plan.load(Path(path))
        if check_fresh:
            require_fresh(plan.file, self.specification)
        return Plan.of(self._opened(plan, compares_code=check_fresh))

    def frontier(self, query: str, plan: Plan | None = None) -> FrontierReport:
        """Return the plans of one query that no other plan beats in cost and in the resources of each pool.

        Args:
            query: name of a query of the specification.
            plan: plan whose choice the column `chosen` marks and whose corrections apply, instead of the current ones.

        Raises:
            ProfileError: the query's pipeline was never profiled.

        Example:
            >>> frontier = workspace.frontier("archive", plan)
            >>> all(row["accuracy"] >= 0.75 for row in frontier.rows())
            True
            >>> sum(row["chosen"] for row in frontier.rows())
            1
        """
        from circinus.api.planning_service import query_frontier
        from circinus.api.plans import FrontierReport

        chosen = self._query(query)
        corrections = None if plan is None else file_of(plan).corrections
        frontier = query_frontier(self._code, chosen, self.store, seed=self.seed, corrections=corrections)
        return FrontierReport(frontier, plan, self.specification.pipelines[chosen.pipeline].metric.name)

    def admit(
        self, query: str, plan: Plan, *, output: AnyPath | None = None, sources: Sources | None = None
    ) -> AdmissionResult:
        """Decide on the admission of one more query to a running plan, whose other queries keep their plans.

        Args:
            query: query of the specification that the plan does not serve.
            plan: running plan.
            output: plan file to write with the decision; by default none is written.
            sources: pipeline -> measurement backend, where it is not this machine.

        Raises:
            PlanningError: the specification has no such query.
            StalePlanError: the specification or the code has changed in more than queries without a plan.

        Example:
            >>> from dataclasses import replace
            >>> first = replace(workspace.specification, queries=workspace.specification.queries[:1])
            >>> running = c.Workspace(first, store=workspace.store).plan()
            >>> result = workspace.admit("archive", running)
            >>> result.admitted, sorted(result.plan)
            (True, ['archive', 'typing-aid'])
        """
        from circinus.api.planning_service import admit
        from circinus.matching import require_fresh

        added, path = self._query(query), None if output is None else Path(output)
        require_fresh(file_of(plan), self._code)
        return admit(self._opened(plan), self.specification, added, plan, output=path, sources=sources or {})

    def explain(self, plan: Plan, queries: Collection[str] | None = None) -> Explanation:
        """Return the reason of each decision, the alternatives, and changes that would serve a rejected query.

        Args:
            plan: plan of this workspace.
            queries: names of queries; by default all of the plan, but changes are only searched for three of them.

        Raises:
            PlanningError: the plan has no decision on such a query.

        Example:
            >>> explanation = workspace.explain(plan)
            >>> [row["query"] for row in explanation.rows() if row["served"]]
            ['typing-aid', 'archive']
        """
        from circinus.api.plans import Explanation

        queries = [queries] if isinstance(queries, str) else queries
        opened = self._opened(plan)
        plan = replace(plan, file=opened.plan_set)
        decided = [*plan, *plan.rejected]
        for name in set(queries or ()).difference(decided):
            raise opened.missing_query(name)
        explained = {name: self._query(name) for name in (decided if queries is None else queries)}
        if plan.rejected.keys().isdisjoint(explained):
            return Explanation(plan, explained, self.specification, queries is None)
        from circinus.api.planning_service import advise_rejected

        advised = advise_rejected(opened, queries)
        plan, searched = replace(plan, file=advised.file), (advised.measured_since, advised.unsearched, advised.reason)
        return Explanation(plan, explained, self.specification, queries is None, *searched)

    def simulate(
        self,
        plan: Plan,
        *,
        load_factor: float = 1.0,
        duration: Duration | None = None,
        warm_up: Duration | None = None,
        seed: int = 0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> SimulationReport:
        """Run a plan request by request in simulated time, through queues, batches and links.

        Args:
            plan: plan of this workspace.
            load_factor: factor on the rate of each query.
            duration: simulated time, in seconds or as `"10min"`; by default an hour, or less where that would have
                more than three million executions of operators and links.
            warm_up: simulated time before it, without figures; by default a tenth of the duration.
            seed: seed of arrivals and items.
            on_progress: callback during long simulations.

        Raises:
            PlanningError: the plan serves no query, a number has no meaning, or the simulation would be too large.

        Example:
            >>> workspace.simulate(plan, load_factor=0.5, duration="5min")["typing-aid"].satisfied
            True
        """
        from circinus.api.reports import SimulationReport

        return SimulationReport(
            self._opened(plan).simulate(
                load_factor=factor(load_factor, "load_factor"),
                duration_s=None if duration is None else seconds(duration, above_zero=True),
                warm_up_s=None if warm_up is None else seconds(warm_up, "warm_up"),
                seed=count(seed, "seed"),
                on_progress=on_progress,
            ),
            self.specification.metric_names,
        )

    def deploy(
        self,
        plan: Plan,
        *,
        mode: DeploymentMode = "real",
        items: int | None = None,
        progress: ProgressFactory = no_progress,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> DeployedPlan:
        """Deploy exactly this plan on the engine, and return the running deployment.

        Args:
            plan: plan of this workspace.
            mode: `real` runs operators on this infrastructure; `replay` returns recorded outputs after the recorded
                service times, so that a laptop can stand in for a cloud.
            items: maximum number of held-out items that are recorded for a replay; by default all.
            progress: observer of the recording.
            on_progress: callback with the numbers of ready and of planned replicas while they start (local engine
                only), about four times a second.

        Raises:
            StalePlanError: the specification or the code has changed since the plan was made.
            PlanningError: its code is not trusted (`Workspace.open_plan`).
            ServingError: the plan does not fit this machine, or a replica does not start.

        Example:
            >>> with workspace.deploy(plan, mode="replay") as deployment:
            ...     deployment.status().mode.value
            'replay'
        """
        from circinus.api.deployment import deploy

        opened = self._fresh(plan, mode)
        return deploy(opened, self.engine, mode, items=items, progress=progress, on_progress=on_progress)

    def attach(self, plan: Plan) -> DeployedPlan:
        """Return the deployment of a plan that the engine runs already.

        Example:
            >>> deployment = workspace.deploy(plan, mode="replay")
            >>> with workspace.attach(plan) as attached:
            ...     attached.status() == deployment.status()
            True
        """
        from circinus.api.deployment import DeployedPlan

        self._require_trust()
        return DeployedPlan(self._opened(plan), self.engine)

    def control(
        self,
        plan: Plan,
        options: ControlOptions | None = None,
        *,
        mode: DeploymentMode = "real",
        on_event: Callable[[Event], None] = lambda event: None,
        progress: ProgressFactory = no_progress,
    ) -> PlanController:
        """Return a controller that keeps the engine at a plan while rates, nodes, files and data change.

        Queries step down their ladders under bursts, and up again. Edits of the plan file or of its specification are
        adopted if the plan has a `path`: it was loaded, or made with `output`.

        Args:
            plan: plan of this workspace.
            options: options of the controller.
            mode: `real` or `replay`, as for `deploy`.
            on_event: callback with each event after it was stored.
            progress: observer of the recording for a replay.

        Raises:
            StalePlanError: the specification or the code has changed since the plan was made.
            PlanningError: the plan serves no query.
            ServingError: the plan can never run on this machine.

        Example:
            >>> controller = workspace.control(plan, c.ControlOptions(dwell="30s"), mode="replay")
            >>> controller.stop()  # before it starts; usually called from another thread
            >>> controller.run()
            >>> workspace.engine.close()
            True
        """
        from circinus.api.control import ControlOptions, control_plan

        return control_plan(
            self._fresh(plan, mode),
            self.engine,
            options or ControlOptions(),
            mode,
            on_event=on_event,
            progress=progress,
            trust=self._trust,
        )

    def render_kubernetes(
        self, plan: Plan, *, image: str, name: str = "circinus", namespace: str = "default", ray_version: str = ""
    ) -> list[dict[str, Any]]:
        """Return the RayService that runs a plan on Kubernetes with KubeRay, and the NetworkPolicy of its pods.

        Args:
            plan: plan of this workspace.
            image: container image with Circinus, Ray and the operators' code.
            name: name of the RayService.
            namespace: namespace of Kubernetes.
            ray_version: version of Ray in the image.

        Raises:
            PlanningError: the plan serves no query.
            ServingError: a name is not valid on Kubernetes.

        Example:
            >>> [each["kind"] for each in workspace.render_kubernetes(plan, image="shop/operators:1")]
            ['RayService', 'NetworkPolicy']
        """
        from circinus.serving import Mode
        from circinus.serving.ray.kuberay_manifest import Manifest, manifests

        opened = self._opened(plan)
        opened.require_served_query()
        tokens = self.engine.required_tokens()
        return manifests(opened.desired_state(Mode.REAL), Manifest(image, name, namespace, ray_version, tokens))

    def _fresh(self, plan: Plan, mode: str) -> LoadedPlan:
        from circinus.matching import require_fresh

        store = self.store if choice(mode, "mode", get_args(DeploymentMode)) == "replay" else None
        require_fresh(file_of(plan), self._code, profile_store=store)
        return self._opened(plan)

    def _query(self, name: str) -> Query:
        from circinus.api.plan_context import unknown_query

        queries = {query.name: query for query in self.specification.queries}
        if name not in queries:
            raise unknown_query(name, queries, self.specification)
        return queries[name]
