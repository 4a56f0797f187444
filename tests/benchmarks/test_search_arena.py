"""Arena of searches: resource usage of plans, charges, SLO cases and assessment of answers."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.search.arena import Arena, with_means
from benchmarks.search.meter import Answer, Meter, judge
from benchmarks.search.slo_cases import Case, cases
from benchmarks.workloads.published.speech import TracesAbsentError, traces_folder
from benchmarks.workloads.published.traces import read_arenas
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from small_arenas import tiny_arena


@pytest.fixture(scope="module")
def published() -> tuple[Arena, ...]:
    pytest.importorskip("pyarrow", reason="the published scores are in a Parquet file")
    try:
        return read_arenas(traces_folder())
    except TracesAbsentError as absent:
        pytest.skip(str(absent))


@pytest.fixture
def tiny() -> Arena:
    return tiny_arena(np.random.default_rng(0))


def _of(arena: Arena, factor: int, model: str) -> int:
    found = [
        number
        for number, c in enumerate(arena.space.configurations)
        if c["resize"].as_dict() == {"factor": factor} and c["detect"].as_dict() == {"model": model}
    ]
    return found[0]


def _placed(arena: Arena, *tiers: int) -> int:
    return arena.space.placements.tolist().index(list(tiers))


def test_latency_and_cost_by_hand(tiny: Arena) -> None:
    k = _of(tiny, 2, "middle")  # 0.02 s and 0.16 s; 1 MB in, 0.4 MB between
    assert tiny.latency_s[k, _placed(tiny, 0, 1)] == pytest.approx(0.02 / 0.1 + 0.4e6 / 0.08e9 + 0.16 / 0.22)
    assert tiny.latency_s[k, _placed(tiny, 0, 2)] == pytest.approx(0.2 + 0.4e6 / 0.08e9 + 0.4e6 / 0.05e9 + 0.16)
    assert tiny.latency_s[k, _placed(tiny, 1, 2)] == pytest.approx(1e6 / 0.08e9 + 0.02 / 0.22 + 0.4e6 / 0.05e9 + 0.16)
    assert tiny.latency_s[k, _placed(tiny, 2, 2)] == pytest.approx(1e6 / 0.08e9 + 1e6 / 0.05e9 + 0.18)
    # One request a second: busy hours of an hour at each tier's price.
    assert tiny.cost_usd_per_h[k, _placed(tiny, 0, 1)] == pytest.approx(0.2 * 0.05 + 0.16 / 0.22 * 0.22)
    assert tiny.cost_usd_per_h[k, _placed(tiny, 1, 2)] == pytest.approx(0.02 * 1.0 + 0.16 * 2.0)


def test_placements_go_up_and_memory_shuts_tiers(tiny: Arena) -> None:
    assert tiny.space.placements.tolist() == [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]]
    large = _of(tiny, 1, "large")
    assert np.isfinite(tiny.latency_s[large]).tolist() == [False, False, True, False, True, True]
    assert (np.isinf(tiny.cost_usd_per_h) == ~tiny.space.fits).all()


def test_there_is_no_best_tier(published: tuple[Arena, ...]) -> None:
    for arena in published:
        fits = arena.space.fits.all(axis=1)
        latency_s, cost = arena.latency_s[fits], arena.cost_usd_per_h[fits]
        assert set(cost.argmin(axis=1)).isdisjoint(set(latency_s.argmin(axis=1)))


def test_the_meter_charges_a_prefix_once_with_reuse(tiny: Arena) -> None:
    first, second = _of(tiny, 3, "small"), _of(tiny, 3, "large")
    meter = Meter(tiny, reuse_prefixes=True)
    scores = meter.measure(first, 10)
    assert scores.tolist() == tiny.scores[first, :10].tolist()
    assert meter.seconds == pytest.approx(10 * 2 * (0.03 + 0.06))
    meter.measure(second, 4)  # its resize was run on those
    assert meter.seconds == pytest.approx(10 * 0.18 + 4 * 2 * 0.54)
    assert meter.measure(second, 10).tolist() == tiny.scores[second, 4:14].tolist()  # 4 new to the resize
    assert meter.seconds == pytest.approx(1.8 + 14 * 1.08 + 4 * 0.06)
    assert meter.touched == 2
    assert len(meter.measure(first, 1000)) == 30
    spent = meter.seconds
    assert len(meter.measure(first, 1000)) == 0
    assert meter.seconds == spent


def test_the_meter_charges_everything_without_reuse(tiny: Arena) -> None:
    meter = Meter(tiny, reuse_prefixes=False)
    meter.measure(_of(tiny, 3, "small"), 10)
    meter.measure(_of(tiny, 3, "large"), 10)
    assert meter.seconds == pytest.approx(10 * (0.18 + 1.14))
    meter.measure(_of(tiny, 3, "large"), 5)
    assert meter.seconds == pytest.approx(10 * (0.18 + 1.14) + 5 * 1.14)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 50)), max_size=20), st.booleans())
def test_the_meter_never_charges_twice(steps: list[tuple[int, int]], reuse: bool) -> None:
    arena = tiny_arena(np.random.default_rng(0))
    meter = Meter(arena, reuse_prefixes=reuse)
    for configuration, items in steps:
        before, price = meter.seconds, meter.price_s(configuration, items)
        meter.measure(configuration, items)
        assert np.isnan(price) or meter.seconds - before == pytest.approx(price)
    rows = arena.space.rows
    if reuse:
        most = [max(meter.items[(rows == row).any(axis=1)]) for row in range(len(arena.item_s))]
        assert meter.seconds == pytest.approx(float(np.dot(most, arena.item_s)))
    else:
        assert meter.seconds == pytest.approx(float(meter.items @ arena.item_s[rows].sum(axis=1)))


def test_the_meter_tells_only_of_what_was_run(tiny: Arena) -> None:
    meter = Meter(tiny, reuse_prefixes=True)
    assert np.isnan(meter.service_s).all()
    assert np.isnan(meter.price_s(0, 1))
    assert not np.isfinite(meter.latency_s).any()
    assert (np.isinf(meter.cost_usd_per_h) == ~tiny.space.fits).all()
    k = _of(tiny, 2, "middle")
    meter.measure(k, 1)
    assert np.isfinite(meter.latency_s).any(axis=1).nonzero()[0].tolist() == [k]
    assert meter.latency_s[k].tolist() == tiny.latency_s[k].tolist()
    assert meter.known_rows.sum() == 2


def test_another_order_shows_other_items_first(tiny: Arena) -> None:
    meter = Meter(tiny, reuse_prefixes=True)
    order = np.random.default_rng(3).permutation(tiny.space.items)
    meter.arrange(order)
    assert meter.measure(4, 7).tolist() == tiny.scores[4, order[:7]].tolist()
    with pytest.raises(ValueError, match="before anything is measured"):
        meter.arrange(order)
    with pytest.raises(ValueError, match="not a permutation"):
        Meter(tiny, reuse_prefixes=True).arrange(order[1:])


@given(
    arrays(np.float64, (3, 20), elements=st.floats(0, 1)),
    arrays(np.float64, (3,), elements=st.floats(0.01, 0.99)),
)
def test_moved_scores_have_the_means_and_the_order(scores: np.ndarray, means: np.ndarray) -> None:
    scores[:, 0], scores[:, 1] = 0.1, 0.9
    moved = with_means(scores, means)
    assert moved.mean(axis=1) == pytest.approx(means)
    assert moved.min() >= -1e-12
    assert moved.max() <= 1 + 1e-12
    for before, after in zip(scores, moved, strict=True):
        assert (np.diff(after[np.argsort(before)]) >= -1e-12).all()


def test_published_populations(published: tuple[Arena, ...]) -> None:
    for arena, (configurations, items) in zip(published, [(125, 300), (125, 300), (30, 257)], strict=True):
        drawn = arena.drawn(np.random.default_rng(1))
        assert drawn.scores.shape == (configurations, items)
        assert drawn.space.items == items
        assert 0 <= drawn.scores.min() <= drawn.scores.max() <= 1
        if drawn.published is not None:
            assert drawn.means == pytest.approx(drawn.published, abs=1e-12)
        again, other = arena.drawn(np.random.default_rng(1)), arena.drawn(np.random.default_rng(2))
        assert (drawn.scores == again.scores).all()
        assert not np.array_equal(drawn.scores, other.scores)
    voices, libri, video = published
    assert voices.space.configurations == libri.space.configurations
    assert len({tuple(scores) for scores in voices.scores[:, :100]}) == 25  # a dead knob
    # A configuration's whole price is the published one.
    assert float(video.item_s[video.space.rows[0]].sum() * 257) == pytest.approx(208.65027856826782)


def test_libri_has_the_published_numbers(published: tuple[Arena, ...]) -> None:
    libri = published[1]
    names = ["-".join(str(v) for n in c for v in c[n].as_dict().values()) for c in libri.space.configurations]
    # 8000, mask 500, hubert-large; operators sorted by name, so the knobs are sampler, mask, model
    k = names.index("8000-500-hubert-large")
    assert libri.means[k] == pytest.approx(0.9891087593412958)
    assert libri.service_s[libri.space.rows[k, 3]] == 0.01328725814819336
    assert float(libri.item_s[libri.space.rows[k]].sum() * 300) == pytest.approx(19.05872678756714)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_cases_go_from_loose_to_infeasible(direction: str) -> None:
    rng = np.random.default_rng(5)
    arena = tiny_arena(rng, sizes=12, direction=direction)
    listed = cases(arena, rng)
    assert len(listed) == 40
    plans = [int(case.feasible(arena).sum()) for case in listed]
    assert [count == 0 for count in plans] == [False] * 32 + [True] * 8
    assert min(plans[:8]) > 3 * max(plans[24:32])
    for case in listed[32:]:  # a little more, and there is a plan
        looser = (
            Case(case.latency_s * 1.021, case.threshold, case.cost_usd_per_h, case.sign),
            Case(case.latency_s, case.threshold, case.cost_usd_per_h * 1.021, case.sign),
            Case(case.latency_s, case.threshold * (1 - 0.021 * case.sign), case.cost_usd_per_h, case.sign),
        )
        assert any(each.feasible(arena).any() for each in looser)


def test_cases_of_published_arenas(published: tuple[Arena, ...]) -> None:
    for arena in published:
        drawn = arena.drawn(np.random.default_rng(0))
        listed = cases(drawn, np.random.default_rng(0))
        feasible = [bool(case.feasible(drawn).any()) for case in listed]
        assert feasible == [True] * 32 + [False] * 8
        best = {np.where(c.feasible(drawn), drawn.cost_usd_per_h, np.inf).argmin() for c in listed[:32]}
        assert len(best) >= 8  # cases differ in what is right


def test_what_fits_nowhere_keeps_nothing(tiny: Arena) -> None:
    assert (Case(np.inf, 0.0, np.inf, 1.0).feasible(tiny) == tiny.space.fits).all()


def test_answers_are_judged_by_the_truth(tiny: Arena) -> None:
    case = Case(1.0, 0.5, 1.0, 1.0)
    feasible = case.feasible(tiny)
    best = np.unravel_index(np.where(feasible, tiny.cost_usd_per_h, np.inf).argmin(), feasible.shape)
    meter = Meter(tiny, reuse_prefixes=True)
    right = judge(case, Answer(int(best[0]), int(best[1])), tiny, meter)
    assert right.right
    assert right.cost_over_optimum == 1.0
    bad = np.argwhere(~feasible)[0]
    wrong = judge(case, Answer(int(bad[0]), int(bad[1])), tiny, meter)
    assert not wrong.right
    assert np.isnan(wrong.cost_over_optimum)
    assert not judge(case, None, tiny, meter).right
    impossible = Case(0.0, 0.5, 1.0, 1.0)
    assert judge(impossible, None, tiny, meter).right
    assert not judge(impossible, Answer(0, 0), tiny, meter).right
