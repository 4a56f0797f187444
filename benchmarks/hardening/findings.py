"""Outcomes of inputs by kind, and the first inputs of each fault, to be repeated one by one."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.hardening.bounded_worker import Ending
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure

_MAX_EXAMPLES = 40


@dataclass
class Findings:
    """Outcomes of the inputs of one part."""

    part: str
    endings: dict[str, Counter[Ending]] = field(default_factory=lambda: defaultdict(Counter))
    """Kind of input -> how its runs ended."""
    codes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Kind of input -> codes of the faults."""
    slowest_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    peak_bytes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    observed: set[str] = field(default_factory=set)
    """Kinds that are observations of the attacked program, and no inputs."""
    faults: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """(ending, last line without numbers) -> first example."""

    def add(
        self,
        kind: str,
        ending: Ending,
        *,
        name: str,
        text: str = "",
        code: str = "",
        wall_s: float = 0.0,
        peak_bytes: int = 0,
        is_input: bool = True,
    ) -> None:
        """Add an outcome.

        Args:
            kind: kind of input.
            ending: how the run ended.
            name: name by which the input can be repeated.
            text: last line of the output, for faults.
            code: code of the message.
            wall_s: duration.
            peak_bytes: maximum resident memory.
            is_input: False for an observation of the attacked program after some inputs.
        """
        if not is_input:
            self.observed.add(kind)
        self.endings[kind][ending] += 1
        if code:
            self.codes[kind][code] += 1
        self.slowest_s[kind] = max(self.slowest_s[kind], wall_s)
        self.peak_bytes[kind] = max(self.peak_bytes[kind], peak_bytes)
        if not ending.is_good:
            signature = "".join(letter for letter in text if not letter.isdigit())[:40]
            example = {"part": self.part, "kind": kind, "ending": ending.value, "input": name, "text": text, "count": 0}
            self.faults.setdefault((ending.value, signature), example)["count"] += 1

    @property
    def count(self) -> int:
        """Number of inputs."""
        return sum(counts.total() for kind, counts in self.endings.items() if kind not in self.observed)

    def total(self, *endings: Ending) -> int:
        """Return the number of runs that ended in some ways."""
        return sum(counts[ending] for counts in self.endings.values() for ending in endings)

    def result(self, console: Console, markers: Path | None = None) -> PartResult:
        """Print a table by kind and the faults, and return figures with aims and rows.

        Args:
            console: prints.
            markers: folder in which data that was run leaves a sign.
        """
        table = Table("kind", "inputs", *(ending.value for ending in Ending), "slowest", "peak", title=self.part)
        for kind, counts in self.endings.items():
            numbers = (str(counts[ending] or "") for ending in Ending)
            slowest, peak = f"{self.slowest_s[kind]:.1f} s", f"{self.peak_bytes[kind] / 2**20:.0f} MiB"
            table.add_row(kind, str(counts.total()), *numbers, slowest, peak)
        console.print(table)
        for fault in list(self.faults.values())[:_MAX_EXAMPLES]:
            console.print(
                f"{fault['ending']} x{fault['count']}: {fault['kind']}, input {fault['input']}: {fault['text']}",
                highlight=False, markup=False, soft_wrap=True,
            )  # fmt: skip
        return self._figures(markers), [*self._rows(), *list(self.faults.values())[:_MAX_EXAMPLES]]

    def _figures(self, markers: Path | None) -> list[Figure]:
        note = f"of {self.count}"
        counted = (
            ("tracebacks", Ending.TRACEBACK),
            ("crashes", Ending.CRASH),
            ("hung for more than 10 s", Ending.HANG),
            ("more than 500 MiB", Ending.MEMORY),
            ("faults without a code or a place", Ending.VAGUE),
        )
        figures = [Figure(f"{self.part}: inputs", float(self.count), None, "higher", "inputs")]
        figures += [
            Figure(f"{self.part}: {name}", float(self.total(ending)), 0.0, "lower", "inputs", note)
            for name, ending in counted
        ]
        if markers is not None:
            ran = sorted(path.name for path in markers.iterdir())
            note = f"{note}; {', '.join(ran[:5])}" if ran else note
            figures.append(Figure(f"{self.part}: data that ran code", float(len(ran)), 0.0, "lower", "inputs", note))
        return figures

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                "part": self.part,
                "kind": kind,
                "inputs": counts.total(),
                **{ending.value: counts[ending] for ending in Ending},
                "slowest_s": self.slowest_s[kind],
                "peak_mib": self.peak_bytes[kind] / 2**20,
                "codes": dict(self.codes[kind].most_common(12)),
            }
            for kind, counts in self.endings.items()
        ]
