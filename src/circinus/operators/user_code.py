"""Code of a specification as commands use it: imported, described and called in a process of its own.

Whatever a data set or a metric does, the command goes on: exits and crashes end the other process, output goes to its
file, and a time limit ends what hangs. The process stays for later calls; it is replaced when its modules are edited.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from select import select
from threading import RLock
from typing import Any, NamedTuple

from circinus.errors import CircinusError, OperatorError
from circinus.operators.code_host import (
    EDITED,
    CallMismatch,
    CodeDescription,
    CodeHost,
    CodeRequest,
    ItemEntry,
    OperatorSignature,
    ScoreFailure,
)
from circinus.operators.executor_process import ExecutorProcess, OperatorProcessError
from circinus.operators.fork_server_client import ForkServerClient
from circinus.operators.host import OperatorHost, ProcessState
from circinus.operators.pickling import Payload, pack_list, unpack_list
from circinus.operators.registry import not_decorated, search_first

IMPORT_TIMEOUT_S = 60.0
"""Time limit of importing code."""
TIMEOUT_S = 600.0
"""Default time limit of building a data set, and of scoring an item."""
_OUTPUT = "metrics-and-data-sets"
"""Name of the file of their output."""
_MAX_CODES = 2
"""Maximum number of processes, of different folders; the least recently used is closed."""
_MAX_BATCH, _BATCH_S = 1024, 0.05
"""Maximum number of items that are scored at once, and about how long that takes. An exchange takes 0.1 ms."""
_MAX_CRASHES = 3
"""Number of items that may end the process in one call, before the rest is not tried."""


class BuiltItem(NamedTuple):
    """Item of a data set, with its serialized value and ground truth."""

    entry: ItemEntry
    value: bytes
    truth: bytes


class UserCode:
    """Modules of some folders, in a process that starts when it is needed, and again after a failure."""

    def __init__(self, module_paths: Sequence[Path]) -> None:
        self.output: Path | None = None
        """Folder of the output of processes that are started from now on; None for temporary files."""
        self._module_paths = tuple(path.resolve() for path in module_paths)
        self._process: _CodeProcess | None = None
        self._batch: dict[str, int] = {}
        """Metric -> number of items to score at once."""
        self._lock = RLock()

    def describe(self, reference: str) -> CodeDescription:
        """Import the object that `reference` names, and describe it.

        Raises:
            OperatorError: see `registry.resolve`; or the import ends its process or exceeds the time limit.
        """
        description: CodeDescription = self._imported(reference, CodeRequest.DESCRIBE)
        return description

    def operator(self, reference: str) -> OperatorSignature:
        """Import and describe an operator.

        Raises:
            OperatorError: see `describe`; or the object is not decorated with `@operator`.
        """
        description = self.describe(reference)
        if description.operator is None:
            raise not_decorated(description.type_name, reference)
        return description.operator

    def source_version(self, reference: str) -> str:
        """Return the version of the source of an object.

        Raises:
            OperatorError: see `describe`; or the source is unavailable.
        """
        version = self.describe(reference).source_version
        if isinstance(version, OperatorError):
            raise version
        return version

    def call_mismatch(self, reference: str, positional: int, keywords: Sequence[str]) -> CallMismatch | None:
        """Return why an object cannot be called with a number of arguments and with keywords, or None if it can.

        Raises:
            OperatorError: see `describe`.
        """
        mismatch: CallMismatch | None = self._imported(reference, CodeRequest.BIND, positional, tuple(keywords))
        return mismatch

    def items(self, reference: str, arguments: Mapping[str, Any], timeout_s: float = TIMEOUT_S) -> Sequence[BuiltItem]:
        """Build a data set.

        Raises:
            OperatorError: the function of the data set cannot be found, fails, ends its process, or exceeds the limit.
            ProfileError: it returns no items with different keys, or items that cannot be pickled.
        """
        header = CodeRequest.ITEMS, reference, dict(arguments)
        try:
            entries, payloads = self._exchange(timeout_s, header)
        except OperatorProcessError as error:
            reason = f"the call with {dict(arguments)} failed: {error}"
            raise OperatorError(reason, code="dataset.failed", location=reference) from error
        values = [bytes(value) for payload in payloads for value in unpack_list(payload)]
        return list(map(BuiltItem, entries, values[: len(entries)], values[len(entries) :]))

    def scores(
        self, reference: str, sinks: Sequence[str], rows: Sequence[Sequence[Payload]], timeout_s: float = TIMEOUT_S
    ) -> Iterator[float | ScoreFailure]:
        """Yield the score of each row: serialized outputs of all sinks, and the ground truth.

        Rows are sent together. If that fails, they are sent one by one, so that each reason belongs to its row.

        Raises:
            OperatorError: the metric cannot be imported.
        """
        done = crashes = singles = 0
        reason = ""
        while done < len(rows):
            if crashes == _MAX_CRASHES:
                yield ScoreFailure(f"{reason} ({crashes} times; the other items were not tried)")
                done += 1
                continue
            size = 1 if singles else min(self._batch.get(reference, 1), len(rows) - done)
            header = CodeRequest.SCORES, reference, tuple(sinks)
            begin_s = time.monotonic()
            try:
                payload = pack_list([value for row in rows[done : done + size] for value in row])
                scores, _ = self._exchange(timeout_s, header, [payload])
            except OperatorProcessError as error:
                if size > 1:
                    singles = size
                    continue
                reason, crashes = f"failed: {error}", crashes + 1
                scores = [ScoreFailure(reason)]
            if not singles and time.monotonic() - begin_s < _BATCH_S / 2:
                self._batch[reference] = min(max(2 * size, self._batch.get(reference, 1)), _MAX_BATCH)
            elif not singles:
                self._batch[reference] = max(1, size // 2)
            singles = max(0, singles - size)
            done += size
            yield from scores

    def close(self) -> None:
        """End the process. A later call starts another one."""
        with self._lock:
            process, self._process = self._process, None
            if process is not None:
                process.close()

    def _imported(self, reference: str, request: CodeRequest, *arguments: Any) -> Any:
        """Return the reply to a request that may import the module of a reference."""
        try:
            return self._exchange(IMPORT_TIMEOUT_S, (request, reference, *arguments))[0]
        except OperatorProcessError as error:
            module = reference.partition(":")[0]
            raise OperatorError(
                f"importing {module} failed: {error}", code="operator.import_failed", location=reference
            ) from error

    def _exchange(
        self, timeout_s: float, header: Sequence[Any], payloads: Sequence[Payload] = ()
    ) -> tuple[Any, Sequence[memoryview]]:
        """Return the reply to a request.

        Raises:
            CircinusError: reply of the process.
            OperatorProcessError: the process ended or exceeded the time limit.
        """
        with self._lock:
            is_retry = False
            while True:
                process = self._started(timeout_s, renews=header[0] != CodeRequest.SCORES)
                try:
                    content, outputs = process.ask(header, payloads, timeout_s)
                except OperatorProcessError:
                    self.close()
                    if process.was_bystander and not is_retry:
                        is_retry = True
                        continue
                    raise
                except BaseException:
                    self.close()
                    raise
                if isinstance(content, CircinusError):
                    raise content
                if content != EDITED:
                    return content, outputs
                self.close()

    def _started(self, timeout_s: float, *, renews: bool) -> _CodeProcess:
        """Return the process: a new one if it ended, or if it `renews` one whose client has changed its state."""
        search_first(self._module_paths)
        process = self._process
        if process is not None and (process.has_ended or (renews and process.state != ProcessState.current())):
            self.close()
        if self._process is None:
            self._process = _CodeProcess(self._module_paths, timeout_s, self.output)
        return self._process


class _CodeProcess(ExecutorProcess):
    """Process with a `CodeHost`."""

    def __init__(self, module_paths: Sequence[Path], timeout_s: float, output: Path | None) -> None:
        self.state = ProcessState.current()
        """State of this process that it took over."""
        super().__init__(
            shared_processes(),
            module_paths,
            name=_OUTPUT,
            cpus=float(os.cpu_count() or 1),
            timeout_s=timeout_s,
            output=output,
            create=CodeHost,
        )

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended since the last reply."""
        return not self.alive or bool(select([self._process.lifeline], [], [], 0)[0])

    def ask(
        self, header: Sequence[Any], payloads: Sequence[Payload], timeout_s: float
    ) -> tuple[Any, Sequence[memoryview]]:
        """Return the reply to a request."""
        self._timeout_s = timeout_s
        with suppress(ConnectionError), self._ending_on_errors():  # the receiver gives the reason
            self._frames.send(header, payloads)
        return self._receive()


@cache
def shared_processes() -> ForkServerClient:
    """Return the client of the fork server that all measurements and calls of this process share."""
    client = ForkServerClient(OperatorHost)
    atexit.register(client.close)
    return client


_codes: OrderedDict[tuple[Path, ...], UserCode] = OrderedDict()
"""Code by its folders, the most recently used last."""
_codes_lock = threading.Lock()


def user_code(module_paths: Sequence[Path], output: Path | None = None) -> UserCode:
    """Return the code of some folders, whose process all calls in this process share.

    Args:
        module_paths: folders of the modules, which are added to `sys.path` for values with types of theirs.
        output: folder for the output of data sets and metrics; by default the one of earlier calls.
    """
    paths = tuple(path.resolve() for path in module_paths)
    search_first(paths)
    with _codes_lock:
        code = _codes.setdefault(paths, UserCode(paths))
        _codes.move_to_end(paths)
        oldest = _codes.popitem(last=False)[1] if len(_codes) > _MAX_CODES else None
        code.output = output or code.output
    if oldest is not None:
        oldest.close()
    return code


def _forget() -> None:
    """Leave the processes to the parent."""
    global _codes_lock
    _codes_lock = threading.Lock()  # another thread of the parent may hold it
    _codes.clear()
    shared_processes.cache_clear()


os.register_at_fork(after_in_child=_forget)
