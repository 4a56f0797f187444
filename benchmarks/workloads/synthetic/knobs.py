"""Effects of the choices of a synthetic pipeline's knobs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.workloads.synthetic.pipeline_model import Effect, Joint

NEEDLE_LOSS = 0.3
HINT = 0.02
"""Reduction of a needle's loss for each right choice, unless all are right."""
_PAIR_LOSS = 0.1
_MEMORY_FACTORS = (1.0, 1.0, 1.0, 6.0)


def ladder(
    weight: float, shares: Sequence[float], rng: np.random.Generator, *, shrinks: bool = False
) -> tuple[Effect, ...]:
    """Return choices with increasing time and decreasing loss; lower ones may also shrink outputs."""
    growth, positions = rng.uniform(0.7, 1.5), np.linspace(0.0, 1.0, len(shares))
    return tuple(
        Effect(
            time=math.exp(growth * position),
            loss=weight * share,
            size=round(0.5 ** (1.0 - position), 6) if shrinks else 1.0,
            memory=1.0 + 0.5 * position,
        )
        for position, share in zip(positions.tolist(), shares, strict=True)
    )


def variants(weight: float, shares: Sequence[float], rng: np.random.Generator) -> tuple[Effect, ...]:
    """Return unordered choices; a quarter are large models, which need much of an edge node."""
    return tuple(
        Effect(time=math.exp(rng.uniform(-0.4, 0.4)), loss=weight * share, memory=float(rng.choice(_MEMORY_FACTORS)))
        for share in shares
    )


def diminishing(choices: int, rng: np.random.Generator) -> Sequence[float]:
    """Return losses from 1 to 0 with decreasing steps."""
    rate, at = rng.uniform(2.0, 4.0), np.linspace(0.0, 1.0, choices)
    return tuple(((np.exp(-rate * at) - math.exp(-rate)) / (1.0 - math.exp(-rate))).tolist())


def steps(choices: int, rng: np.random.Generator) -> Sequence[float]:
    """Return losses of 1, then 1/3, then 0, with steps at random positions."""
    first, second = np.sort(rng.integers(1, choices, 2))
    return [1.0 if at < first else 1 / 3 if at < second else 0.0 for at in range(choices)]


def scattered(choices: int, rng: np.random.Generator) -> Sequence[float]:
    """Return losses of 0 and 1 for one choice each, and random ones for the others."""
    return tuple(rng.permutation([0.0, 1.0, *rng.uniform(0.0, 1.0, choices)][:choices]).tolist())


def good_or_bad(choices: int, rng: np.random.Generator) -> Sequence[float]:
    """Return a loss of 0 for half of the choices, and 1 for the others."""
    return tuple(rng.permutation([float(at >= (choices + 1) // 2) for at in range(choices)]).tolist())


def nothing(choices: int, rng: np.random.Generator) -> Sequence[float]:
    """Return no individual loss for any choice."""
    return [0.0] * choices


def no_joints(counts: Mapping[str, int], rng: np.random.Generator) -> tuple[Joint, ...]:
    """Return no joint losses."""
    return ()


def exclusive_pairs(counts: Mapping[str, int], rng: np.random.Generator) -> tuple[Joint, ...]:
    """Return two pairs of variants, each of two kinds, that lose if both are of one kind.

    Averaged over the other variant, no choice is better than another.
    """
    return tuple(
        Joint(
            knobs=((first, "variant"), (second, "variant")),
            kinds=tuple(tuple(rng.permutation(np.arange(counts[name]) % 2).tolist()) for name in (first, second)),
            losses={(a, b): _PAIR_LOSS if a == b else 0.0 for a in (0, 1) for b in (0, 1)},
        )
        for first, second in (("find", "hear"), ("prepare", "answer"))
    )


def needle(counts: Mapping[str, int], rng: np.random.Generator) -> tuple[Joint, ...]:
    """Return a joint of three operators in which only the combination of three right variants is good."""
    names = ("find", "hear", "answer")
    right = [int(rng.integers(counts[name])) for name in names]
    combinations = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    return (
        Joint(
            knobs=tuple((name, "variant") for name in names),
            kinds=tuple(tuple(int(at == r) for at in range(counts[n])) for n, r in zip(names, right, strict=True)),
            losses={kinds: 0.0 if all(kinds) else NEEDLE_LOSS - HINT * sum(kinds) for kinds in combinations},
        ),
    )
