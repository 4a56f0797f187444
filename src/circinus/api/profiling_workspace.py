"""The part of the workspace that reads and profiles a specification."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.api.defaults import DEFAULT_ADDRESS, EngineKind, HttpAddress
from circinus.api.engine_handle import EngineHandle
from circinus.api.progress import ProgressFactory, no_progress
from circinus.api.quantities import AnyPath, Duration, argument_error, count, seconds
from circinus.errors import ProfileError, SpecError
from circinus.operators.registry import refuse_during_import
from circinus.serving.local import DEFAULT_RUN_FOLDER
from circinus.specification.diagnostics import describe
from circinus.specification.loader import load_specification
from circinus.specification.specification import Specification

if TYPE_CHECKING:
    from circinus.api.reports import LearntServiceTimes, ProfileReport, ValidationReport
    from circinus.matching import PlanFile
    from circinus.profiling import Calibration, ImportedTime, MeasurementBackend

Sources = Mapping[str, "MeasurementBackend"]


def _paths(value: object) -> Sequence[AnyPath]:
    """Return a sequence of paths.

    Raises:
        CircinusError: it is something else, such as a pipeline.
    """
    if isinstance(value, Sequence) and all(isinstance(path, str | os.PathLike) for path in value):
        return value
    raise argument_error(
        "specification",
        describe(value),
        "a folder, YAML files or a specification",
        "Make one of objects with `Specification.of(pipelines, infrastructure, queries)`.",
    )


class ProfilingWorkspace:
    """Base of `Workspace`: a specification with its profile store and engine.

    Each method imports its use case when it is called: reading a specification loads no solver.
    """

    def __init__(
        self,
        specification: Specification | AnyPath | Sequence[AnyPath] = ".",
        *,
        store: AnyPath | None = None,
        seed: int = 0,
        engine: EngineKind = "local",
        run_dir: AnyPath | None = None,
        address: str = DEFAULT_ADDRESS,
        http: HttpAddress = None,
        http_tokens: AnyPath | None = None,
    ) -> None:
        self._paths: list[Path] = []
        self._specification: Specification | None = None
        if isinstance(specification, Specification):
            self._specification = specification
        elif isinstance(specification, str | os.PathLike):
            self._paths = [Path(specification)]
        else:
            self._paths = [Path(path) for path in _paths(specification)]
        self.store = self._folder / ".circinus" / "profiles.sqlite" if store is None else Path(store)
        self.seed = count(seed, "seed")
        run_folder = DEFAULT_RUN_FOLDER if run_dir is None else Path(run_dir)
        tokens = None if http_tokens is None else Path(http_tokens)
        self.engine = EngineHandle.of(engine, run_folder, address, http, tokens)
        """Handle of the engine: its status, its end, and the events of its controller."""
        self._trust = False
        self._plan_file: tuple[PlanFile, Path] | None = None
        """Plan file that names or contains the specification, and its path."""

    @property
    def specification(self) -> Specification:
        """The specification; files are read at the first use.

        Raises:
            SpecError: files are missing or faulty; carries all problems.
            OperatorError: the module that uses it is being imported for its operators (`script.not_guarded`).
        """
        refuse_during_import()
        if self._specification is None:
            self._specification = load_specification(self._paths)
        return self._specification

    @property
    def _code(self) -> Specification:
        """The specification, for methods that run its code.

        Raises:
            PlanningError: it comes from a plan file that is not trusted; see `Workspace.open_plan`.
        """
        self._require_trust()
        return self.specification

    def _require_trust(self) -> None:
        if self._plan_file is not None and not self._trust:
            from circinus.api.plan_context import require_trusted

            require_trusted(self._plan_file[0], self.specification, self._plan_file[1])

    def validate(self, *, operators: bool = True) -> ValidationReport:
        """Check the specification and, by default, import and check the operators, metrics and data sets.

        Raises:
            SpecError: carries all problems, with file and line where there are any.

        Example:
            >>> workspace.validate().to_dict()["queries"]
            ['typing-aid', 'archive']
        """
        from circinus.api.reports import ValidationReport
        from circinus.operators.validation import check_operators

        problems = check_operators(self._code) if operators else ()
        if problems:
            raise SpecError(problems)
        return ValidationReport(self.specification)

    def profile(
        self,
        pipelines: Collection[str] | None = None,
        *,
        budget: Duration | None = None,
        exhaustive: bool = False,
        declared_speeds: bool = False,
        sources: Sources | None = None,
        progress: ProgressFactory = no_progress,
        trust: bool = False,
        on_profile: Callable[[ProfileReport], None] | None = None,
    ) -> ProfileReport:
        """Measure the configurations that could lower the cost of a query, until every SLO is decided.

        An interrupted call is resumed by the next one. With a Ray cluster as engine, operators are measured on a node
        of each hardware class of the infrastructure.

        Args:
            pipelines: names of pipelines; by default all.
            budget: time for all pipelines together, in seconds or as `"2min"`; by default until every SLO is decided.
            exhaustive: whether to measure every configuration on every item.
            declared_speeds: whether hardware classes without a living node keep their declared speed (Ray only).
            sources: pipeline -> measurement backend, where it is not this machine; not with a Ray cluster as engine.
            progress: observer for each pipeline, which may be measured in several parts.
            trust: whether to read recorded outputs of any type in the store although this user did not record them:
                they are sealed as if the user had.
            on_profile: callback after the last part of each pipeline, with a report of that pipeline. With a callback,
                a pipeline whose configurations all failed is reported and raises no error.

        Raises:
            ProfileError: the store cannot be used, a pipeline does not exist, or there are sources with a Ray cluster.
            OperatorError: the code of an operator is not found, or every configuration of a pipeline failed.

        Example:
            >>> report = workspace.profile(["mend"])
            >>> len(report["mend"].configurations) >= 4
            True
        """
        begin_s = time.monotonic()  # imports take a tenth of a second of the budget
        from circinus.api.profiling_service import profile_pipelines, refuse_failed_pipelines
        from circinus.profiling.store.stored_outputs import trust_outputs

        if sources and not self.engine.on_this_machine:
            raise ProfileError(
                f"the nodes of {self.engine} are measured, found other sources",
                code="profile.sources_on_ray",
                hint="Leave out `sources`, or make the workspace with engine='local'.",
            )
        if trust:
            trust_outputs(self.store)
        report = profile_pipelines(
            self._code,
            self._pipelines(pipelines),
            self.store,
            self.engine,
            budget_s=None if budget is None else seconds(budget, "budget"),
            seed=self.seed,
            exhaustive=exhaustive,
            declared_speeds=declared_speeds,
            sources=sources or {},
            begin_s=begin_s,
            progress=progress,
            on_profile=on_profile or (lambda report: None),
        )
        if on_profile is None:
            refuse_failed_pipelines(report)
        return report

    def profile_report(
        self, pipelines: Collection[str] | None = None, *, sources: Sources | None = None
    ) -> ProfileReport:
        """Return the profiles in the store, with a verdict on each configuration, and measure nothing.

        Raises:
            ProfileError: a pipeline was never profiled, or the store cannot be read.

        Example:
            >>> len(workspace.profile_report()["mend"].configurations) >= 4
            True
        """
        from circinus.api.profiling_service import stored_profiles

        names = self._pipelines(pipelines)
        return stored_profiles(self._code, names, self.store, seed=self.seed, sources=sources or {})

    def import_times(self, table: AnyPath, *, sources: Sources | None = None) -> tuple[ImportedTime, ...]:
        """Store times of operators on hardware classes from a CSV file, which estimates use there, and return them.

        They replace earlier imported times of the same operators, knob values and classes. A faulty file changes
        nothing.

        Args:
            table: file with the columns `class`, `operator`, `batch_size`, `seconds`, and optionally `pipeline`,
                `cpus`, `origin` and names of knobs.
            sources: pipeline -> measurement backend, where it is not this machine; the table is then of these alone.

        Raises:
            ProfileError: the file is faulty: its first fault with line and column, such as `times.invalid_value`.
            OperatorError: the code of an operator is not found.

        Example:
            >>> with open("times.csv", "w") as file:
            ...     _ = file.write("class,operator,method,batch_size,seconds\\nmini-pc,correct,all,4,0.05")
            >>> [(time.knobs.as_dict()["effort"], time.batch_s) for time in workspace.import_times("times.csv")]
            [(1, 0.05), (2, 0.05)]
        """
        from circinus.api.profiling_service import import_times

        names = self._pipelines(list(sources) if sources else None)
        return import_times(self._code, names, self.store, Path(table), sources=sources or {})

    def calibrate(
        self, pipelines: Collection[str] | None = None, *, sources: Sources | None = None
    ) -> tuple[Calibration, ...]:
        """Measure this machine's relative speed against profiles that another machine put into the store.

        Raises:
            ProfileError: a pipeline was not profiled on another machine.

        Example:
            >>> workspace.calibrate()
            Traceback (most recent call last):
            circinus.errors.ProfileError: ...
        """
        from circinus.api.profiling_service import calibrate_pipelines

        names = self._pipelines(pipelines)
        return calibrate_pipelines(self._code, names, self.store, seed=self.seed, sources=sources or {})

    def learnt(
        self, *, pipeline: str | None = None, operator: str | None = None, hardware_class: str | None = None
    ) -> LearntServiceTimes:
        """Return the service times that load tests and controllers observed, and that correct later plans.

        Args:
            pipeline: name of the pipeline whose operators were observed; by default any.
            operator: name of the operator; by default any.
            hardware_class: hardware class of the pool; by default any.

        Raises:
            ProfileError: the store is missing.

        Example:
            >>> workspace.learnt(operator="correct").rows()
            []
        """
        from circinus.api.reports import LearntServiceTimes
        from circinus.profiling import load_observations

        return LearntServiceTimes(load_observations(self.store, **_named(pipeline, operator, hardware_class)))

    def forget(
        self,
        *,
        pipeline: str | None = None,
        operator: str | None = None,
        hardware_class: str | None = None,
        everything: bool = False,
    ) -> LearntServiceTimes:
        """Take back service times learnt from traffic, and return them. Plans keep their corrections until made again.

        Args:
            pipeline: take back those of its operators only; see `learnt`.
            operator: take back those of this operator only.
            hardware_class: take back those on this hardware class only.
            everything: whether to take back all; needed if nothing else is named.

        Raises:
            ProfileError: nothing is named, nothing that is named was observed, or the store cannot be written.

        Example:
            >>> workspace.forget(everything=True).observations
            ()
        """
        from circinus.api.reports import LearntServiceTimes
        from circinus.profiling import delete_observations

        selection = _named(pipeline, operator, hardware_class)
        if bool(selection) == everything:
            raise ProfileError(
                "the call names a pipeline, operator or hardware class, and everything"
                if everything
                else "no selection",
                code="forget.ambiguous" if everything else "forget.no_selection",
                hint="Name what to take back, or everything (--all).",
            )
        deleted = delete_observations(self.store, **selection)
        if selection and not deleted:
            named = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in selection.items())
            raise ProfileError(
                f"nothing was learnt of {named}",
                code="forget.no_match",
                location=str(self.store),
                hint="Run `circinus forget` to list what was learnt.",
            )
        return LearntServiceTimes(deleted)

    def imported(
        self, *, pipeline: str | None = None, operator: str | None = None, hardware_class: str | None = None
    ) -> tuple[ImportedTime, ...]:
        """Return the times of `import_times` in the store, of any version of the code.

        Args:
            pipeline: name of the pipeline; by default any.
            operator: name of the operator; by default any.
            hardware_class: hardware class; by default any.

        Raises:
            ProfileError: the store is missing.

        Example:
            >>> workspace.imported(hardware_class="mini-pc")
            ()
        """
        from circinus.profiling import load_imported_times

        return load_imported_times(self.store, **_named(pipeline, operator, hardware_class))

    def forget_imported(
        self, *, pipeline: str | None = None, operator: str | None = None, hardware_class: str | None = None
    ) -> tuple[ImportedTime, ...]:
        """Delete times of `import_times` from the store, and return them; see `imported`.

        Raises:
            ProfileError: the store is missing or cannot be written.

        Example:
            >>> workspace.forget_imported(hardware_class="mini-pc")
            ()
        """
        from circinus.profiling import delete_imported_times

        return delete_imported_times(self.store, **_named(pipeline, operator, hardware_class))

    def record_trace(self, path: AnyPath, pipeline: str | None = None) -> Path:
        """Write the measurements of one pipeline to a trace file, to plan elsewhere, and return its path.

        Raises:
            ProfileError: the pipeline was never profiled, or it is not named and there are several.

        Example:
            >>> workspace.record_trace("mend.trace").name
            'mend.trace'
        """
        from circinus.api.profiling_service import write_trace

        names = self._pipelines(None if pipeline is None else [pipeline])
        if len(names) != 1:
            raise ProfileError(
                f"a trace is of one pipeline, and the specification has {', '.join(names)}",
                code="trace.several_pipelines",
                hint="Name one.",
            )
        write_trace(self._code, names[0], self.store, Path(path), seed=self.seed)
        return Path(path)

    @property
    def _folder(self) -> Path:
        first = self._paths[0] if self._paths else Path()
        return first if first.is_dir() else first.parent

    def _pipelines(self, names: Collection[str] | None) -> list[str]:
        present = list(self.specification.pipelines)
        names = [names] if isinstance(names, str) else names
        for name in names or ():
            if name not in present:
                raise ProfileError(
                    f"no pipeline {name}, expected one of {', '.join(present) or '(none)'}", code="pipeline.unknown"
                )
        return present if names is None else list(names)


def _named(pipeline: str | None, operator: str | None, hardware_class: str | None) -> dict[str, str]:
    """Return the values that are given, by column of the store."""
    given = {"pipeline": pipeline, "operator": operator, "hardware_class": hardware_class}
    return {column: value for column, value in given.items() if value is not None}
