"""Published speech measurements as a trace: complete, consistent and measurable."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from benchmarks.workloads.published.speech import SpeechTrace, TracesAbsentError, read_speech_trace, traces_folder

from circinus.profiling import SimulatedClock, TraceBackend, profile_pipeline


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return traces_folder()
    except TracesAbsentError as absent:
        pytest.skip(str(absent))


@pytest.fixture(scope="module")
def speech(folder: Path) -> SpeechTrace:
    pytest.importorskip("pyarrow", reason="the published scores are in a Parquet file")
    return read_speech_trace(folder)


def test_where_they_are_absent_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCINUS_TRACES", str(tmp_path))
    with pytest.raises(TracesAbsentError, match="set CIRCINUS_TRACES to the folder"):
        traces_folder()


def test_it_has_everything_that_was_published(speech: SpeechTrace) -> None:
    trace = speech.trace
    trace.check(speech.pipeline)
    assert trace.scores.shape == (125, 6400)
    assert trace.scores.min() == 0.0
    assert trace.scores.max() == 1.0
    assert np.isfinite(trace.scores).all()
    assert trace.service_s.shape == (5 + 25 + 125 + 125, 6400)
    assert speech.pipeline.metric.direction == "minimize"
    assert len({tuple(sorted(strata.items())) for strata in trace.strata}) == 4 * 4 * 2


def test_seconds_and_scores_agree_with_the_published_means(folder: Path, speech: SpeechTrace) -> None:
    with (folder / "speech-voices" / "configs.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["config"]: row for row in csv.DictReader(file)}
    trace = speech.trace
    published, found = [], []
    for index, configuration in enumerate(trace.configurations):
        values = {knob: value for name in configuration for knob, value in configuration[name].as_dict().items()}
        row = rows[f"{values['audio_sample_rate']}-{values['frequency_mask_width']}-{values['model']}"]
        decoder_s = trace.service_s[trace.rows[index, 3], 0]
        assert decoder_s == float(row["decoder_compute_latency_s"])  # its prefix is one configuration's alone
        published.append(float(row["wer_first_300"]))
        found.append(trace.scores[index].mean())
    assert np.corrcoef(published, found)[0, 1] > 0.99


def test_the_mask_width_changes_no_score(speech: SpeechTrace, folder: Path) -> None:
    assert len({scores.tobytes() for scores in speech.trace.scores}) == 25
    narrow = read_speech_trace(folder, mask_widths=[500])
    assert narrow.trace.scores.shape == (25, 6400)
    assert {s.tobytes() for s in narrow.trace.scores} == {s.tobytes() for s in speech.trace.scores}


def test_profiling_spends_published_seconds(speech: SpeechTrace, folder: Path, tmp_path: Path) -> None:
    narrow = read_speech_trace(folder, mask_widths=[500], held_out=0.2)
    clock = SimulatedClock()
    profile = profile_pipeline(
        narrow.specification(),
        "speech",
        tmp_path / "store",
        budget_s=60.0,
        source=TraceBackend(narrow.trace, clock),
    )
    assert 30.0 < clock() < 70.0
    assert profile.profiled_s == pytest.approx(clock())
    assert len(profile.configurations) == 25
    assert profile.held_out_items == 1280
