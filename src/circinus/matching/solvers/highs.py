"""HiGHS interface: a linear relaxation that grows by cuts, and a mixed-integer program with a warm start."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.solvers.mir_cuts import CutRow


@dataclass(kw_only=True)
class LpModel:
    """Columns with bounds, and rows over them, collected as lists and passed on as arrays."""

    upper: list[float]
    """Upper bound of every column; lower bounds are 0."""
    continuous: list[int] = field(default_factory=list)
    """Columns that a MILP leaves continuous; all others are integers."""
    is_large: bool = False
    """Whether the program is too large to be solved, so that what improves its start matters most."""
    row_columns: list[IntArray] = field(default_factory=list)
    row_values: list[FloatArray] = field(default_factory=list)
    row_lower: list[float] = field(default_factory=list)
    row_upper: list[float] = field(default_factory=list)

    def add_row(self, columns: IntArray, values: FloatArray, lower: float, upper: float) -> None:
        """Add the row lower <= values @ columns <= upper."""
        self.row_columns.append(np.asarray(columns, dtype=np.int32))
        self.row_values.append(np.asarray(values, dtype=np.float64))
        self.row_lower.append(lower)
        self.row_upper.append(upper)

    @contextmanager
    def temporary_row(self, columns: IntArray, values: FloatArray, lower: float, upper: float) -> Iterator[None]:
        """Add a row for the duration of the context."""
        self.add_row(columns, values, lower, upper)
        try:
            yield
        finally:
            self.row_columns.pop()
            self.row_values.pop()
            self.row_lower.pop()
            self.row_upper.pop()


_FEASIBILITY_TOLERANCE = 1e-7
_FEASIBILITY_TOLERANCE_OF_SHARES = 1e-8
"""Tolerance where queries have continuous shares: replicas that these fill exactly must not be rounded up."""

_MAX_ITERATIONS = 100_000
"""Maximum number of simplex iterations of a linear program that grows by columns; it takes some thousands."""

_OBJECTIVE_TOLERANCE = 1e-6
"""Relative rounding tolerance between a reported and a recomputed objective."""

_SMALL_OPTIONS = (
    ("mip_allow_restart", False),
    ("mip_detect_symmetry", False),
    ("mip_heuristic_run_rins", False),
    ("mip_heuristic_run_rens", False),
    ("mip_heuristic_run_feasibility_jump", False),
    ("mip_pscost_minreliable", 2),
)
"""Measured on matchings of 12 queries: what these leave out costs more than it saves (together a factor of two to
five)."""
_LARGE_OPTIONS = (("mip_heuristic_effort", 0.3),)
"""Heuristics on neighbourhoods of the relaxation find most of what is gained on 60 queries and more."""

_FEASIBLE_POINT = 2
"""HiGHS's code for a feasible point."""

_PROBING_RULE = 1 << 15
"""Id of the presolve rule `Probing` in HiGHS 1.16; another id affects only the time."""


@dataclass(frozen=True, eq=False)
class LpSolution:
    """The solution of a linear relaxation."""

    bound: float
    """Lower bound on the objective of any solution."""
    values: FloatArray
    """(columns,)"""
    reduced_costs: FloatArray
    """(columns,) minimum increase of the objective when a column at 0 is raised by one."""
    row_duals: FloatArray
    """(rows,)"""


class SolveMilp(Protocol):
    """Solver of mixed-integer programs; see `solve_milp`."""

    def __call__(
        self,
        programme: LpModel,
        objective: FloatArray,
        start: FloatArray,
        *,
        time_limit_s: float,
        gap: float,
        seed: int,
    ) -> tuple[FloatArray | None, float]:
        """Return (values of the columns or None, a lower bound on the objective)."""
        ...


class LpRelaxation:
    """The linear relaxation of a program under an objective, solved again after rows were added."""

    def __init__(self, programme: LpModel, objective: FloatArray, seed: int) -> None:
        self._solver = _silent_solver(seed)
        self._solver.passModel(_model(programme, objective, integer=False))

    def solve(self, time_limit_s: float) -> LpSolution | None:
        """Return the optimum at a vertex, or None if time runs out or, due to rounding, the solver finds none."""
        self._solver.setOptionValue("time_limit", self._solver.getRunTime() + time_limit_s)
        return _optimum(self._solver)

    def add(self, row: CutRow) -> None:
        """Add a row."""
        self._solver.addRow(row.lower, np.inf, len(row.columns), row.columns.astype(np.int32), row.values)


class ColumnLp:
    """A linear program that is solved again after columns at least 0 were added; solved by the primal simplex."""

    def __init__(self, row_lower: FloatArray, row_upper: FloatArray, seed: int) -> None:
        """Begin with rows that have no columns."""
        import highspy

        self._solver = _silent_solver(seed)
        self._solver.setOptionValue("simplex_strategy", 4)  # primal
        self._solver.setOptionValue("simplex_iteration_limit", _MAX_ITERATIONS)
        model = highspy.HighsLp()
        model.num_row_ = len(row_lower)
        model.row_lower_, model.row_upper_ = (np.asarray(side, dtype=np.float64) for side in (row_lower, row_upper))
        model.a_matrix_.start_ = np.zeros(1, dtype=np.int32)
        self._solver.passModel(model)

    def add_columns(self, cost: FloatArray, start: IntArray, row: IntArray, value: FloatArray) -> None:
        """Add columns to be minimised; those of entry `start[j]` to before `start[j + 1]` are of column j."""
        zero, no_limit = np.zeros(len(cost)), np.full(len(cost), np.inf)
        self._solver.addCols(
            len(cost), cost, zero, no_limit, len(row), start.astype(np.int32), row.astype(np.int32), value
        )

    def set_basis(self, columns: BoolArray, rows: BoolArray) -> None:
        """Begin with these columns and rows in the basis, as many together as there are rows."""
        import highspy

        status, basis = highspy.HighsBasisStatus, highspy.HighsBasis()
        basis.col_status = [status.kBasic if basic else status.kLower for basic in columns.tolist()]
        basis.row_status = [status.kBasic if basic else status.kUpper for basic in rows.tolist()]
        basis.valid = True
        self._solver.setBasis(basis)

    def solve(self) -> LpSolution | None:
        """Return the optimum at a vertex, or None if, due to rounding or too many iterations, there is none."""
        return _optimum(self._solver)


@dataclass(frozen=True)
class MilpProgress:
    """State of branch and cut."""

    objective: float
    """Of the best solution; infinite before the first."""
    bound: float


def solve_milp(
    programme: LpModel,
    objective: FloatArray,
    start: FloatArray,
    *,
    time_limit_s: float,
    gap: float,
    seed: int,
    should_stop: Callable[[MilpProgress], bool] | None = None,
) -> tuple[FloatArray | None, float]:
    """Solve the mixed-integer program by branch and cut, on one thread.

    Args:
        programme: columns and rows.
        objective: (columns,)
        start: (columns,) a feasible warm start.
        time_limit_s: time limit.
        gap: absolute optimality gap at which to stop.
        seed: of the solver's random choices.
        should_stop: asked now and then whether the best solution so far suffices.

    Returns:
        The values of the columns (None if the solver has none; the start remains valid), and a lower bound on the
        objective.
    """
    values, bound, claimed = _branch_and_cut(programme, objective, start, time_limit_s, gap, seed, should_stop)
    if values is not None and abs(float(values @ objective) - claimed) > _OBJECTIVE_TOLERANCE * max(1.0, abs(claimed)):
        # HiGHS can overestimate a warm start if presolve removes some of its columns, and then misses solutions in
        # between. A row that demands an objective at least as good as the start's does not mislead it.
        used = np.flatnonzero(objective)
        start_objective = float(start @ objective)
        with programme.temporary_row(
            used, objective[used], -np.inf, start_objective + _OBJECTIVE_TOLERANCE * max(1.0, abs(start_objective))
        ):
            values, bound, _ = _branch_and_cut(programme, objective, None, time_limit_s, gap, seed, should_stop)
    return values, bound


def _branch_and_cut(
    programme: LpModel,
    objective: FloatArray,
    start: FloatArray | None,
    time_limit_s: float,
    gap: float,
    seed: int,
    should_stop: Callable[[MilpProgress], bool] | None,
) -> tuple[FloatArray | None, float, float]:
    """Return (values, bound, HiGHS's objective for the values)."""
    import highspy

    solver = _silent_solver(seed)
    has_shares = programme.continuous and not programme.is_large  # large programs have continuous loads only
    tolerance = _FEASIBILITY_TOLERANCE_OF_SHARES if has_shares else _FEASIBILITY_TOLERANCE
    for option, value in (
        ("time_limit", time_limit_s),
        ("mip_rel_gap", 0.0),
        ("mip_abs_gap", gap),
        ("primal_feasibility_tolerance", tolerance),
        ("mip_feasibility_tolerance", tolerance),
        *(_LARGE_OPTIONS if programme.is_large else _SMALL_OPTIONS),
        ("presolve_rule_off", _PROBING_RULE),
    ):
        solver.setOptionValue(option, value)
    solver.passModel(_model(programme, objective, integer=True))
    if start is not None:
        solution = highspy.HighsSolution()
        solution.col_value = list(start)
        solver.setSolution(solution)
    if should_stop is not None:
        solver.cbMipInterrupt += partial(_interrupt, should_stop)
    _run(solver)
    info = solver.getInfo()
    status = highspy.HighsModelStatus
    if solver.getModelStatus() not in (status.kOptimal, status.kTimeLimit, status.kInterrupt):
        return None, -math.inf, math.nan
    values, bound = np.array(solver.getSolution().col_value), float(info.mip_dual_bound)
    if len(values) != len(objective) or info.primal_solution_status != _FEASIBLE_POINT:
        return None, bound if math.isfinite(bound) else -math.inf, math.nan
    return values, bound if math.isfinite(bound) else -math.inf, float(info.objective_function_value)


def _interrupt(should_stop: Callable[[MilpProgress], bool], event: Any) -> None:
    data = event.data_out
    if should_stop(MilpProgress(data.mip_primal_bound, data.mip_dual_bound)):
        event.interrupt()


def _optimum(solver: Any) -> LpSolution | None:
    import highspy

    _run(solver)
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    solution = solver.getSolution()
    return LpSolution(
        bound=float(solver.getInfo().objective_function_value),
        values=np.array(solution.col_value),
        reduced_costs=np.array(solution.col_dual),
        row_duals=np.array(solution.row_dual),
    )


def _run(solver: Any) -> None:
    """Run the solver; HiGHS refuses if it ran on another number of threads in this process, so reset its scheduler."""
    import highspy

    if solver.run() == highspy.HighsStatus.kError:
        highspy.Highs.resetGlobalScheduler(True)
        solver.run()


def _silent_solver(seed: int) -> Any:
    import highspy

    class Silent(highspy.Highs):
        """Solver without output: the constructor enables callbacks, and the first call prints a banner."""

        def enableCallbacks(self) -> Any:  # noqa: N802  (overrides)
            self.silent()
            return super().enableCallbacks()  # type: ignore[no-untyped-call]  # highspy

    solver: Any = Silent()  # type: ignore[no-untyped-call]  # highspy
    solver.silent()
    for option, value in (
        ("threads", 1),
        ("random_seed", seed),
        ("primal_feasibility_tolerance", _FEASIBILITY_TOLERANCE),
    ):
        solver.setOptionValue(option, value)
    return solver


def _model(programme: LpModel, objective: FloatArray, *, integer: bool) -> Any:
    import highspy

    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(programme.upper), len(programme.row_lower)
    model.col_cost_ = np.asarray(objective, dtype=np.float64)
    model.col_lower_ = np.zeros(len(programme.upper))
    model.col_upper_ = np.array(programme.upper)
    model.row_lower_, model.row_upper_ = np.array(programme.row_lower), np.array(programme.row_upper)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.concatenate([[0], np.cumsum([len(c) for c in programme.row_columns])]).astype(np.int32)
    model.a_matrix_.index_ = np.concatenate([*programme.row_columns, np.array([], dtype=np.int32)])
    model.a_matrix_.value_ = np.concatenate([*programme.row_values, np.array([])])
    if integer:
        kind_of = [highspy.HighsVarType.kInteger] * len(programme.upper)
        for column in programme.continuous:
            kind_of[column] = highspy.HighsVarType.kContinuous
        model.integrality_ = kind_of
    return model
