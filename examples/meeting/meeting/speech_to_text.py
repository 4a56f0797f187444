"""Turning speech into text."""

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
"""Longer sound is cut into windows: Whisper hears 30 s at most."""
_WHISPER_MARGIN_FRAMES = 500
_FRAMES_PER_S = 100


class _Recognizer(Protocol):
    def recognize(self, window: Audio) -> str: ...


@operator
class SpeechToText:
    """Knobs `model` and, for Whisper, `beam` (hypotheses kept while decoding)."""

    def __init__(self, *, model: str, beam: int = 1, cpus: float = 1.0) -> None:
        """Raises ValueError for an unknown model, OperatorError when its files are missing or not as expected."""
        if model not in _MODELS:
            raise ValueError(f"model: found {model!r}, expected one of {', '.join(_MODELS)}")
        self._recognizer: _Recognizer
        if model in _WHISPER:
            self._recognizer = _Whisper(model, beam, threads=max(1, int(cpus)))
        else:
            self._recognizer = _PocketSphinx(fast=model.endswith("fast"))

    def process(self, audio: Sequence[Audio]) -> list[str]:
        """The text of each sound; empty where there is nothing to hear."""
        return [
            " ".join(filter(None, (self._recognizer.recognize(window) for window in _windows(one)))) for one in audio
        ]


class _PocketSphinx:
    """A recognizer of the classic kind: hidden Markov models and a trigram language model, on one CPU."""

    def __init__(self, fast: bool) -> None:
        import pocketsphinx

        folder = model_folder(POCKETSPHINX)
        # Fast: every other frame is scored, fewer paths live, and the first pass is the last.
        savings = {"ds": 2, "maxhmmpf": 3000, "maxwpf": 5, "topn": 2, "fwdflat": False, "bestpath": False}
        self._decoder = pocketsphinx.Decoder(
            hmm=str(folder / "en-us"),
            lm=str(folder / "en-us.lm.bin"),
            dict=str(folder / "cmudict-en-us.dict"),
            cmn="batch",  # else it adapts to what it heard before, and answers depend on the order of requests
            loglevel="FATAL",
            **(savings if fast else {}),
        )

    def recognize(self, window: Audio) -> str:
        self._decoder.start_utt()
        self._decoder.process_raw(window.samples.tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr if found else ""


class _Whisper:
    """A transformer that reads a spectrogram and writes text.

    Whisper was trained on windows of 30 s, and the usual front end pads every recording to that. Its encoder's time
    grows with the window, so we pad to 5 s beyond the sound: measured on this example's data that is four times as
    quick and as accurate; with 1 or 2 s the model falls into repeating itself.
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
            sampling_topk=1,  # nothing is drawn at random: the same sound gives the same text
            no_repeat_ngram_size=5,
            max_length=len(self._prompt) + 10 + int(8 * window.duration_s),  # nobody speaks faster
        )[0]
        return self._tokenizer.decode(result.sequences_ids[0]).strip()


def _padded(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Spectrogram (80, frames) with silence after it, to a whole even number of frames, at most 30 s."""
    frames = features.shape[1]
    wanted = min(frames + frames % 2 + _WHISPER_MARGIN_FRAMES, 30 * _FRAMES_PER_S)
    return np.pad(features, ((0, 0), (0, max(0, wanted - frames))))[:, :wanted]


def _windows(audio: Audio) -> list[Audio]:
    size = int(_WINDOW_S * audio.sample_rate_hz)
    windows = [audio.samples[start : start + size] for start in range(0, len(audio.samples), size)]
    shortest = _SHORTEST_S * audio.sample_rate_hz
    return [Audio(window, audio.sample_rate_hz) for window in windows if len(window) >= shortest]
