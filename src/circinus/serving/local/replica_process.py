"""What runs in the process of one replica."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback

from circinus.profiling.threads import thread_limits
from circinus.serving.local.framing import BlockingFrames
from circinus.serving.local.plain_messages import decode_batch, encode_result
from circinus.serving.replicas.computing import ComputeExecutor
from circinus.serving.replicas.messages import MessageType, ReplicaSpec
from circinus.serving.replicas.replaying import ReplayExecutor


def run_replica(connection: socket.socket, spec: ReplicaSpec) -> None:
    """Load the operator, then answer batches until the engine closes the connection."""
    frames = BlockingFrames(connection)
    os.environ.update(thread_limits(spec.cpus))
    sys.path[:] = spec.search_path
    begin_s = time.perf_counter()
    responder: ComputeExecutor | ReplayExecutor
    try:
        responder = ReplayExecutor(spec) if spec.replays else ComputeExecutor(spec)
    except Exception as error:  # whatever the user's operator raises while it loads is the answer
        traceback.print_exc()
        frames.send((MessageType.FAILED, f"{type(error).__name__}: {error}"))
        return
    frames.send((MessageType.READY, time.perf_counter() - begin_s))
    while (frame := frames.receive()) is not None:
        (say, content), payloads = frame
        if say == MessageType.RECORDINGS:
            assert isinstance(responder, ReplayExecutor), "only replaying replicas are sent recordings"
            responder.add_recordings(content)
        else:
            result, outputs = responder.answer(decode_batch(content), payloads)
            frames.send((MessageType.DONE.value, encode_result(result)), outputs)
