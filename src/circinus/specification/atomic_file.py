"""Files that are written as a whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from circinus.private_files import make_private_folder


def write_atomically(path: Path, text: str) -> None:
    """Write a file and create its folder for this user alone; an existing file stays until the new one is complete.

    A new file has the mode 0600, a replaced one keeps its mode. A link is replaced, not followed.

    Raises:
        OSError: the file cannot be written.
    """
    make_private_folder(path.parent)
    # A new file of a random name: another user of the folder could have placed a link at one that can be guessed.
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            with suppress(FileNotFoundError):
                replaced = path.lstat()
                if stat.S_ISREG(replaced.st_mode):
                    os.fchmod(descriptor, replaced.st_mode & 0o777)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.replace(unfinished, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished)
        raise
