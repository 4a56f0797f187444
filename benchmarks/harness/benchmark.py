"""Definition of a benchmark: options with a long and a quick value, and parts that return figures and rows."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.harness.results import Figure

Rows = list[dict[str, Any]]
PartResult = tuple[list[Figure], Rows]
Options = argparse.Namespace
"""Values of a benchmark's options, with `state` (folder of stores and checkpoints) and `quick`."""


class UnavailableError(Exception):
    """A part of a benchmark cannot run on this machine; the message names the missing prerequisite."""


@dataclass(frozen=True)
class Option:
    """Command-line option of a benchmark."""

    name: str
    default: Any
    help: str
    quick: Any = None
    """Value with `--quick`; None: the default."""
    kind: Callable[[str], Any] | None = None
    """Parser of a value; None: the type of the default, or of its first element."""
    choices: Sequence[Any] | None = None

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add the option to a parser, without a value unless one is given."""
        many = isinstance(self.default, tuple)
        quick = "" if self.quick is None else f", quick {_text(self.quick)}"
        shown = "" if self.default is None else f" (default {_text(self.default)}{quick})"
        parser.add_argument(
            self.flag,
            type=self.kind or type(self.default[0] if many else self.default),
            nargs="+" if many else None,
            choices=self.choices,
            help=f"{self.help}{shown}",
        )

    def value(self, options: Options) -> Any:
        """Return the value given on the command line, or the one of the long or the quick form."""
        given = getattr(options, self.name)
        if given is not None:
            return tuple(given) if isinstance(given, list) else given
        return self.quick if options.quick and self.quick is not None else self.default


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Part:
    """Part of a benchmark; resumable, because its result is kept until code or options change."""

    name: str
    run: Callable[[Options, Console], PartResult]
    options: tuple[str, ...] = ()
    """Names of the options that the result depends on."""
    quick: bool = True
    """True if `--quick` includes the part; parts with minutes of models or real traffic are left out."""
    report: Callable[[Rows, Path, Console], None] | None = None
    """Prints tables or draws plots of the rows, beside the result file."""


@dataclass(frozen=True)
class Benchmark:
    """Options and parts of a benchmark."""

    options: tuple[Option, ...]
    parts: tuple[Part, ...]
    state: str | None = None
    """Folder of profile stores and checkpoints within `.circinus`; None: the benchmark's name."""
    page: Callable[[Path], None] | None = None
    """Writes the page of the documentation from the recorded result file."""
    note: str = ""
    """What it needs, how long it takes and what it writes; for `--help`."""

    def seeds(self, options: Options) -> list[int]:
        """Return the seed, or the first and the last one, as the result file states them."""
        count = getattr(options, "seeds", None)
        if count is None:
            return [getattr(options, "seed", 0)]
        first = getattr(options, "first_seed", 0)
        return [first, first + count - 1]
