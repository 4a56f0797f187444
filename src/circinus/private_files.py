"""Files and folders of this user, which no other user can have placed or may change."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from circinus.errors import CircinusError

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a pipe",
}
_OF_NO_FILE = (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO)
"""Errors of opening a link (EMLINK on FreeBSD), a folder, or a pipe or socket without another end."""

_WRITING = stat.S_IWGRP | stat.S_IWOTH
_JOURNAL_END = bytes.fromhex("d9d505f920a163d7")
"""End of a rollback journal of SQLite that names a super-journal, as one of several attached databases does."""


def require_private(
    status: os.stat_result,
    path: Path,
    kind: int = stat.S_IFREG,
    *,
    denied: int | None = _WRITING,
    area: str = "file",
    error: Callable[..., CircinusError] = CircinusError,
) -> None:
    """Raise an error unless an entry belongs to this user, other users may not write to it, and it has one name.

    Args:
        status: status of the entry itself, not of the target of a link.
        path: location for the message.
        kind: expected kind, such as `stat.S_IFDIR`.
        denied: permissions that other users must not have; None: the entry may belong to them.
        area: area of the error's code.
        error: class of the error.

    Raises:
        CircinusError: with the code `AREA.foreign` if the entry belongs to another user, else with `AREA.unsafe`.
    """
    if denied is not None and status.st_uid != os.geteuid():
        raise error(
            f"it belongs to another user (id {status.st_uid}, expected {os.geteuid()}) and was not used",
            code=f"{area}.foreign",
            location=str(path),
            hint="Work in a folder of your own.",
        )
    if (found := stat.S_IFMT(status.st_mode)) != kind:
        problem = f"found {_KINDS.get(found, 'a special file')}, expected {_KINDS[kind]}"
        hint = "Remove it."
    elif kind == stat.S_IFREG and status.st_nlink > 1:
        problem = f"found a file with {status.st_nlink} names (hard links), expected one"
        # Without the key, all seals of this user are void.
        hint = f"Run `cp {path} {path}.copy && mv {path}.copy {path}`." if area == "seal" else "Remove it."
    elif denied is not None and status.st_mode & denied and kind != stat.S_IFLNK:
        verb, permission = ("write to", "w") if denied == _WRITING else ("access", "rwx")
        problem = f"other users may {verb} it (mode {stat.S_IMODE(status.st_mode):04o})"
        hint = f"Check what it contains, then run `chmod go-{permission} {path}`."
    else:
        return
    raise error(problem, code=f"{area}.unsafe", location=str(path), hint=hint)


def open_private(
    path: Path,
    flags: int,
    *,
    folder: int | None = None,
    denied: int | None = _WRITING,
    area: str = "file",
    error: Callable[..., CircinusError] = CircinusError,
) -> int:
    """Open a file of this user without following a link, and return its descriptor; new files have the mode 0600.

    Args:
        path: path of the file.
        flags: flags of `os.open`, without `O_TRUNC`: truncate what was opened, once it is known to be private.
        folder: descriptor of the file's folder, in which its name is looked up; by default `path` is followed.
        denied, area, error: see `require_private`.

    Raises:
        CircinusError: see `require_private`.
        OSError: the file cannot be opened.
    """
    name = path if folder is None else path.name
    # Opening a pipe would block without O_NONBLOCK, which has no effect on files.
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    except OSError as failure:
        if failure.errno in _OF_NO_FILE:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            require_private(status, path, denied=denied, area=area, error=error)
        raise
    try:
        require_private(os.fstat(descriptor), path, denied=denied, area=area, error=error)
    except CircinusError:
        os.close(descriptor)
        raise
    return descriptor


def require_plain_database(
    path: Path, *, area: str = "file", error: Callable[..., CircinusError] = CircinusError
) -> None:
    """Refuse a database of SQLite whose journals could block it, or let it change or remove other files.

    SQLite opens its journals before a statement can say otherwise. It waits for a pipe, writes to a hard link, and
    removes the file that a rollback journal names as its super-journal, which databases of this package never have.

    Args:
        path: database, which need not exist.
        area, error: see `require_private`.

    Raises:
        CircinusError: with the code `AREA.unsafe`.
        OSError: a journal cannot be read.
    """
    target = os.path.realpath(path)  # SQLite keeps journals beside the target of a link
    for suffix in ("-wal", "-shm"):  # not opened: closing would drop the locks of other connections of this process
        with suppress(FileNotFoundError):
            require_private(
                os.lstat(f"{target}{suffix}"), Path(f"{target}{suffix}"), denied=None, area=area, error=error
            )
    journal = Path(f"{target}-journal")
    end = b""
    with (
        suppress(FileNotFoundError),
        open(open_private(journal, os.O_RDONLY, denied=None, area=area, error=error), "rb") as file,
    ):
        file.seek(max(os.fstat(file.fileno()).st_size - len(_JOURNAL_END), 0))
        end = file.read()
    if end == _JOURNAL_END:
        raise error(
            "found a journal that names another file, which SQLite would remove",
            code=f"{area}.unsafe",
            location=str(journal),
            hint="Remove it.",
        )


def make_private_folder(path: Path) -> None:
    """Create a folder and its missing parents with the mode 0700; an existing folder is left alone.

    Raises:
        OSError: a folder cannot be created.
    """
    if not path.is_dir():
        make_private_folder(path.parent)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
