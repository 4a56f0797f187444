"""Bodies of HTTP requests: bounded in size, time and sum, and decoded by their content type."""

from __future__ import annotations

import asyncio
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic_core import from_json

from circinus.serving.http_answers import HttpRefusalError, retry_header
from circinus.serving.settings import SERVING

_MAX_DIGITS = 18
"""Maximum length of a size in decimal; Python refuses to parse very long numbers."""
_CLOSING = {"connection": "close"}


class RequestBodies:
    """Bodies that arrive or are decoded, whose sum is bounded so that clients cannot use up the memory."""

    def __init__(self) -> None:
        self.total_bytes = 0

    @asynccontextmanager
    async def read(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield a body, which counts in the sum until the context ends.

        Args:
            chunks: parts of the body as they arrive.

        Raises:
            HttpRefusalError: the body is too large (413), does not arrive in time (408), or the sum is used up (503).
        """
        body, size_bytes = bytearray(), 0
        try:
            try:
                async with asyncio.timeout(SERVING.http_body_timeout_s):
                    async for chunk in chunks:
                        _require_size(size_bytes + len(chunk))
                        self._require_room(len(chunk))
                        self.total_bytes += len(chunk)
                        size_bytes += len(chunk)
                        body += chunk
            except TimeoutError:
                raise HttpRefusalError(408, "the body of the request did not arrive in time") from None
            contents = [bytes(body)]
            body.clear()
            yield contents.pop()  # the caller alone holds it
        finally:
            self.total_bytes -= size_bytes

    def _require_room(self, chunk_bytes: int) -> None:
        if self.total_bytes + chunk_bytes > SERVING.max_waiting_bytes:
            limit = f"{SERVING.max_waiting_bytes / 2**20:g} MiB"
            reason = f"the bodies of all requests are larger than {limit}. Send again later."
            raise HttpRefusalError(503, reason, retry_header())


def declared_bytes(headers: Mapping[str, str]) -> int:
    """Return the size of a body by its head; 0 if it is unknown.

    Raises:
        HttpRefusalError: it is too large (413).
    """
    declared = headers.get("content-length", "")
    if not declared.isdecimal():
        return 0
    size_bytes = 10**_MAX_DIGITS if len(declared) > _MAX_DIGITS else int(declared)
    _require_size(size_bytes)
    return size_bytes


def _require_size(body_bytes: int) -> None:
    if body_bytes > SERVING.http_body_bytes:
        raise HttpRefusalError(413, f"the body is larger than {SERVING.http_body_bytes / 2**20:g} MiB")


def media_type(headers: Mapping[str, str]) -> str:
    """Return the media type of a body, JSON by default.

    Raises:
        HttpRefusalError: it is not supported.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower() or "application/json"
    supported = ("application/json", "text/plain", "application/octet-stream")
    if kind not in supported and kind.partition("/")[0] not in ("audio", "image", "video"):
        reason = f"content type {kind} is not supported. Send {', '.join(supported)}, or an audio, image or video type."
        raise HttpRefusalError(400, reason)
    return kind


def decode_body(kind: str, body: bytes) -> Any:
    """Return the value of a body of a media type: parsed JSON, a text, or bytes.

    Raises:
        HttpRefusalError: the body is not what its type says, or has too many values. Its connection ends, as the next
            body may be malformed, too.
    """
    if kind == "application/json":
        if sum(map(body.count, (b",", b"[", b"{"))) > SERVING.http_json_values:
            reason = f"the body may have more than {SERVING.http_json_values} values. Send many numbers as bytes."
            raise HttpRefusalError(413, reason, _CLOSING)
        try:
            return from_json(body.removeprefix(BOM_UTF8), allow_inf_nan=False)
        except ValueError as error:
            reason = f"the body is not JSON: {error}. Send JSON, or another content type."
            raise HttpRefusalError(400, reason, _CLOSING) from error
    if kind == "text/plain":
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            reason = f"the body is not text in UTF-8: {error}. Send another content type."
            raise HttpRefusalError(400, reason, _CLOSING) from error
    return body
