"""Drawn data set: reproducible, balanced, and with ground truth that matches the pages."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from documents import dataset, make_data
from documents.camera import CONDITIONS, Condition, draw, take
from documents.templates import HEIGHT, TEMPLATES, WIDTH, Draft, Text

from budget import share_of


@pytest.mark.thorough
def test_pages_are_drawn_alike_on_every_run_and_as_they_lie_on_disk() -> None:
    items, count = dataset.pages(), share_of(9)
    for first, second, item in zip(
        islice(make_data.sheets(), count), islice(make_data.sheets(), count), items[:count], strict=True
    ):
        assert np.array_equal(first.pixels, second.pixels)
        assert np.array_equal(first.pixels, item.value.pixels)
        assert first.truth == second.truth == item.truth
        assert first.key == item.key


def test_items_are_120_with_unique_keys_and_strata_that_take_turns() -> None:
    items = dataset.pages()
    assert len(items) == len({item.key for item in items}) == 120
    conditions = [(item.strata["template"], item.strata["condition"]) for item in items]
    assert set(Counter(conditions).values()) == {make_data.PER_STRATUM}
    assert len(set(conditions[:24])) == len(TEMPLATES) * len(CONDITIONS) == 24
    assert {item.value.pixels.shape for item in items} == {(HEIGHT, WIDTH)}
    assert sum(path.stat().st_size for path in make_data.ensure_data().iterdir()) < 15e6


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_fields_stand_in_the_text(template: str) -> None:
    for seed in range(20):
        draft = TEMPLATES[template](np.random.default_rng(seed))
        text = draft.true_text()
        for name, value in draft.fields.items():
            if name not in ("rows", "stamp"):
                assert value in text
        assert ("stamp" in draft.fields) == (draft.stamp is not None)
        assert all(0 <= piece.x <= WIDTH and 0 <= piece.y <= HEIGHT - 20 for piece in draft.texts)
        if template == "invoice":
            assert len(draft.rules) == int(draft.fields["rows"]) + 2


def test_truth_is_read_line_by_line_from_left_to_right() -> None:
    draft = Draft()
    draft.line(60, Text(200, 0, "right"), Text(40, 0, "left"))
    draft.line(20, Text(40, 0, "first"))
    assert draft.true_text() == "first\nleft right"


def test_conditions_do_to_a_page_what_they_say() -> None:
    image = draw(TEMPLATES["letter"](np.random.default_rng(4)))
    plain = take(image, Condition("plain"), np.random.default_rng(5))

    def taken(condition: Condition) -> np.ndarray:
        return take(image, condition, np.random.default_rng(5)).astype(float)

    assert len(np.unique(plain)) <= 16
    assert np.array_equal(taken(Condition("over", upside_down=True)), plain[::-1, ::-1])
    assert np.abs(np.diff(taken(Condition("blurred", blur_px=1.5)))).max() < np.abs(np.diff(plain.astype(float))).max()
    assert np.std(taken(Condition("noisy", noise=20.0)) - plain) == pytest.approx(20.0, rel=0.4)
    changed = taken(Condition("specks", specks=0.1)) != plain
    assert 0.05 < changed.mean() < 0.1


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(islice(make_data.sheets(), 1))

    def broken() -> object:
        yield from whole
        raise KeyboardInterrupt

    monkeypatch.setattr(make_data, "sheets", broken)
    with pytest.raises(KeyboardInterrupt):
        make_data.write(tmp_path / "data" / "version")
    assert list((tmp_path / "data").iterdir()) == []
