"""Bearer tokens of clients over HTTP (RFC 6750), by tenant; processes keep the hashes of tokens only."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from circinus.errors import ServingError
from circinus.serving.http_answers import HttpRefusalError

ENVIRONMENT_VARIABLE = "CIRCINUS_HTTP_TOKENS"
ALL_TENANTS = "*"
_MAX_FILE_BYTES = 2**20
_TENANT = re.compile(r"\*|[A-Za-z0-9][A-Za-z0-9_.-]*")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*")
"""Characters of a bearer token; shorter ones could be guessed."""
_HASH = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class HttpTokens:
    """Tokens of which each request needs one; without any, requests need none."""

    hashes: tuple[tuple[str, str], ...] = ()
    """(tenant, or `*` for all queries; SHA-256 of the token in hexadecimal)."""

    @classmethod
    def parse(cls, text: str, location: str) -> HttpTokens:
        """Return the tokens of lines `TENANT TOKEN`, or `TENANT sha256:HASH`; `#` begins a comment line.

        Args:
            text: the lines.
            location: file or variable, for errors, which never contain a token.

        Raises:
            ServingError: a line is malformed, or there is none.
        """
        hashes = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            tenant, _, token = line.strip().partition(" ")
            token = token.strip()
            hashed = _HASH.fullmatch(token)
            if not _TENANT.fullmatch(tenant) or not (hashed or _TOKEN.fullmatch(token)):
                raise ServingError(
                    "found another line, expected `TENANT TOKEN` or `* TOKEN` with a token of at least 16 letters, "
                    "digits and `-._~+/`",
                    code="http.invalid_tokens",
                    location=f"{location}:{number}",
                    hint="Make a token with `openssl rand -hex 32`.",
                )
            hashes.append((tenant, hashed[1] if hashed else _sha256(token)))
        if not hashes:
            raise ServingError(
                "there is no token",
                code="http.invalid_tokens",
                location=location,
                hint="Add a line `* TOKEN`, with a token of `openssl rand -hex 32`.",
            )
        return cls(tuple(hashes))

    @classmethod
    def read(cls, path: Path) -> HttpTokens:
        """Return the tokens of a file.

        Raises:
            ServingError: it cannot be read, other users may read it or own it, or a line is malformed.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a named pipe would block
            with open(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise OSError("it is no regular file")
                if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o077:
                    raise ServingError(
                        f"other users may read the tokens: found owner {status.st_uid} and mode "
                        f"{stat.S_IMODE(status.st_mode):04o}, expected owner {os.geteuid()} and mode 0600",
                        code="http.unsafe_tokens",
                        location=str(path),
                        hint="Run `chmod 600` on a file of your own, with new tokens.",
                    )
                text = file.read(_MAX_FILE_BYTES).decode("ascii")
        except (OSError, ValueError) as error:
            reason = "it is not in ASCII" if isinstance(error, UnicodeDecodeError) else error
            if isinstance(error, OSError) and error.strerror:
                reason = error.strerror
            raise ServingError(
                f"cannot read the tokens: {reason}",
                code="http.unreadable_tokens",
                location=str(path),
                hint="Name a file with lines `TENANT TOKEN`.",
            ) from None
        return cls.parse(text, str(path))

    @classmethod
    def given(cls, path: Path | None) -> HttpTokens | None:
        """Return the tokens of a file, or else of the environment variable `CIRCINUS_HTTP_TOKENS`; None: neither.

        Raises:
            ServingError: see `read` and `parse`.
        """
        if path is not None:
            return cls.read(path)
        text = os.environ.get(ENVIRONMENT_VARIABLE)
        return None if text is None else cls.parse(text, ENVIRONMENT_VARIABLE)

    def __bool__(self) -> bool:
        return bool(self.hashes)

    @property
    def text(self) -> str:
        """Lines `TENANT sha256:HASH`, which `parse` reads."""
        return "".join(f"{tenant} sha256:{digest}\n" for tenant, digest in self.hashes)

    def tenants(self, headers: Mapping[str, str]) -> frozenset[str]:
        """Return the tenants that the token of a request is for; without any tokens, every request is for all.

        Raises:
            HttpRefusalError: the request has no valid token.
        """
        if not self.hashes:
            return frozenset((ALL_TENANTS,))
        scheme, _, token = headers.get("authorization", "").partition(" ")
        digest = _sha256(token.strip()) if scheme.lower() == "bearer" else ""
        tenants = frozenset(tenant for tenant, valid in self.hashes if hmac.compare_digest(valid, digest))
        if not tenants:
            reason = "the request has no valid token. Send `authorization: Bearer TOKEN`."
            raise HttpRefusalError(401, reason, {"www-authenticate": "Bearer"})
        return tenants


def may_use(tenants: frozenset[str], owner: str) -> bool:
    """Return whether a token for some tenants is valid for queries of an owner, `""` for those without one."""
    return ALL_TENANTS in tenants or owner in tenants


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
