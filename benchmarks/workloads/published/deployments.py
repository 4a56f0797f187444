"""Published measurements of LLM deployments, as cells of configurations.

The table was published with ai-dynamo/aiconfigurator (Apache-2.0): mean time to first token (TTFT) and mean time per
output token (TPOT) of deployments on six kinds of GPU systems. A *cell* has one model, system, input and output length.
Repeated measurements of one configuration count as one, by their medians.

A configuration needs its batch size, or its cost is unknown. Of the 75 cells with 20 rows and more, ten have none: all
their rows are of disaggregated serving and lack the batch. The batch is that of one data-parallel rank. All sizes are
taken as published: some rows list 64 GPUs for times that other rows measured on 8.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workloads.published.speech import TracesAbsentError
from circinus.arrays import BoolArray, FloatArray

MIN_ROWS = 20
MIN_CONFIGURATIONS = 10
TOKENS = 1000
"""Output tokens that costs are of."""
_ORDERED = ("tp", "batch")
_Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Cell:
    """Configurations of one model on one system, with one input and output length."""

    name: str
    knobs: Mapping[str, tuple[str | int, ...]]
    """Choices of each knob that varies in the cell, ascending if `ordered`."""
    values: tuple[Mapping[str, str | int], ...]
    """(n,) knob values of each configuration."""
    ttft_s: FloatArray
    """(n,)"""
    tpot_s: FloatArray
    """(n,)"""
    gpus_per_stream: FloatArray
    """(n,) GPUs over requests in decoding, known before any measurement."""

    @property
    def gpu_seconds(self) -> FloatArray:
        """(n,) GPU-seconds of `TOKENS` output tokens."""
        return self.gpus_per_stream * self.tpot_s * TOKENS

    def feasible(self, ttft_s: float, tpot_s: float) -> BoolArray:
        """Return (n,) whether both limits hold."""
        return np.asarray((self.ttft_s <= ttft_s) & (self.tpot_s <= tpot_s))

    @staticmethod
    def ordered(knob: str) -> bool:
        """Return whether the choices of a knob are in ascending order."""
        return knob in _ORDERED


def read_cells(folder: Path) -> Sequence[Cell]:
    """Read the cells with enough rows and configurations, in the order of their names.

    Raises:
        TracesAbsentError: the table or its reader does not exist.
    """
    path = folder / "llm-silicon" / "deployments.parquet"
    if not path.is_file():
        raise TracesAbsentError(f"{path} is absent; set CIRCINUS_TRACES to the folder of the published traces")
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise TracesAbsentError(f"{path} is a Parquet file; install pyarrow (pip install pyarrow)") from error
    groups = defaultdict[str, list[_Row]](list)
    for row in parquet.read_table(path).to_pylist():
        model = str(row["model_path"]).split("/")[-1]
        groups[f"{model} {row['system']} {row['isl']}/{row['osl']}"].append(row)
    cells = [_cell(name, rows) for name, rows in sorted(groups.items()) if len(rows) >= MIN_ROWS]
    return [cell for cell in cells if len(cell.values) >= MIN_CONFIGURATIONS]


def _cell(name: str, rows: Sequence[_Row]) -> Cell:
    repeats = defaultdict[tuple[str | int, ...], list[_Row]](list)
    names: tuple[str, ...] = ()
    for row in rows:
        if row["batch_size"] or row["decode_batch_size"]:
            values = _knob_values(row)
            names = tuple(values)
            repeats[tuple(values.values())].append(row)
    columns = {knob: tuple(values[index] for values in repeats) for index, knob in enumerate(names)}
    knobs = {knob: tuple(sorted(set(column))) for knob, column in columns.items() if len(set(column)) > 1}
    return Cell(
        name=name,
        knobs=knobs,
        values=tuple({knob: columns[knob][number] for knob in knobs} for number in range(len(repeats))),
        ttft_s=_medians(repeats.values(), "silicon_ttft_ms"),
        tpot_s=_medians(repeats.values(), "silicon_tpot_ms"),
        gpus_per_stream=np.array([_gpus(own[0]) / _streams(own[0]) for own in repeats.values()]),
    )


def _medians(repeats: Any, column: str) -> FloatArray:
    return np.array([float(np.median([row[column] for row in rows])) / 1000 for rows in repeats])


def _knob_values(row: _Row) -> dict[str, str | int]:
    """Return the settings; those of decoding, if prefill has its own GPUs, which `split` then describes."""
    decode = "" if row["mode"] == "agg" else "decode_"
    split = "none"
    if decode:
        sizes = (f"prefill_{size}" for size in ("num_workers", "tp_size", "attention_dp_size", "moe_ep_size"))
        split = "-".join(str(row[size] or 1) for size in (*sizes, "prefill_batch_size", "decode_num_workers"))
    ranks, expert_tp, expert_ranks = (
        int(row[decode + size] or 1) for size in ("attention_dp_size", "moe_tp_size", "moe_ep_size")
    )
    return {
        "engine": f"{row['backend']} {row['backend_version']}".strip(),
        "precision": "-".join(dict.fromkeys(row[p] for p in ("precision", "gemm_quant_mode", "moe_quant_mode"))),
        "split": split,
        "ranks": f"{ranks}-{expert_tp}-{expert_ranks}",
        "tp": int(row[decode + "tp_size"]),
        "batch": int(row[decode + "batch_size"]),
    }


def _gpus(row: _Row) -> int:
    if row["mode"] == "agg":
        return _size(row, "")
    return sum(int(row[f"{part}num_workers"] or 1) * _size(row, part) for part in ("prefill_", "decode_"))


def _size(row: _Row, part: str) -> int:
    return int(np.prod([int(row[part + size] or 1) for size in ("tp_size", "pp_size", "attention_dp_size")]))


def _streams(row: _Row) -> int:
    """Return the number of requests in decoding."""
    part = "" if row["mode"] == "agg" else "decode_"
    workers = 1 if row["mode"] == "agg" else int(row["decode_num_workers"] or 1)
    return int(row[part + "batch_size"]) * int(row[part + "attention_dp_size"] or 1) * workers
