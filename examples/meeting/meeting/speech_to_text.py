"""Operator that transcribes speech."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from circinus.operators import operator
from meeting.audio import Audio
from meeting.model_files import model_folder
from meeting.models import POCKETSPHINX, WHISPER_BASE, WHISPER_TINY

_WHISPER = {"whisper-tiny": WHISPER_TINY, "whisper-base": WHISPER_BASE}
_MODELS = ("pocketsphinx-fast", "pocketsphinx-full", *_WHISPER)
_SHORTEST_S = 0.1
_WINDOW_S = 25.0
"""Maximum length of a window. Longer recordings are split, because Whisper accepts at most 30 s."""
_WHISPER_MARGIN_FRAMES = 500
_FRAMES_PER_S = 100


class _Recognizer(Protocol):
    def recognize(self, window: Audio) -> str: ...


@operator
class SpeechToText:
    """Speech recognition. Knobs: `model` and, for Whisper, `beam` (beam width of the decoder)."""

    def __init__(self, *, model: str, beam: int = 1, cpus: float = 1.0) -> None:
        """Load the model; raise ValueError if it is unknown, OperatorError for missing or changed model files."""
        if model not in _MODELS:
            raise ValueError(f"model must be one of {', '.join(_MODELS)}, got {model!r}")
        self._recognizer: _Recognizer
        if model in _WHISPER:
            self._recognizer = _Whisper(model, beam, threads=max(1, int(cpus)))
        else:
            self._recognizer = _PocketSphinx(fast=model.endswith("fast"))

    def process(self, audio: Sequence[Audio]) -> list[str]:
        """Return the text of each recording, or an empty string if no speech is recognized."""
        return [
            " ".join(filter(None, (self._recognizer.recognize(window) for window in _windows(recording))))
            for recording in audio
        ]


class _PocketSphinx:
    """Classic recognizer with hidden Markov models and a trigram language model, on one CPU."""

    def __init__(self, fast: bool) -> None:
        import pocketsphinx

        folder = model_folder(POCKETSPHINX)
        # The fast variant scores every other frame, keeps fewer paths, and skips the second and third pass.
        savings = {"ds": 2, "maxhmmpf": 3000, "maxwpf": 5, "topn": 2, "fwdflat": False, "bestpath": False}
        self._decoder = pocketsphinx.Decoder(
            hmm=str(folder / "en-us"),
            lm=str(folder / "en-us.lm.bin"),
            dict=str(folder / "cmudict-en-us.dict"),
            cmn="batch",  # otherwise the decoder adapts, and results depend on the order of requests
            loglevel="FATAL",
            **(savings if fast else {}),
        )

    def recognize(self, window: Audio) -> str:
        self._decoder.start_utt()
        self._decoder.process_raw(window.samples.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""


class _Whisper:
    """Transformer that converts a spectrogram to text.

    Whisper was trained on windows of 30 s, and its usual front end pads every recording to 30 s. Encoding time grows
    with the window, so this class appends only 5 s of silence: four times as fast and equally accurate on the data of
    this example. With 1 or 2 s of padding the model starts to repeat itself.
    """

    def __init__(self, model: str, beam: int, threads: int) -> None:
        from faster_whisper import WhisperModel
        from faster_whisper.tokenizer import Tokenizer

        self._whisper = WhisperModel(
            str(model_folder(_WHISPER[model])),
            device="cpu",
            compute_type="int8",
            cpu_threads=threads,
            local_files_only=True,
        )
        self._tokenizer = Tokenizer(
            self._whisper.hf_tokenizer, self._whisper.model.is_multilingual, task="transcribe", language="en"
        )
        self._prompt = [*self._tokenizer.sot_sequence, self._tokenizer.no_timestamps]
        self._beam = beam

    def recognize(self, window: Audio) -> str:
        encoded = self._whisper.encode(_padded(self._whisper.feature_extractor(window.as_float())))
        result = self._whisper.model.generate(
            encoded,
            [self._prompt],
            beam_size=self._beam,
            sampling_topk=1,  # no random sampling: results are deterministic
            no_repeat_ngram_size=5,
            max_length=len(self._prompt) + 10 + int(8 * window.duration_s),  # faster than any speaker
        )[0]
        return self._tokenizer.decode(result.sequences_ids[0]).strip()


def _padded(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a spectrogram (80, frames) with silence appended, to an even number of frames and at most 30 s."""
    frames = features.shape[1]
    target = min(frames + frames % 2 + _WHISPER_MARGIN_FRAMES, 30 * _FRAMES_PER_S)
    return np.pad(features, ((0, 0), (0, max(0, target - frames))))[:, :target]


def _windows(audio: Audio) -> list[Audio]:
    size = int(_WINDOW_S * audio.sample_rate_hz)
    windows = [audio.samples[start : start + size] for start in range(0, len(audio.samples), size)]
    shortest = _SHORTEST_S * audio.sample_rate_hz
    return [Audio(window, audio.sample_rate_hz) for window in windows if len(window) >= shortest]
