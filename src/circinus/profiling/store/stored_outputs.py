"""Recorded outputs in the store: checked where they leave it, because unpickling them may run code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circinus.arrays import IntArray
from circinus.errors import ProfileError
from circinus.operators.plain_payloads import UnsafePayloadError, plain_payload
from circinus.profiling.store.profile_store import ProfileStore, as_json
from circinus.seals import is_sealed, key_file, seal

_PURPOSE = "output"
_BATCH = 100


def write_outputs(store: ProfileStore, subject: int, items: Sequence[int], payloads: Sequence[bytes]) -> None:
    """Write an operator's pickled outputs on (n,) items, with seals. Call it inside a transaction.

    Outputs that this user recorded before are retained; all are without a key, which alone tells whose they are.
    """
    stored = store.rows(
        "SELECT item, packed, seal FROM output WHERE subject = ? AND item IN (SELECT value FROM json_each(?))",
        subject,
        as_json([*items]),
    )
    has_key = bool(seal(_PURPOSE, b""))
    retained = {
        item for item, data, found in stored if not has_key or is_sealed(_PURPOSE, _payload(store, data), found)
    }
    store.write(
        "INSERT OR REPLACE INTO output VALUES (?, ?, ?, ?)",
        [
            (subject, item, data, seal(_PURPOSE, data))
            for item, data in zip(items, payloads, strict=True)
            if item not in retained
        ],
    )


def read_outputs(store: ProfileStore, content_hash: str, item_ids: IntArray) -> Mapping[int, bytes]:
    """Return pickled outputs by index of the item.

    Raises:
        ProfileError: an output has other types than data, and no seal of this user.
    """
    index = {int(item_id): i for i, item_id in enumerate(item_ids)}
    rows = store.rows(
        "SELECT item, packed, seal FROM address JOIN output ON subject = id WHERE address = ?", content_hash
    )
    return {index[item]: _checked(store, *row) for item, *row in rows if item in index}


def trust_outputs(path: Path) -> None:
    """Seal all outputs of a store as if this user had recorded them; without a store there are none.

    Raises:
        ProfileError: this user has no key, or the store is no profile store or cannot be written.
    """
    if not path.exists():
        return
    if not seal(_PURPOSE, b""):
        raise ProfileError(
            "this user has no key to seal recorded outputs with",
            code="store.no_key",
            location=str(key_file() or "home folder"),
            hint="Set XDG_STATE_HOME to a folder that this user can write and others cannot.",
        )
    with ProfileStore(path) as store, store.transaction():
        last = -(2**63)
        while rows := store.rows(
            "SELECT rowid, packed FROM output WHERE rowid > ? ORDER BY rowid LIMIT ?", last, _BATCH
        ):
            store.write(
                "UPDATE output SET seal = ? WHERE rowid = ?",
                [(seal(_PURPOSE, _payload(store, data)), row) for row, data in rows],
            )
            last = rows[-1][0]


def _checked(store: ProfileStore, data: Any, found: Any) -> bytes:
    payload = _payload(store, data)
    if not payload or is_sealed(_PURPOSE, payload, found):
        return payload
    try:
        return plain_payload(payload)
    except UnsafePayloadError as error:
        raise ProfileError(
            f"a recorded output has {error}: reading it may run code, and no seal shows that this user recorded it",
            code="store.untrusted_values",
            location=str(store.path),
            hint="Profile into a new store, or add --trust if you trust where this one comes from.",
        ) from error


def _payload(store: ProfileStore, data: Any) -> bytes:
    if not isinstance(data, bytes):
        raise store.damaged(f"found a recorded output of type {type(data).__name__}, expected bytes")
    return data
