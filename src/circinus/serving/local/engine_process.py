"""End of the process of a background engine that does not end by itself."""

from __future__ import annotations

import os
from contextlib import suppress

import psutil

from circinus.serving.local.peer import Peer
from circinus.serving.local.run_dir import RunDirectory
from circinus.serving.settings import SERVING

DAEMON_MODULE = "circinus.serving.local.daemon"


def end_engine(folder: RunDirectory, *, responds: bool = False) -> int | None:
    """End the engine that holds the lock of a run folder, with its replicas.

    Args:
        folder: its run folder.
        responds: whether it may end by itself. If it does not, it is killed.

    Returns:
        Its process id if it was killed.

    Raises:
        ServingError: the process of the lock is not known to be the engine, and was not killed.
    """
    silence = folder.silence_reason()
    process_id = folder.process()
    if process_id is None:
        raise silence
    try:
        engine = psutil.Process(process_id)  # has the start time, so that no later process of this id is killed
        if not _is_engine(engine, folder):
            raise silence
        started = engine.children(recursive=True)
        if responds:
            engine.terminate()
            with suppress(psutil.TimeoutExpired):
                engine.wait(SERVING.daemon_close_timeout_s)
                return None
        engine.kill()
    except psutil.Error:
        raise silence from None
    # The fork server notices the end of its client, and kills the groups of its processes, unless it is suspended, too.
    _, left = psutil.wait_procs(started, SERVING.replica_exit_timeout_s)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return process_id


def _is_engine(process: psutil.Process, folder: RunDirectory) -> bool:
    """Return whether a process is the engine: by its user, command and the socket, while the lock is held."""
    if process.uids().effective != os.geteuid() or DAEMON_MODULE not in process.cmdline():
        return False
    with suppress(BlockingIOError):
        connection = folder.connect()
        if connection is not None:
            with connection:
                if Peer.of(connection).process not in (None, process.pid):
                    return False
    lock = folder.try_lock()
    if lock is not None:
        lock.close()
    return lock is None and process.is_running()
