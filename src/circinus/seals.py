"""Seals: proof that this user's account wrote some bytes, so that code in them may run.

A seal is a keyed hash. The key belongs to the user, is created on first use, and never leaves the computer: bytes from
other users and computers have no valid seal.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import stat
import warnings
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from circinus.errors import CircinusError
from circinus.private_files import make_private_folder, open_private, require_private

SEAL_BYTES = 16
_KEY_BYTES = 32

Sealed = bytes | bytearray | memoryview

_open = partial(open_private, denied=stat.S_IRWXG | stat.S_IRWXO, area="seal")


def seal(purpose: str, data: Sealed) -> bytes:
    """Return the seal of `data`, or no bytes where no key can be kept, of which one warning tells.

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
    try:
        if path is None:
            raise CircinusError("this user has no home folder", code="seal.no_key", hint="Set HOME.")
        return _read_key(path)
    except CircinusError as error:
        also = " Or set" if error.hint else ". Set"
        warnings.warn(
            f"no key for seals ({error.code}): {error}{also} XDG_STATE_HOME to a folder that this user can write and "
            "others cannot. Without a key, your own plans and recorded outputs are treated like those of others.",
            stacklevel=2,
        )
        return None


def _read_key(path: Path) -> bytes:
    try:
        make_private_folder(path.parent)
        require_private(path.parent.stat(), path.parent, stat.S_IFDIR, area="seal")
        try:
            with open(_open(path, os.O_RDONLY), "rb") as file:
                key = file.read(_KEY_BYTES + 1)
        except FileNotFoundError:
            key = b""
        key = key or _created_key(path)
    except OSError as error:
        raise CircinusError(
            f"cannot read or create the key: {error.strerror}", code="seal.no_key", location=str(path)
        ) from error
    if len(key) != _KEY_BYTES:
        raise CircinusError(
            f"found {len(key)} bytes, expected {_KEY_BYTES}",
            code="seal.damaged",
            location=str(path),
            hint="Remove it; your own plans and outputs then need `--trust`.",
        )
    return key


def _created_key(path: Path) -> bytes:
    """Return the key of a file that is missing or empty, unless another process has created one meanwhile."""
    with open(_open(path, os.O_RDWR | os.O_CREAT), "r+b", buffering=0) as file:
        with suppress(OSError):  # some file systems have no locks: NFS without lockd, Lustre
            fcntl.flock(file, fcntl.LOCK_EX)
        if not file.read(1):
            file.write(secrets.token_bytes(_KEY_BYTES))
            os.fsync(file.fileno())
        file.seek(0)  # without a lock, another process may have written its own key meanwhile
        return file.read(_KEY_BYTES + 1)
