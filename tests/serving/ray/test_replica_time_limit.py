"""Time limit of a batch in a replica of Ray Serve, without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from budget import HANG_LIMIT_S

pytestmark = pytest.mark.slow

HANG = """
import time
from circinus.operators import operator
from circinus.operators.pickling import pickle_value
from circinus.serving.ray.serve_replica import OperatorReplica
from circinus.serving.replicas.replica_protocol import BatchItem, ReplicaSpec

@operator
def act(value):
    if value == "sleep":
        time.sleep(1e9)
    while value == "spin":
        pass

if __name__ == "__main__":
    replica = OperatorReplica(ReplicaSpec("d", False, "hanging:act", "", {}, 1.0, 1.0, ()), None)
    for value in ("nothing", WAY):
        replica.process([BatchItem("item", 1, None)], [pickle_value(value)], 0.5)
        print("done", flush=True)
"""


@pytest.mark.parametrize("way", ["sleep", "spin"])
def test_a_replica_that_hangs_ends_itself_at_the_limit(tmp_path: Path, way: str) -> None:
    (tmp_path / "hanging.py").write_text(HANG.replace("WAY", repr(way)))
    paths = [str(tmp_path), *filter(None, sys.path)]
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "hanging.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=HANG_LIMIT_S,
    )
    assert (ended.returncode, ended.stdout) == (1, "done\n")
    assert "hanging.py" in ended.stderr
