"""Command line of a benchmark: arguments, parts with checkpoints, tables and the result file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.harness.benchmark import Benchmark, Options, Part, Rows, UnavailableError
from benchmarks.harness.checkpoints import Checkpoint
from benchmarks.harness.results import FOLDER, ROOT, Figure, output_console, print_figures, write_results, write_whole
from benchmarks.workloads.published.speech import TracesAbsentError
from circinus.specification.formatting import format_duration


def run_benchmark(name: str, benchmark: Benchmark, arguments: Sequence[str], description: str = "") -> Path | None:
    """Run the selected parts, print their figures and write the result file; parts that ended are not run again.

    Returns:
        The result file; None where no part could run on this machine.

    Raises:
        SystemExit: with `--strict`, a figure is above its aim of 0, or a part was skipped.
    """
    options = parse_options(name, benchmark, arguments, description)
    parts = selected_parts(benchmark, options)
    partial_file = ROOT / "build" / "benchmarks" / f"{name}.json"
    file = options.out or partial_file
    is_complete = not options.quick and len(parts) == len(benchmark.parts) and _are_defaults(benchmark, options)
    console = output_console()
    start_s, wall_s = perf_counter(), 0.0
    figures: list[Figure] = []
    skipped: list[str] = []
    rows: Rows = []
    options.state.mkdir(parents=True, exist_ok=True)
    for part in parts:
        console.rule(part.name)
        checkpoint = _checkpoint(name, part, options)
        try:
            part_figures, part_rows = checkpoint.run(partial(part.run, options, console))
        except (UnavailableError, TracesAbsentError) as error:
            console.print(f"skipped: {error}", style="yellow", highlight=False)
            is_complete = False
            skipped.append(part.name)
            continue
        figures += part_figures
        rows += part_rows
        wall_s += checkpoint.wall_s
        if part.report is not None:
            part.report(part_rows, file, console)
        # Written after each part, so that an interrupted run leaves the results that it has.
        write_results(
            name,
            figures=figures,
            rows=rows,
            seeds=benchmark.seeds(options),
            wall_s=wall_s,
            file=file,
            options=_recorded(benchmark, options),
        )
    if not figures:
        return None
    if is_complete and options.out is None:
        file = FOLDER / f"{name}.json"
        write_whole(file, partial_file.read_text(encoding="utf-8"))
        for picture in partial_file.parent.glob(f"{name}.svg"):
            os.replace(picture, FOLDER / picture.name)
        if benchmark.page is not None:
            benchmark.page(file)
    print_figures(figures, console)
    console.print(f"{file} written in {format_duration(perf_counter() - start_s)}", highlight=False, soft_wrap=True)
    happened = [f"{figure.name} ({figure.note})" for figure in figures if figure.aim == 0 and not figure.met]
    if options.strict and happened + skipped:
        raise SystemExit(f"must not happen: {'; '.join(happened)}; skipped: {', '.join(skipped)}")
    return file


def parse_options(name: str, benchmark: Benchmark, arguments: Sequence[str], description: str = "") -> Options:
    """Parse the command line and fill in the values of the long or the quick form."""
    names = [part.name for part in benchmark.parts]
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=description,
        epilog=f"Parts: {', '.join(names)}. {benchmark.note}",
    )
    parser.add_argument("--quick", action="store_true", help="fewer runs of the same seeds, at most about 3 minutes")
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 if a figure is above its aim of 0 or a part is skipped"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="result file")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--only", nargs="+", choices=names, metavar="PART", help="run only these parts")
    chosen.add_argument("--without", nargs="+", choices=names, metavar="PART", help="leave these parts out")
    state = ROOT / ".circinus" / (benchmark.state or name)
    parser.add_argument("--state", type=Path, default=state, metavar="FOLDER", help="profile stores and checkpoints")
    for option in benchmark.options:
        option.add_to(parser)
    options = parser.parse_args(arguments)
    for option in benchmark.options:
        setattr(options, option.name, option.value(options))
    return options


def selected_parts(benchmark: Benchmark, options: Options) -> list[Part]:
    """Return the parts to run: those named by `--only`, else all of the form without those of `--without`."""
    if options.only:
        return [part for part in benchmark.parts if part.name in options.only]
    skipped = options.without or ()
    return [part for part in benchmark.parts if part.name not in skipped and (part.quick or not options.quick)]


def _are_defaults(benchmark: Benchmark, options: Options) -> bool:
    """Return whether each option has the value of the long form, so that the results may be recorded."""
    return all(getattr(options, option.name) == option.default for option in benchmark.options)


def _checkpoint(name: str, part: Part, options: Options) -> Checkpoint:
    values = {option: getattr(options, option) for option in part.options}
    return Checkpoint.in_folder(options.state, f"{name}-{part.name}{'-quick' if options.quick else ''}", values)


def _recorded(benchmark: Benchmark, options: Options) -> dict[str, Any]:
    return {option.name: getattr(options, option.name) for option in benchmark.options}
