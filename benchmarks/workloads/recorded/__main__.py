"""Measures the example pipelines and writes their recordings."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from benchmarks.search.real_pipelines import REAL, measured_completely
from benchmarks.workloads.recorded import FOLDER
from circinus.profiling.trace.trace_file import save_trace

if __name__ == "__main__":
    state = Path(sys.argv[1])
    for example in REAL:
        _, trace = measured_completely(example, state, Console())
        save_trace(trace, FOLDER / f"{example.pipeline}.trace")
