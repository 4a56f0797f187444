"""Process at the other end of a Unix socket, as the kernel reports it."""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import NamedTuple

_SOL_LOCAL = 0
_LOCAL_PEERPID = 2
"""Option of macOS for the process, which Python does not name."""
_XUCRED = struct.Struct("@IIh16I")


class Peer(NamedTuple):
    """Process at the other end: one that connected, or the one that listens."""

    user: int | None
    """Effective user id; None where the system does not report it."""
    process: int | None
    """Process id; None where the system does not report it."""

    @classmethod
    def of(cls, connection: socket.socket) -> Peer:
        """Return the peer of a connected socket."""
        if sys.platform == "linux":
            size = struct.calcsize("3i")
            process, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
            return cls(user, process or None)
        option = getattr(socket, "LOCAL_PEERCRED", None)  # macOS, FreeBSD
        if option is None:
            return cls(None, None)
        _, user, *_ = _XUCRED.unpack_from(connection.getsockopt(_SOL_LOCAL, option, _XUCRED.size))
        process = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID) if sys.platform == "darwin" else None
        return cls(user, process)

    @property
    def is_foreign(self) -> bool:
        """Return whether the process runs as another user; where that is not reported, only modes of files protect."""
        return self.user not in (None, os.geteuid())
