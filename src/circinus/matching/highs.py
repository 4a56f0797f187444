"""HiGHS behind two calls: a linear relaxation that grows by cuts, and a mixed-integer programme with a start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from circinus.errors import PlanningError
from circinus.matching.problem import FloatArray
from circinus.matching.programme import Programme
from circinus.matching.rounding import Row

_TOLERANCE = 1e-7


@dataclass(frozen=True, eq=False)
class Relaxed:
    """The solution of a linear relaxation."""

    bound: float
    """No solution of the programme has a lower objective."""
    values: FloatArray
    """(columns,)"""
    reduced_costs: FloatArray
    """(columns,) what the objective rises by at least when a column at 0 is raised by one."""


class Relaxation:
    """The linear relaxation of a programme under an objective; solved again after rows were added."""

    def __init__(self, programme: Programme, objective: FloatArray, seed: int) -> None:
        self._solver = _silent_solver(seed)
        self._solver.passModel(_model(programme, objective, integer=False))

    def solve(self, time_limit_s: float) -> Relaxed | None:
        """The optimum, or None when time runs out."""
        import highspy

        self._solver.setOptionValue("time_limit", self._solver.getRunTime() + time_limit_s)
        self._solver.run()
        status = self._solver.getModelStatus()
        if status == highspy.HighsModelStatus.kTimeLimit:
            return None
        if status != highspy.HighsModelStatus.kOptimal:
            raise _stopped(self._solver, status)
        solution = self._solver.getSolution()
        return Relaxed(
            bound=float(self._solver.getInfo().objective_function_value),
            values=np.array(solution.col_value),
            reduced_costs=np.array(solution.col_dual),
        )

    def add(self, row: Row) -> None:
        """Add a row."""
        self._solver.addRow(row.lower, np.inf, len(row.columns), row.columns.astype(np.int32), row.values)


def minimise(
    programme: Programme, objective: FloatArray, start: FloatArray, *, time_limit_s: float, gap: float, seed: int
) -> tuple[FloatArray | None, float]:
    """Solve the programme in whole numbers by branch and cut, on one thread.

    Args:
        programme: columns and rows.
        objective: (columns,)
        start: (columns,) a solution to begin with.
        time_limit_s: when to stop.
        gap: absolute distance between solution and bound at which to stop.
        seed: of the solver's random choices.

    Returns:
        The values of the columns (None: none better than the start was found in time), and a bound that no solution
        goes below.
    """
    import highspy

    solver = _silent_solver(seed)
    for option, value in (
        ("time_limit", time_limit_s),
        ("mip_rel_gap", 0.0),
        ("mip_abs_gap", gap),
        ("mip_feasibility_tolerance", _TOLERANCE),
        # Measured on matchings of 12 queries: these cost more than they save (together a factor of two to five).
        ("mip_allow_restart", False),
        ("mip_detect_symmetry", False),
        ("mip_heuristic_run_rins", False),
        ("mip_heuristic_run_rens", False),
        ("mip_heuristic_run_feasibility_jump", False),
        ("mip_pscost_minreliable", 2),
    ):
        solver.setOptionValue(option, value)
    solver.passModel(_model(programme, objective, integer=True))
    solution = highspy.HighsSolution()
    solution.col_value = list(start)
    solver.setSolution(solution)
    solver.run()
    status, info = solver.getModelStatus(), solver.getInfo()
    if status not in (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kTimeLimit):
        raise _stopped(solver, status)
    values = np.array(solver.getSolution().col_value)
    return (values if len(values) == len(objective) else None), float(info.mip_dual_bound)


def _stopped(solver: Any, status: Any) -> PlanningError:
    return PlanningError(
        f"matching: the solver stopped with status {solver.modelStatusToString(status)}, expected a solution; "
        "this is a fault of Circinus, please report it"
    )


def _silent_solver(seed: int) -> Any:
    import highspy

    class Silent(highspy.Highs):
        """The constructor enables callbacks, and the first call prints a banner: standard output is not HiGHS's."""

        def enableCallbacks(self) -> Any:  # noqa: N802  (overrides)
            self.silent()
            return super().enableCallbacks()  # type: ignore[no-untyped-call]

    solver: Any = Silent()  # type: ignore[no-untyped-call]
    solver.silent()
    for option, value in (("threads", 1), ("random_seed", seed), ("primal_feasibility_tolerance", _TOLERANCE)):
        solver.setOptionValue(option, value)
    return solver


def _model(programme: Programme, objective: FloatArray, *, integer: bool) -> Any:
    import highspy

    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(programme.upper), len(programme.row_lower)
    model.col_cost_ = objective
    model.col_lower_ = np.zeros(len(programme.upper))
    model.col_upper_ = np.array(programme.upper)
    model.row_lower_, model.row_upper_ = np.array(programme.row_lower), np.array(programme.row_upper)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.concatenate([[0], np.cumsum([len(c) for c in programme.row_columns])]).astype(np.int32)
    model.a_matrix_.index_ = np.concatenate([*programme.row_columns, np.array([], dtype=np.int32)])
    model.a_matrix_.value_ = np.concatenate([*programme.row_values, np.array([])])
    if integer:
        model.integrality_ = [highspy.HighsVarType.kInteger] * len(programme.upper)
    return model
