"""Output of operators' processes: bounded files, and their last lines for error messages."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import sys
import tempfile
import traceback
from contextlib import AbstractContextManager, redirect_stdout, suppress
from pathlib import Path
from typing import IO

from circinus.private_files import make_private_folder, open_private, require_private

_LIMIT_BYTES = 2**20
"""Size above which a file is cut to its last half, between batches."""
_EXCERPT_BYTES = 4096
_EXCERPT_LINES = 3
_MAX_LINE_LENGTH = 120
_EXCERPT_START = "; last output: "

_output: int | None = None
"""Descriptor of the file that the output of this process goes to: its own one, as operators may redirect 1 and 2."""
_start = 0
"""Size of that file before the current call of the operator."""


def output_folder(owner: Path) -> Path:
    """Return the folder of the output of operators, beside their profile store or run directory."""
    return owner.with_name(f"{owner.stem}-output")


def open_output(folder: Path | None, uses: str) -> IO[bytes]:
    """Open a file for the output of a process of an operator; without a folder, a temporary file.

    The file is locked until the process has ended, and then serves the next one: `NAME.log`, `NAME.2.log` and so on, as
    many as there are processes at once. What a process has written is therefore behind the size that it found.

    Raises:
        OSError: the file cannot be written or locked.
        CircinusError: another user may have placed the folder or the file (`output.foreign`, `output.unsafe`).
    """
    if folder is None:
        return tempfile.TemporaryFile(buffering=0)
    make_private_folder(folder)
    require_private(folder.lstat(), folder, stat.S_IFDIR, area="output")
    name = re.sub(r"[^\w.-]+", ".", uses)
    number = 1
    while True:
        path = folder / (f"{name}.log" if number == 1 else f"{name}.{number}.log")
        descriptor = open_private(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, area="output")
        file = os.fdopen(descriptor, "r+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # on the open file, which the process inherits
            # Once the process has exceeded the limit, all that is left is its own.
            _cut(file.fileno(), _LIMIT_BYTES // 2)
        except BlockingIOError:
            file.close()
            number += 1
        except BaseException:
            file.close()
            raise
        else:
            return file


def excerpt(descriptor: int, start: int = 0) -> str:
    """Return `; last output: LINE | LINE` from the last lines of a file behind an offset, or "" if there are none."""
    try:
        size = os.fstat(descriptor).st_size
        begin = max(start if start <= size else 0, size - _EXCERPT_BYTES)  # beyond the size, the file has been cut
        text = os.pread(descriptor, size - begin, begin).decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in (" ".join(line.split()) for line in text.splitlines()) if line.isprintable() and line]
    shown = [line if len(line) <= _MAX_LINE_LENGTH else f"{line[:_MAX_LINE_LENGTH]}…" for line in lines]
    return f"{_EXCERPT_START}{' | '.join(shown[-_EXCERPT_LINES:])}" if shown else ""


def without_excerpt(reason: str) -> str:
    """Return the part of a reason before its `excerpt`."""
    return reason.partition(_EXCERPT_START)[0]


def keep_output(descriptor: int) -> None:
    """Send the output of this process, and of processes that it starts, to a file, and keep the file bounded."""
    global _output
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)  # cut files shrink
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        os.dup2(descriptor, number)
        getattr(stream, "reconfigure", lambda **_: None)(line_buffering=True)
    _output = os.dup(descriptor)


def begin_call() -> None:
    """Note that the operator is about to be called, and cut the file if it is too large."""
    global _start
    if _output is None:
        return
    with suppress(OSError):
        _cut(_output, _LIMIT_BYTES)
        _start = os.fstat(_output).st_size


def call_excerpt() -> str:
    """Return the `excerpt` of what this process has written since `begin_call`."""
    if _output is None:
        return ""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the operator may have closed it
            stream.flush()
    return excerpt(_output, _start)


def stdout_to_stderr() -> AbstractContextManager[object]:
    """Send what user code prints within a command to the standard error: the standard output is the command's result.

    Output of native code and of other processes is not redirected.
    """
    return redirect_stdout(sys.stderr)


def print_exception() -> None:
    """Print the traceback of the handled exception, unless the operator has closed the standard error."""
    with suppress(Exception):
        traceback.print_exc()


def _cut(descriptor: int, limit_bytes: int) -> None:
    size = os.fstat(descriptor).st_size
    if size > limit_bytes:
        tail = os.pread(descriptor, _LIMIT_BYTES // 2, size - _LIMIT_BYTES // 2)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, tail)
