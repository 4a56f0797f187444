"""The background engine's side of one client."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from circinus.errors import CircinusError
from circinus.serving.local.connection import Connection
from circinus.serving.local.dialogue import RpcMethod, RpcReply, RpcRequest
from circinus.serving.replicas.messages import Payload

_log = logging.getLogger(__name__)

Handler = Callable[[RpcRequest, list[memoryview]], Awaitable[tuple[Any, Sequence[Payload]]]]
"""Carries out a call; returns content and payloads of the reply."""


class ClientSession:
    """Runs the calls of one client side by side, and cancels them when it is gone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        accepted: socket.socket,
        handler: Handler,
        on_over: Callable[[ClientSession], None],
    ) -> None:
        self._loop = loop
        self._handler = handler
        self._on_over = on_over
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._connection = Connection(loop, accepted, self._called, self._lost)

    async def finish(self) -> None:
        """Wait until all calls have been answered."""
        await asyncio.gather(*self._calls.values(), return_exceptions=True)

    def _called(self, call: RpcRequest, payloads: list[memoryview]) -> None:
        if call.verb is RpcMethod.CANCEL:
            if call.argument in self._calls:
                self._calls[call.argument].cancel()
            return
        task = self._loop.create_task(self._answer(call, payloads))
        self._calls[call.number] = task
        task.add_done_callback(lambda _: self._calls.pop(call.number))

    async def _answer(self, call: RpcRequest, payloads: list[memoryview]) -> None:
        try:
            content, outputs = await self._handler(call, payloads)
        except CircinusError as error:
            self._connection.send(RpcReply(call.number, str(error), None))
        except Exception as error:  # a fault of the engine must not leave the client without a reply
            _log.exception("%s failed", call.verb)
            self._connection.send(
                RpcReply(call.number, f"the engine failed with {type(error).__name__}: {error}", None)
            )
        else:
            self._connection.send(RpcReply(call.number, "", content), outputs)

    def _lost(self) -> None:
        for task in self._calls.values():
            task.cancel()
        self._on_over(self)
