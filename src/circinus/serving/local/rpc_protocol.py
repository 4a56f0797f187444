"""What a client and the background engine say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple


class RpcMethod(StrEnum):
    """What is asked for."""

    APPLY = "apply"
    """Argument: the desired state as JSON."""
    SUBMIT = "submit"
    """Argument: `Submission`; payload: the packed input. Content: `Answer`; payloads: the packed outputs."""
    STATUS = "status"
    """Content: `EngineStatus`."""
    AUDITS = "audits"
    """Content: `Audits`."""
    MODULE_PATHS = "module_paths"
    """Content: the folders that the modules of the operators are in, as of the last state applied."""
    CANCEL = "cancel"
    """Argument: number of the call that nobody waits for any more. Not answered."""
    CLOSE = "close"
    """Answered by the end of the connection, with the process."""


class RpcRequest(NamedTuple):
    """From a client."""

    number: int
    """Names the call within its connection; the reply carries it."""
    verb: RpcMethod
    argument: Any


class RpcReply(NamedTuple):
    """To a client."""

    number: int
    error: str
    """Empty where it went well."""
    content: Any


@dataclass(frozen=True)
class SubmitHeader:
    """One request, without its value."""

    query: str
    item_key: str
    input_bytes: float


@dataclass(frozen=True)
class ResponseHeader:
    """One response, without its outputs."""

    sinks: tuple[str, ...]
    """In the order of the payloads."""
    latency_s: float
    stage_s: Mapping[str, float]
    busy_s: Mapping[str, float]
    link_bytes: Mapping[str, float]
