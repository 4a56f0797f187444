from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from io import StringIO

import pytest
from rich.console import Console

from circinus.profiling import FailedConfiguration, ProfileProgress
from circinus.reporting.progress import LINE_EVERY_S, load_bar, profile_bar, progress_console
from circinus.serving.loadtest.load_test import LoadProgress
from circinus.specification import Configuration, KnobValues


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


def _log() -> tuple[Console, StringIO]:
    written = StringIO()
    return Console(file=written, width=40), written


def _profiled(done: int) -> ProfileProgress:
    seconds = {"elapsed_s": 1.0, "remaining_s": 35.0}
    return ProfileProgress("scores", None, done=done, total=400, **seconds, settled=done // 10, candidates=12)


def test_outside_a_terminal_a_line_is_printed_every_ten_seconds() -> None:
    clock = Clock()
    console, written = _log()
    with profile_bar(console, "mend", clock) as bar:
        for second in range(31):
            clock.now_s = 100.0 + second
            bar.progressed(_profiled(done=second))
    assert LINE_EVERY_S == 10.0
    assert written.getvalue().splitlines() == [
        "mend: scores: 10 of 400, 1 of 12 configurations settled, at most 35 s left",
        "mend: scores: 20 of 400, 2 of 12 configurations settled, at most 35 s left",
        "mend: scores: 30 of 400, 3 of 12 configurations settled, at most 35 s left",
    ]


def test_short_work_says_nothing() -> None:
    console, written = _log()
    clock = Clock()
    with load_bar(console, clock) as show:
        clock.now_s += 9.9
        show(LoadProgress(9.9, 20.0, sent=5, answered=4, failed=0, due=10))
    assert written.getvalue() == ""


def test_traffic_says_what_failed() -> None:
    console, written = _log()
    clock = Clock()
    with load_bar(console, clock) as show:
        clock.now_s += 12
        show(LoadProgress(12.0, 20.0, sent=5, answered=4, failed=1, due=10))
    assert written.getvalue() == "traffic: 4 of 10, 8 s left, 1 failed\n"


def test_a_failure_is_printed_at_once() -> None:
    console, written = _log()
    configuration = Configuration.of({"hear": KnobValues.of({"model": "tiny"})})
    with profile_bar(console, "mend", Clock()) as bar:
        bar.failed(FailedConfiguration(configuration, "i7", "the process was killed while it read a rather long item"))
    text = "excluded: hear(model=tiny) failed on item i7: the process was killed while it read a rather long item"
    assert " ".join(written.getvalue().split()) == text


def test_on_a_terminal_there_is_a_bar_and_no_line() -> None:
    written = StringIO()
    clock = Clock()
    console = Console(file=written, width=80, force_terminal=True)
    with profile_bar(console, "mend", clock) as bar:
        clock.now_s += 60
        bar.progressed(_profiled(done=10))
    assert "10 of 400" not in written.getvalue()
    assert "settled, at most 35 s left" in written.getvalue()


def test_bars_need_a_terminal_that_no_reader_of_a_pipe_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    controller, terminal = os.openpty()
    reader, pipe = os.pipe()
    with os.fdopen(terminal, "w") as on_terminal, os.fdopen(pipe, "w") as in_pipe:
        for error, output, is_terminal in (
            (on_terminal, on_terminal, True),
            (on_terminal, StringIO(), True),
            (on_terminal, in_pipe, False),
            (in_pipe, on_terminal, False),
            (on_terminal, None, True),
            (None, on_terminal, False),
        ):
            monkeypatch.setattr(sys, "stderr", error)
            monkeypatch.setattr(sys, "stdout", output)
            assert progress_console().is_terminal == is_terminal
    os.close(controller)
    os.close(reader)
