"""End of the process of a background engine that does not end by itself."""

from __future__ import annotations

import os
from contextlib import suppress

import psutil

from circinus.serving.local.peer import Peer
from circinus.serving.local.run_dir import RunDirectory
from circinus.serving.settings import SERVING

DAEMON_MODULE = "circinus.serving.local.daemon"


def kill_engine(folder: RunDirectory) -> int:
    """Kill the engine that holds the lock of a run folder, with its replicas, and return its process id.

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
