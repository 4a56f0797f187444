"""A desired state as a JSON document: what the background engine is sent and keeps."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from circinus.errors import ServingError
from circinus.serving.engine import DesiredState

SCHEMA_VERSION = 1

_ADAPTER = TypeAdapter(DesiredState)


def state_to_json(desired: DesiredState) -> str:
    """The document; `state_from_json` gives an equal state back."""
    document = {"schema_version": SCHEMA_VERSION, "state": _ADAPTER.dump_python(desired, mode="json")}
    return json.dumps(document, indent=1)


def state_from_json(text: str) -> DesiredState:
    """The state in a document.

    Raises:
        ServingError: it is damaged, or of another schema version.
    """
    try:
        document: Any = json.loads(text)
        version = document["schema_version"]
        if version != SCHEMA_VERSION:
            raise ServingError(f"found a desired state of schema version {version}, expected {SCHEMA_VERSION}")
        return _ADAPTER.validate_python(document["state"], strict=False)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise ServingError(f"cannot read the desired state: {error}") from error
