"""Seals: proof that this user's account wrote some bytes, so that code in them may run.

A seal is a keyed hash. The key belongs to the user, is created on first use, and never leaves the computer: bytes from
other users and computers have no valid seal.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from functools import cache
from pathlib import Path

SEAL_BYTES = 16
_KEY_BYTES = 32

Sealed = bytes | bytearray | memoryview


def seal(purpose: str, data: Sealed) -> bytes:
    """Return the seal of `data`, or no bytes where no key can be kept.

    Args:
        purpose: kind of data, such as `output`; a seal is valid for this one alone.
        data: bytes that this user's account wrote.

    Example:
        >>> is_sealed("output", b"some bytes", seal("output", b"some bytes"))
        True
        >>> is_sealed("output", b"other bytes", seal("output", b"some bytes"))
        False
    """
    key = _key(key_file())
    return b"" if key is None else _keyed_hash(key, purpose, data)


def is_sealed(purpose: str, data: Sealed, found: bytes | None) -> bool:
    """Return whether `found` is the seal of `data` for this purpose by this user."""
    key = _key(key_file())
    return key is not None and isinstance(found, bytes) and hmac.compare_digest(_keyed_hash(key, purpose, data), found)


def key_file() -> Path | None:
    """Return the file of this user's key, or None if the user has no home folder."""
    folder = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not folder.is_absolute():  # the XDG base directory specification has relative paths ignored
        try:
            folder = Path.home() / ".local" / "state"
        except RuntimeError:
            return None
    return folder / "circinus" / "key"


def _keyed_hash(key: bytes, purpose: str, data: Sealed) -> bytes:
    digest = hashlib.blake2b(purpose.encode() + b"\0", key=key, digest_size=SEAL_BYTES)
    digest.update(data)
    return digest.digest()


@cache
def _key(path: Path | None) -> bytes | None:
    """Return the key in a file, which is created if it is missing, or None if it cannot be or others may have it."""
    if path is None:
        return None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(path.parent.stat(), writable_only=True):
            return None
        if not os.path.lexists(path):
            _create_key(path)
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not (stat.S_ISREG(status.st_mode) and _is_private(status)):
                return None
            key = file.read(_KEY_BYTES + 1)
    except OSError:
        return None
    return key if len(key) == _KEY_BYTES else None


def _create_key(path: Path) -> None:
    """Create a key whole, unless another process has created it meanwhile."""
    draft = path.with_name(f"key-{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(descriptor)
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _is_private(status: os.stat_result, *, writable_only: bool = False) -> bool:
    """Return whether a file belongs to this user, and others cannot access it, or write it."""
    if not hasattr(os, "geteuid"):  # Windows: a home folder is closed to others
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & (0o022 if writable_only else 0o077)
