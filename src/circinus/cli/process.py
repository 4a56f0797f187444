"""Process of the command: its standard streams, and interruptions while no verb runs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def exit_on_interrupt() -> None:
    """Let Ctrl-C end the process at once, as it may come while modules are imported or the interpreter ends.

    Not where interrupts are ignored (a job in the background), or in a thread.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _set_handler(_exit)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt within the block, whose verb says in which state it leaves things."""
    if signal.getsignal(signal.SIGINT) is not _exit:
        yield
        return
    try:
        _set_handler(signal.default_int_handler)
        yield
    finally:
        _set_handler(_exit)


def _set_handler(handler: Callable[[int, FrameType | None], Any]) -> None:
    with suppress(ValueError):  # not the main thread, which receives no interrupts
        signal.signal(signal.SIGINT, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def is_interrupted_import(error: BaseException | None) -> bool:
    """Return whether an import failed because of Ctrl-C, which modules turn into errors of their own."""
    is_import = isinstance(error, ImportError | SystemError)
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return is_import and error is not None


def prepare_streams() -> None:
    """Open standard streams that the shell closed, and let all print any text.

    Python has None for a closed stream (`2>&-`). What an encoding cannot express, and bytes of file names that are no
    text, become question marks instead of an error.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  (open until the end)
        elif getattr(stream, "errors", None) in ("strict", "surrogateescape") and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
