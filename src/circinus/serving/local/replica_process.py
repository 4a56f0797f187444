"""What runs in the process of one replica."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback

from circinus.profiling.threads import thread_limits
from circinus.serving.local.framing import BlockingFrames
from circinus.serving.local.plain_messages import batch_of, plain_result
from circinus.serving.replicas.computing import ComputingResponder
from circinus.serving.replicas.messages import ReplicaSpec, Say
from circinus.serving.replicas.replaying import ReplayingResponder


def run_replica(connection: socket.socket, spec: ReplicaSpec) -> None:
    """Load the operator, then answer batches until the engine closes the connection."""
    frames = BlockingFrames(connection)
    os.environ.update(thread_limits(spec.cpus))
    sys.path[:] = spec.search_path
    begin_s = time.perf_counter()
    responder: ComputingResponder | ReplayingResponder
    try:
        responder = ReplayingResponder(spec) if spec.replays else ComputingResponder(spec)
    except Exception as error:  # whatever the user's operator raises while it loads is the answer
        traceback.print_exc()
        frames.send((Say.FAILED, f"{type(error).__name__}: {error}"))
        return
    frames.send((Say.READY, time.perf_counter() - begin_s))
    while (frame := frames.receive()) is not None:
        (say, content), payloads = frame
        if say == Say.RECORDINGS:
            assert isinstance(responder, ReplayingResponder), "only replaying replicas are sent recordings"
            responder.learn(content)
        else:
            result, outputs = responder.answer(batch_of(content), payloads)
            frames.send((Say.DONE.value, plain_result(result)), outputs)
