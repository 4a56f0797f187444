"""Process of user code as its client holds it: requests with a time limit, and reasons in words when it fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from circinus.operators.fork_server_client import ForkServerClient, ProcessExit
from circinus.operators.framing import BlockingFrames, Frame
from circinus.operators.host import Executor, ReplyType
from circinus.operators.process_output import open_output
from circinus.operators.registry import NotGuardedError

EXIT_TIMEOUT_S = 2.0
"""Time for a process to exit after its connection was closed, before it is killed."""


class OperatorProcessError(Exception):
    """Failure of user code: not loadable, an exception, or a crash of its process. The message is the reason only."""


class ExecutorProcess:
    """Process with an executor; the constructor waits until it was created."""

    def __init__(
        self,
        processes: ForkServerClient,
        *arguments: Any,
        name: str,
        cpus: float,
        timeout_s: float,
        output: Path | None,
        create: Callable[..., Executor] | None = None,
    ) -> None:
        """Start the process, and wait until it is ready.

        Args:
            processes: client of the fork server.
            arguments: picklable arguments of the executor.
            name: name of the file of its output.
            cpus: CPUs that numeric libraries are limited to.
            timeout_s: time limit of each reply.
            output: folder of its output; by default a temporary file.
            create: see `ForkServerClient.spawn`.

        Raises:
            OperatorProcessError: the process or its executor cannot be started.
            NotGuardedError: importing the code calls the workspace.
        """
        self._timeout_s = timeout_s
        try:
            file = open_output(output, name)
            self._process = processes.spawn(*arguments, cpus=cpus, output=file, create=create)
        except OSError as error:
            raise OperatorProcessError(f"its process cannot be started: {error}") from error
        self._frames = BlockingFrames(self._process.connection)
        try:
            (self._id, load_s), _ = self._receive()
        except BaseException:
            self.close()
            raise
        self.startup_s = time.monotonic() - self._process.requested_s
        """Seconds from the request for the process until it is ready."""
        self.load_s = max(0.0, min(load_s, self.startup_s))  # the process's clock may have been replaced
        """Seconds of `startup_s` to import the code and to create the executor."""

    @property
    def alive(self) -> bool:
        """True unless the end of the process has been noticed."""
        return self._process.exit is None

    @property
    def was_bystander(self) -> bool:
        """True if the process ended together with all others, so that its code cannot be the cause."""
        return self._process.exit is not None and not self._process.exit.is_isolated

    def request_exit(self) -> None:
        """Let the process end, without waiting for that."""
        self._process.connection.close()

    def close(self) -> None:
        """Stop the process and all that it started, and wait for its end. Idempotent."""
        self._end(EXIT_TIMEOUT_S)

    def _receive(self) -> Frame:
        """Return the reply to the first request without one, or to the request for the process."""
        if self._frames.has_received:
            frame = self._frames.receive()
        else:
            with self._ending_on_errors():
                frame = self._frames.receive()
        if frame is None:
            raise OperatorProcessError(self._exit_reason())
        (reply_type, content), outputs = frame
        if reply_type == ReplyType.FAILED:
            # An unguarded module concerns every configuration, so that it ends the measurement.
            raise content if isinstance(content, NotGuardedError) else OperatorProcessError(str(content))
        return content, outputs

    @contextmanager
    def _ending_on_errors(self) -> Iterator[None]:
        """Apply the time limit; end the process on errors and interrupts: a late reply would be taken for another."""
        try:
            self._process.connection.settimeout(self._timeout_s)
            yield
        except TimeoutError as error:
            self._end(0.0)
            raise OperatorProcessError(f"timed out after {self._timeout_s:g} s") from error
        except ConnectionError:
            raise
        except OSError as error:
            raise OperatorProcessError(self._exit_reason()) from error
        except BaseException:
            self._end(0.0)
            raise

    def _end(self, timeout_s: float) -> ProcessExit:
        self._process.connection.close()
        return self._process.wait(timeout_s)

    def _exit_reason(self) -> str:
        return f"its process {self._end(EXIT_TIMEOUT_S).description}"
