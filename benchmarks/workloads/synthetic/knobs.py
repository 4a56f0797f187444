"""What the choices of a synthetic pipeline's knobs do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.workloads.synthetic.pipeline_model import Effect, Joint

NEEDLE_LOSS = 0.3
HINT = 0.02
"""What is lost less by each right choice of a needle, where not all are right."""
_PAIR_LOSS = 0.1
_MEMORY_FACTORS = (1.0, 1.0, 1.0, 6.0)


def ladder(
    weight: float, shares: Sequence[float], rng: np.random.Generator, *, shrinks: bool = False
) -> tuple[Effect, ...]:
    """More and more time for less and less loss; the lower choices may make outputs smaller, too."""
    growth, places = rng.uniform(0.7, 1.5), np.linspace(0.0, 1.0, len(shares))
    return tuple(
        Effect(
            time=math.exp(growth * at),
            loss=weight * share,
            size=round(0.5 ** (1.0 - at), 6) if shrinks else 1.0,
            memory=1.0 + 0.5 * at,
        )
        for at, share in zip(places.tolist(), shares, strict=True)
    )


def variants(weight: float, shares: Sequence[float], rng: np.random.Generator) -> tuple[Effect, ...]:
    """In no order. One in four is a large model, which needs much of a node of the edge."""
    return tuple(
        Effect(time=math.exp(rng.uniform(-0.4, 0.4)), loss=weight * share, memory=float(rng.choice(_MEMORY_FACTORS)))
        for share in shares
    )


def diminishing(choices: int, rng: np.random.Generator) -> Sequence[float]:
    """1 to 0, the first steps the largest."""
    rate, at = rng.uniform(2.0, 4.0), np.linspace(0.0, 1.0, choices)
    return tuple(((np.exp(-rate * at) - math.exp(-rate)) / (1.0 - math.exp(-rate))).tolist())


def steps(choices: int, rng: np.random.Generator) -> Sequence[float]:
    """1, then a third, then 0: two steps at random, flat between them."""
    first, second = np.sort(rng.integers(1, choices, 2))
    return [1.0 if at < first else 1 / 3 if at < second else 0.0 for at in range(choices)]


def scattered(choices: int, rng: np.random.Generator) -> Sequence[float]:
    """One choice loses nothing, one loses most, the others lie anywhere between."""
    return tuple(rng.permutation([0.0, 1.0, *rng.uniform(0.0, 1.0, choices)][:choices]).tolist())


def good_or_bad(choices: int, rng: np.random.Generator) -> Sequence[float]:
    """Half of the choices lose nothing, the others everything."""
    return tuple(rng.permutation([float(at >= (choices + 1) // 2) for at in range(choices)]).tolist())


def nothing(choices: int, rng: np.random.Generator) -> Sequence[float]:
    """No choice loses anything by itself."""
    return [0.0] * choices


def no_joints(counts: Mapping[str, int], rng: np.random.Generator) -> tuple[Joint, ...]:
    """Every operator's knobs for themselves."""
    return ()


def exclusive_pairs(counts: Mapping[str, int], rng: np.random.Generator) -> tuple[Joint, ...]:
    """Two pairs of variants, each of two kinds, that lose where both are of one kind and where that is not expected:
    averaged over the other, no choice is better than another."""
    return tuple(
        Joint(
            knobs=((one, "variant"), (other, "variant")),
            kinds=tuple(tuple(rng.permutation(np.arange(counts[each]) % 2).tolist()) for each in (one, other)),
            losses={(a, b): _PAIR_LOSS if a == b else 0.0 for a in (0, 1) for b in (0, 1)},
        )
        for one, other in (("find", "hear"), ("prepare", "answer"))
    )


def needle(counts: Mapping[str, int], rng: np.random.Generator) -> tuple[Joint, ...]:
    """One right variant of each of three operators; only all three together are good."""
    names = ("find", "hear", "answer")
    right = [int(rng.integers(counts[name])) for name in names]
    every = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    return (
        Joint(
            knobs=tuple((name, "variant") for name in names),
            kinds=tuple(tuple(int(at == r) for at in range(counts[n])) for n, r in zip(names, right, strict=True)),
            losses={kinds: 0.0 if all(kinds) else NEEDLE_LOSS - HINT * sum(kinds) for kinds in every},
        ),
    )
