"""The part of the workspace that reads plan files, and reports a plan as a page."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from circinus.api.defaults import DEFAULT_ADDRESS, DEFAULT_PLAN
from circinus.api.profiling_workspace import ProfilingWorkspace
from circinus.api.quantities import AnyPath, Duration, argument_error, seconds
from circinus.specification.diagnostics import describe

if TYPE_CHECKING:
    from circinus.api.defaults import EngineKind, HttpAddress
    from circinus.api.plan_context import LoadedPlan
    from circinus.api.plans import Plan
    from circinus.api.reports import LoadReport
    from circinus.matching import PlanFile


class ReportingWorkspace(ProfilingWorkspace):
    """Base of `Workspace` with what reads plan files, and the report of a plan."""

    @classmethod
    def open_plan(
        cls,
        path: AnyPath = DEFAULT_PLAN,
        *,
        check_fresh: bool = True,
        needs_store: bool = False,
        engine: EngineKind = "local",
        run_dir: AnyPath | None = None,
        address: str = DEFAULT_ADDRESS,
        http: HttpAddress = None,
        http_tokens: AnyPath | None = None,
        trust: bool | None = None,
    ) -> tuple[Self, Plan]:
        """Return the workspace that a plan file was made in, and the plan; reading them imports no code.

        Args:
            path: plan file; it names the files of its specification, or contains it, and names its profile store.
            check_fresh: whether the plan must agree with the specification and the code.
            needs_store: whether the profile store must exist, as for a simulation or a replay.
            engine, run_dir, address, http, http_tokens: as for `Workspace`.
            trust: whether code of a plan may run that this user did not make, from another folder than the plan's own.
                False refuses such a plan at once; by default the methods that run its code do.
                True also seals the values in its profile store, which may then be read and replayed by this user.

        Raises:
            PlanningError: the file does not exist, is no plan file of this version, or is not trusted.
            StalePlanError: the specification or the code has changed since.

        Example:
            >>> workspace, plan = c.Workspace.open_plan("plan.json")
            >>> list(workspace.specification.pipelines)
            ['mend']
        """
        from circinus.api.plan_context import LoadedPlan, read_plan
        from circinus.api.plans import Plan

        plan_set, specification, store = read_plan(Path(path), check_fresh=check_fresh, needs_store=needs_store)
        opened = partial(cls, specification, store=store, seed=plan_set.seed)
        workspace = opened(engine=engine, run_dir=run_dir, address=address, http=http, http_tokens=http_tokens)
        workspace._trust, workspace._plan_file = bool(trust), (plan_set, Path(path))
        if trust is False:
            workspace._require_trust()
        elif trust:
            from circinus.profiling.store.stored_outputs import trust_outputs

            trust_outputs(store)
        return workspace, Plan.of(LoadedPlan.of(plan_set, specification, store, Path(path), compares_code=check_fresh))

    def report(
        self,
        plan: Plan,
        output: AnyPath = "report.html",
        *,
        load: LoadReport | AnyPath | None = None,
        state_file: AnyPath | None = None,
        what_if: Duration = "20s",
        on_progress: Callable[[str], None] = lambda step: None,
    ) -> Path:
        """Write a plan as one HTML page that opens offline, and return its path.

        The code of the operators is not needed. A pipeline without a stored profile is shown with the reason.

        Args:
            plan: plan of this workspace.
            output: file to write.
            load: load test of the plan, or the file with what `circinus load --json` printed.
            state_file: state file of the controller; by default that of the engine.
            what_if: time for simulations of other loads and for plans with changes; 0: none are made.
            on_progress: callback with each step that takes time.

        Raises:
            StalePlanError: the specification has changed since the plan was made.
            MissingFileError: there is no such state file.
            PlanningError: Matplotlib is not installed, `load` is no load test, or the file cannot be written.

        Example:
            >>> workspace.report(plan, "plan.html", what_if=0).name
            'plan.html'
        """
        from circinus.api.plan_context import require_file
        from circinus.api.plan_report import write_report

        state = self.engine.state_file if state_file is None else Path(state_file)
        if state_file is not None:
            require_file(state, "the state file of a controller")
        opened, what_if_s = self._opened(plan, compares_code=False), seconds(what_if, "what_if")
        return write_report(opened, Path(output), load, state, what_if_s=what_if_s, on_progress=on_progress)

    def _opened(self, plan: Plan, *, compares_code: bool = True) -> LoadedPlan:
        from circinus.api.plan_context import LoadedPlan

        return LoadedPlan.of(file_of(plan), self.specification, self.store, plan.path, compares_code=compares_code)


def file_of(plan: Plan, name: str = "plan") -> PlanFile:
    """Return what a plan file has of a plan.

    Raises:
        CircinusError: it is no plan, such as the path of one.
    """
    from circinus.api.plans import Plan

    if not isinstance(plan, Plan):
        raise argument_error(name, describe(plan), "a plan", "Read a plan file with `load_plan`.")
    return plan.file
