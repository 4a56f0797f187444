"""Messages between a client and the background engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple


class RpcMethod(StrEnum):
    """Operation of the engine."""

    APPLY = "apply"
    """Argument: the desired state as JSON."""
    SUBMIT = "submit"
    """Argument: `Submission`; payload: the packed input. Content: `Answer`; payloads: the packed outputs."""
    STATUS = "status"
    """Content: `EngineStatus`."""
    AUDITS = "audits"
    """Content: `Audits`."""
    MODULE_PATHS = "module_paths"
    """Content: folders of the operators' modules, according to the last state applied."""
    CANCEL = "cancel"
    """Argument: number of an abandoned call. Not answered."""
    CLOSE = "close"
    """Answered by the end of the connection, with the process."""


class RpcRequest(NamedTuple):
    """Message from a client."""

    number: int
    """Number of the call within its connection; the reply carries it."""
    verb: RpcMethod
    argument: Any


class RpcReply(NamedTuple):
    """Message to a client."""

    number: int
    error: str
    """Message of the error; empty after success."""
    content: Any
    code: str = ""
    location: str = ""
    hint: str = ""


@dataclass(frozen=True)
class SubmitHeader:
    """Request without its value."""

    query: str
    item_key: str
    input_bytes: float


@dataclass(frozen=True)
class ResponseHeader:
    """Response without its outputs."""

    sinks: tuple[str, ...]
    """In the order of the payloads."""
    latency_s: float
    stage_s: Mapping[str, float]
    busy_s: Mapping[str, float]
    link_bytes: Mapping[str, float]
