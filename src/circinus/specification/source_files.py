"""Reading of files that users name: regular files of a bounded size, and nothing that blocks or never ends."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from circinus.specification.diagnostics import did_you_mean

_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_PART_BYTES = 2**20


class UnusableFileError(OSError):
    """File that is no regular file, or too large; the text says what it is."""


def require_regular(path: Path, max_bytes: int) -> None:
    """Check that a path leads to a regular file of at most `max_bytes`, before it is opened.

    Raises:
        UnusableFileError: it does not; a pipe would block, and some devices never end.
        OSError: it cannot be accessed.
    """
    try:
        status = os.stat(path)
    except ValueError:  # a NUL in the path
        raise UnusableFileError(errno.EINVAL, "a path with a NUL character") from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise UnusableFileError(errno.EINVAL, _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file"))
    if status.st_size > max_bytes:
        size, largest = (f"{size / 2**20:,.0f} MiB" for size in (status.st_size, max_bytes))
        raise UnusableFileError(errno.EFBIG, f"a file of {size}, more than {largest}")


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file of at most `max_bytes`, and never wait for another process.

    Raises:
        UnusableFileError: see `require_regular`.
        OSError: it cannot be read.
    """
    require_regular(path, max_bytes)
    # Not blocking, in case a pipe has taken the place of the file. Files of /proc have no size.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        parts, left = list[bytes](), max_bytes + 1
        while part := file.read(min(left, _PART_BYTES)):  # reads allocate as much as they ask for
            parts.append(part)
            left -= len(part)
    if not left:
        raise UnusableFileError(errno.EFBIG, f"a file of more than {max_bytes / 2**20:,.0f} MiB")
    return b"".join(parts)


def similar_sibling(path: Path) -> str:
    """Return a hint with the file beside a missing one that has a similar name, or ""."""
    try:
        return did_you_mean(path.name, os.listdir(path.parent))
    except (OSError, ValueError):
        return ""
