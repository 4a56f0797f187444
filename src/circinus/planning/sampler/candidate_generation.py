"""Candidate configurations in spaces too large to enumerate; time and memory do not depend on the size of the space.

There are three kinds. *Beam search* starts from the most promising measured codes. For each block it tries all choices
with the remaining columns fixed, and the best few codes advance. A block is an operator, or one knob of an operator
with many knob values; with an additive surrogate one pass finds the optimum. *Local search* repeatedly adds the
neighbours of the best codes. Random codes correct a wrong model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace

CodeScore = Callable[[IntArray], FloatArray]
"""Function from (m, d) codes to (m,) scores, the higher the more promising."""

_BEAM = 4
"""Beam width."""
_MAX_BLOCK_VALUES = 32
"""Maximum number of knob values of an operator that is one block."""
_LOCAL_ROUNDS = 3
"""Rounds of local search."""
_RANDOM_SHARE = 0.25
"""Share of random codes among the candidates."""


def candidates(
    space: ConfigurationSpace,
    score: CodeScore,
    measured_codes: IntArray,
    count: int,
    rng: np.random.Generator,
    *,
    without: IntArray | None = None,
) -> IntArray:
    """Return codes to choose the next measurement from.

    Args:
        space: space of any size.
        score: score of codes.
        measured_codes: (n, d) measured codes; with n = 0 the search starts at random codes.
        count: maximum number of codes.
        rng: generator of the random codes.
        without: (f, d) excluded codes, which are no starting points either.

    Returns:
        (m, d) distinct unmeasured codes: the most promising first, then about a quarter random ones. All remaining
        codes if there are at most `count`.
    """
    excluded = {code.tobytes() for codes in (measured_codes, without) if codes is not None for code in codes}
    if space.size <= count + len(excluded):
        return _distinct([space.enumerate(space.size)], excluded, space)
    pool = _Pool(space, score)
    pool.add(measured_codes)
    if not len(measured_codes):
        pool.add(space.random(rng, _BEAM))
    _beam(space, pool)
    for _ in range(_LOCAL_ROUNDS):
        pool.add(np.concatenate([space.neighbours(code) for code in pool.best(_BEAM)]))
    promising = _distinct([pool.best(len(pool.scores))], excluded, space)[: count - round(_RANDOM_SHARE * count)]
    random = space.random(rng, 2 * count)
    return _distinct([promising, random], excluded, space)[:count]


class _Pool:
    """Distinct evaluated codes with their scores."""

    def __init__(self, space: ConfigurationSpace, score: CodeScore) -> None:
        self.scores: dict[bytes, float] = {}
        self._space = space
        self._score = score

    def add(self, codes: IntArray) -> None:
        fresh = _distinct([codes], self.scores, self._space)
        if len(fresh):
            scores = self._score(fresh).tolist()
            self.scores.update(zip((code.tobytes() for code in fresh), scores, strict=True))

    def best(self, count: int) -> IntArray:
        """Return the codes of highest score, (at most count, d); of equal ones the first added."""
        ranked = sorted(self.scores, key=lambda code: -self.scores[code])[:count]
        return _codes(ranked, self._space)


def _beam(space: ConfigurationSpace, pool: _Pool) -> None:
    for operator in range(len(space.operators)):
        columns = space.operator_columns(operator)
        if space.operator_sizes[operator] <= _MAX_BLOCK_VALUES:
            values, best = space.operator_codes(operator), pool.best(_BEAM)
            changed = np.repeat(best, len(values), axis=0)
            changed[:, columns] = np.tile(values, (len(best), 1))
            pool.add(changed)
            continue
        for column in columns.tolist():
            pool.add(np.concatenate([space.single_knob_changes(code, column) for code in pool.best(_BEAM)]))


def _distinct(parts: Iterable[IntArray], without: Iterable[bytes], space: ConfigurationSpace) -> IntArray:
    """Return the distinct codes of all parts in their order."""
    excluded = frozenset(without)
    distinct = dict.fromkeys(code.tobytes() for part in parts for code in part)
    return _codes([code for code in distinct if code not in excluded], space)


def _codes(encoded: list[bytes], space: ConfigurationSpace) -> IntArray:
    return np.frombuffer(bytearray().join(encoded), dtype=np.int64).reshape(len(encoded), len(space.columns))
