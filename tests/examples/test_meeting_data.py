"""Spoken data set: reproducible, balanced, and with the declared noise levels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from meeting import acoustics, dataset, make_data
from meeting.sentences import SENTENCES

from budget import share_of

MEETING = Path(make_data.__file__).resolve().parents[1]


def _digest_of_a_fresh_run(limit: int, hash_seed: str) -> dict[str, object]:
    code = (
        "import hashlib, json; from meeting.make_data import make;"
        f"samples, recordings = make({limit});"
        "print(json.dumps({'sha256': hashlib.sha256(samples.tobytes()).hexdigest(), 'count': len(samples),"
        "'texts': [r.text for r in recordings]}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(MEETING), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    digest: dict[str, object] = json.loads(done.stdout)
    return digest


def test_fresh_processes_make_the_same_bytes_as_those_on_disk() -> None:
    import hashlib

    first, second = (_digest_of_a_fresh_run(share_of(6), hash_seed) for hash_seed in ("1", "2"))
    assert first == second
    stored = np.load(make_data.ensure_data() / "samples.npy")
    count = first["count"]
    assert isinstance(count, int)
    assert hashlib.sha256(stored[:count].tobytes()).hexdigest() == first["sha256"]


def test_items_are_120_with_unique_keys_and_strata_that_take_turns() -> None:
    items = dataset.meetings()
    assert len(items) == len({item.key for item in items}) == 120
    conditions = [tuple(sorted(item.strata.items())) for item in items]
    assert set(Counter(conditions).values()) == {make_data.PER_STRATUM}
    assert len(set(conditions[:20])) == len(make_data.CONDITIONS) == 20
    assert len({item.truth for item in items}) == len(SENTENCES) >= 60
    assert all(2.0 < item.value.duration_s < 6.0 for item in items)
    assert sum(len(item.value.samples) * 2 for item in items) < 16e6


def test_meetings_come_back_equal() -> None:
    for first, second in zip(dataset.meetings(), dataset.meetings(), strict=True):
        assert np.array_equal(first.value.samples, second.value.samples)


def test_noise_is_as_loud_as_asked_for() -> None:
    rng = np.random.default_rng(1)
    silence = np.zeros(16_000)
    for make_noise in (acoustics.hiss, acoustics.fan):
        for snr_db in (0.0, 12.0):
            noisy = acoustics.add_noise(silence, make_noise(len(silence), rng), speech_power=0.01, snr_db=snr_db)
            assert 10 * np.log10(0.01 / acoustics.power(noisy)) == pytest.approx(snr_db, abs=1e-6)


def test_louder_strata_are_noisier() -> None:
    # Each item begins with at least 0.25 s of noise without speech.
    def floor(level: str) -> float:
        sounds = [i.value.as_float()[:4_000] for i in dataset.meetings() if i.strata["level"] == level]
        return float(np.mean([np.mean(sound**2) for sound in sounds]))

    floors = [floor(level) for level in ("clean", "30dB", "22dB", "16dB")]
    assert all(quieter * 2 < louder for quieter, louder in pairwise(floors))


def test_a_room_keeps_length_and_power_and_adds_a_tail() -> None:
    rng = np.random.default_rng(2)
    click = np.zeros(8_000)
    click[1_000] = 1.0
    heard = acoustics.reverberate(click, 0.2, rng)
    assert len(heard) == len(click)
    assert acoustics.power(heard) == pytest.approx(acoustics.power(click))
    assert np.all(np.abs(heard[:999]) < 1e-12)
    assert np.sum(heard[1_100:] ** 2) > 0.05 * np.sum(heard**2)


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(limit: int | None = None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(make_data, "make", fail)
    with pytest.raises(KeyboardInterrupt):
        make_data.write(tmp_path / "data" / "version")
    assert not list(tmp_path.rglob("*.npy"))
    assert not (tmp_path / "data" / "version").exists()


def test_failure_to_make_data_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_data, "data_folder", lambda: tmp_path / "missing")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="missing"):
        make_data.ensure_data()


def test_recorded_sentences_are_read_or_their_absence_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "LIBRIVOX", tmp_path)
    with pytest.raises(FileNotFoundError, match="pocketsphinx-testdata"):
        dataset.meetings(recorded=True)


@pytest.mark.skipif(not dataset.LIBRIVOX.exists(), reason="Debian's package pocketsphinx-testdata is not installed")
def test_recorded_sentences_are_added() -> None:
    recorded = dataset.meetings(recorded=True)[120:]
    assert len(recorded) == 5
    assert {item.strata["source"] for item in recorded} == {"librivox"}
    assert recorded[1].truth == "he was not an ill disposed young man"
    assert all(item.value.sample_rate_hz == 16_000 and item.value.duration_s > 2 for item in recorded)
