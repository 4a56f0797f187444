"""Outcomes of inputs by kind, and the first inputs of each fault, to be repeated one by one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.hardening.bounded_worker import HANG_S, Ending
from benchmarks.hardening.journal import Journal
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure

_MAX_EXAMPLES = 40

AIMED_INPUTS = {"files": 7_000, "specifications": 7_000, "http": 3_000, "socket": 2_500, "environment": 500}
"""Part -> number of inputs of a complete run: 20,000 in all."""


@dataclass
class Findings:
    """Outcomes of the inputs of one part."""

    part: str
    judged: Sequence[Ending] = (Ending.TRACEBACK, Ending.CRASH, Ending.HANG, Ending.MEMORY, Ending.VAGUE)
    """Ends that the part can tell, each of which has a figure."""
    hang_s: float = HANG_S
    journal: Journal | None = None
    """Takes each outcome; those of an earlier run count."""
    names: set[str] = field(default_factory=set)
    """Inputs that have an outcome in the journal."""
    reached: Counter[str] = field(default_factory=Counter)
    """Kind of input -> number of inputs that the program came to use."""
    ran: set[str] = field(default_factory=set)
    """Names of inputs that ran code."""
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

    def __post_init__(self) -> None:
        for row in self.journal.rows if self.journal else ():
            self.names.add(row["name"])
            self._count(**{**row, "ending": Ending(row["ending"])})

    def add(self, kind: str, ending: Ending, *, name: str, **details: Any) -> None:
        """Add an outcome, see `_count`."""
        if self.journal is not None:
            self.journal.add({"kind": kind, "ending": ending.value, "name": name, **details})
        self._count(kind, ending, name=name, **details)

    def _count(
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
        is_reached: bool = False,
        has_run: bool = False,
    ) -> None:
        """Count an outcome.

        Args:
            kind: kind of input.
            ending: how the run ended.
            name: name by which the input can be repeated.
            text: last line of the output, for faults.
            code: code of the message.
            wall_s: duration.
            peak_bytes: maximum resident memory.
            is_input: False for an observation of the attacked program after some inputs.
            is_reached: whether the program came to use the hostile data.
            has_run: whether the data ran code.
        """
        if has_run:
            self.ran.add(name)
        self.reached[kind] += is_reached
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

    def result(self, console: Console, *, has_markers: bool = False) -> PartResult:
        """Print a table by kind and the faults, and return figures with aims and rows.

        Args:
            console: prints.
            has_markers: whether inputs that run leave a sign.
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
        return self._figures(has_markers), [*self._rows(), *list(self.faults.values())[:_MAX_EXAMPLES]]

    def _figures(self, has_markers: bool) -> list[Figure]:
        note = f"of {self.count}"
        counted = (
            ("tracebacks", Ending.TRACEBACK),
            ("crashes", Ending.CRASH),
            (f"hung for more than {self.hang_s:g} s", Ending.HANG),
            ("more than 500 MiB", Ending.MEMORY),
            ("faults without a code or a place", Ending.VAGUE),
        )
        aim = AIMED_INPUTS.get(self.part)
        figures = [Figure(f"{self.part}: inputs", float(self.count), aim, "higher", "inputs")]
        figures += [
            Figure(
                f"{self.part}: {name}", float(self.total(ending)), 0.0, "lower", "inputs", note + self._first(ending)
            )
            for name, ending in counted
            if ending in self.judged
        ]
        if has_markers:
            note = "; ".join([note, *sorted(self.ran)[:5]])
            value = float(len(self.ran))
            figures.append(Figure(f"{self.part}: data that ran code", value, 0.0, "lower", "inputs", note))
        return figures

    def _first(self, ending: Ending) -> str:
        """Return the first input that ended in a way, with its last line, for the note of a figure."""
        found = (fault for fault in self.faults.values() if fault["ending"] == ending)
        return next((f"; first: {fault['input']}: {fault['text']}" for fault in found), "")

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
