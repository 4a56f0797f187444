"""Configurations worth a look in spaces too large to list; time and memory do not depend on the space's size.

Three kinds. A *beam*: from the most promising measured codes on, block by block, each block's choices are tried with
everything else kept and the best few codes go on. A block is an operator, or one knob of an operator with many knob
values; where operators add up, as in an additive surrogate, one pass finds the best of all. *Local moves*: the
neighbours of the best so far, again and again. And some codes at random, lest a wrong belief be never corrected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.surrogate import Surrogate

Promise = Callable[[IntArray], FloatArray]
"""(m, d) codes -> (m,) how much each promises, the more the better."""

_BEAM = 4
"""Codes that go on after each block."""
_TOGETHER_AT_MOST = 32
"""Knob values up to which an operator is one block."""
_CLIMBS = 3
"""Rounds of local moves."""
_RANDOM_SHARE = 0.25
"""Of the candidates."""
_OPTIMISM = 1.5
"""Standard deviations above the mean that a code promises unless told otherwise."""


def candidates(
    space: ConfigurationSpace,
    surrogate: Surrogate,
    known_codes: IntArray,
    count: int,
    rng: np.random.Generator,
    *,
    promise: Promise | None = None,
    without: IntArray | None = None,
) -> IntArray:
    """Codes to choose the next measurement from.

    Args:
        space: of any size.
        surrogate: what is believed; about a prior mean only if `promise` is given.
        known_codes: (n, d) measured; n = 0 begins anywhere.
        count: at most so many.
        rng: of the random ones.
        promise: the more, the sooner a code is taken; None: a high score, optimistically.
        without: (f, d) codes that are not wanted, nor a good place to begin from.

    Returns:
        (m, d) distinct codes without the known ones: the most promising first, then about a quarter random ones. All
        that are left where these are no more than `count`.
    """
    known = {code.tobytes() for codes in (known_codes, without) if codes is not None for code in codes}
    if space.size <= count + len(known):
        return _distinct([space.enumerate(space.size)], known, space)
    pool = _Pool(space, promise or (lambda codes: upper_confidence_bound(surrogate, codes)))
    pool.add(known_codes)
    if not len(known_codes):
        pool.add(space.random(rng, _BEAM))
    _beam(space, pool)
    for _ in range(_CLIMBS):
        pool.add(np.concatenate([space.neighbours(code) for code in pool.best(_BEAM)]))
    promising = _distinct([pool.best(len(pool.promises))], known, space)[: count - round(_RANDOM_SHARE * count)]
    random = space.random(rng, 2 * count)
    return _distinct([promising, random], known, space)[:count]


def upper_confidence_bound(surrogate: Surrogate, codes: IntArray) -> FloatArray:
    """(m,) scores that codes may well have."""
    belief = surrogate.predict(codes)
    return belief.mean + _OPTIMISM * belief.deviation


class _Pool:
    """Codes that were looked at, each once, with what they promise."""

    def __init__(self, space: ConfigurationSpace, promise: Promise) -> None:
        self.promises: dict[bytes, float] = {}
        self._space = space
        self._promise = promise

    def add(self, codes: IntArray) -> None:
        fresh = _distinct([codes], self.promises, self._space)
        if len(fresh):
            found = self._promise(fresh).tolist()
            self.promises.update(zip((code.tobytes() for code in fresh), found, strict=True))

    def best(self, count: int) -> IntArray:
        """(at most count, d) most promising first; of equal ones that which was added first."""
        ranked = sorted(self.promises, key=lambda code: -self.promises[code])[:count]
        return _codes(ranked, self._space)


def _beam(space: ConfigurationSpace, pool: _Pool) -> None:
    for operator in range(len(space.operators)):
        columns = space.operator_columns(operator)
        if space.operator_sizes[operator] <= _TOGETHER_AT_MOST:
            values, best = space.operator_codes(operator), pool.best(_BEAM)
            changed = np.repeat(best, len(values), axis=0)
            changed[:, columns] = np.tile(values, (len(best), 1))
            pool.add(changed)
            continue
        for column in columns.tolist():
            pool.add(np.concatenate([space.single_knob_changes(code, column) for code in pool.best(_BEAM)]))


def _distinct(parts: Iterable[IntArray], without: Iterable[bytes], space: ConfigurationSpace) -> IntArray:
    """The codes of all parts in their order, each once."""
    excluded = frozenset(without)
    found = dict.fromkeys(code.tobytes() for part in parts for code in part)
    return _codes([code for code in found if code not in excluded], space)


def _codes(encoded: list[bytes], space: ConfigurationSpace) -> IntArray:
    return np.frombuffer(bytearray().join(encoded), dtype=np.int64).reshape(len(encoded), len(space.columns))
