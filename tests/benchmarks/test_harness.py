"""Benchmarks by name: listing, options, quick and partial runs, result files and the README."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from benchmarks.__main__ import NOTHING_RAN, main
from benchmarks.harness import runner
from benchmarks.harness.benchmark import Benchmark, Option, Part, PartResult, UnavailableError
from benchmarks.harness.markdown import quantity
from benchmarks.harness.registry import ENTRIES, README, Entry, listing, readme
from benchmarks.harness.results import ROOT, Figure
from benchmarks.harness.runner import parse_options, run_benchmark, selected_parts
from rich.console import Console

RECORDED = {"profiling", "search", "matching", "estimates", "serving", "links", "demo"}


def _count(options: Namespace, _: Console) -> PartResult:
    return [Figure("seeds", float(options.seeds), None, "lower", "seeds")], [{"sizes": options.sizes}]


def _missing(options: Namespace, _: Console) -> PartResult:
    raise UnavailableError("no network namespaces")


SMALL = Benchmark(
    options=(
        Option("seeds", 5, "seeds", quick=2),
        Option("first_seed", 7, "first seed"),
        Option("sizes", (1, 2), "sizes", quick=(1,), choices=(1, 2, 3)),
        Option("queries", None, "queries", kind=int),
    ),
    parts=(Part("count", _count, ("seeds",)), Part("missing", _missing), Part("slow", _count, quick=False)),
)


def test_a_listing_has_a_line_for_each_benchmark() -> None:
    lines = listing().splitlines()
    assert [line.split()[0] for line in lines] == [entry.name for entry in ENTRIES]
    assert {entry.name for entry in ENTRIES} >= RECORDED
    assert all(entry.question.endswith("?") for entry in ENTRIES)


def test_benchmarks_are_listed_without_importing_them() -> None:
    names = ", ".join(repr(entry.module) for entry in ENTRIES)
    program = f"import sys, benchmarks.__main__ as m; m.main([]); print([n for n in ({names}) if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.name != "demo"], ids=lambda entry: entry.name)
def test_every_benchmark_has_a_quick_form(entry: Entry) -> None:
    benchmark = entry.load()
    assert benchmark is not None
    options = parse_options(entry.name, benchmark, ["--quick"])
    assert selected_parts(benchmark, options)
    for part in benchmark.parts:
        assert set(part.options) <= {option.name for option in benchmark.options}
    if benchmark.parts != tuple(selected_parts(benchmark, options)):
        assert any(not part.quick for part in benchmark.parts)


def test_options_have_a_long_and_a_quick_value() -> None:
    long, quick = (parse_options("small", SMALL, arguments) for arguments in ([], ["--quick"]))
    assert (long.seeds, long.first_seed, long.sizes, long.queries) == (5, 7, (1, 2), None)
    assert (quick.seeds, quick.first_seed, quick.sizes) == (2, 7, (1,))
    given = parse_options("small", SMALL, ["--quick", "--seeds", "9", "--sizes", "2", "3", "--queries", "4"])
    assert (given.seeds, given.sizes, given.queries) == (9, (2, 3), 4)
    assert SMALL.seeds(long) == [7, 11]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], ["count", "missing", "slow"]),
        (["--quick"], ["count", "missing"]),
        (["--quick", "--only", "slow"], ["slow"]),
        (["--without", "count"], ["missing", "slow"]),
    ],
)
def test_parts_are_selected(arguments: list[str], names: list[str]) -> None:
    assert [part.name for part in selected_parts(SMALL, parse_options("small", SMALL, arguments))] == names


@pytest.mark.parametrize(
    ("arguments", "is_recorded"),
    [
        ([], True),
        (["--quick"], False),
        (["--seeds", "3"], False),
        (["--only", "count"], False),
    ],
)
def test_only_complete_runs_replace_recorded_results(
    arguments: list[str], is_recorded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.harness.runner.ROOT", tmp_path)
    monkeypatch.setattr("benchmarks.harness.runner.FOLDER", tmp_path / "results")
    benchmark = Benchmark(SMALL.options, tuple(part for part in SMALL.parts if part.name != "missing"))
    file = run_benchmark("small", benchmark, [*arguments, "--state", str(tmp_path / "state")])
    recorded = tmp_path / "results" / "small.json"
    assert file == (recorded if is_recorded else tmp_path / "build" / "benchmarks" / "small.json")
    assert recorded.exists() == is_recorded


def test_a_skipped_part_makes_a_run_incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.harness.runner.ROOT", tmp_path)
    monkeypatch.setattr("benchmarks.harness.runner.FOLDER", tmp_path / "results")
    run_benchmark("small", SMALL, ["--state", str(tmp_path / "state")])
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("seen", [0.0, 1.0, math.nan])
def test_a_strict_run_fails_where_something_happened_that_must_not(seen: float, tmp_path: Path) -> None:
    figures = [Figure("crashes", seen, 0.0, "lower", ""), Figure("inputs", 5.0, 20.0, "higher", "")]
    benchmark = Benchmark((), (Part("attack", lambda options, console: (figures, [])),))
    arguments = ["--out", str(tmp_path / "attack.json"), "--state", str(tmp_path / "state")]
    assert run_benchmark("attack", benchmark, arguments)
    if seen == 0:
        assert run_benchmark("attack", benchmark, [*arguments, "--strict"])
    else:
        with pytest.raises(SystemExit, match="crashes"):
            run_benchmark("attack", benchmark, [*arguments, "--strict"])


def test_a_run_writes_figures_options_and_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results" / "small.json"
    arguments = ["--quick", "--out", str(file), "--state", str(tmp_path / "state")]
    assert run_benchmark("small", SMALL, arguments) == file
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["name"] == "small"
    assert document["seeds"] == [7, 8]
    assert document["options"] == {"seeds": 2, "first_seed": 7, "sizes": [1], "queries": None}
    assert [figure["value"] for figure in document["figures"]] == [2.0]
    assert document["machine"]["cpus"] >= 1
    printed = capsys.readouterr().out
    assert "skipped: no network namespaces" in printed
    assert "Figures" in printed


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.0042, "share", "0.42 %"), (1.0, "times", "1.00 times"), (12.345, "times", "12.3 times"),
     (999.6, "s", "1,000 s"), (98.76, "s", "98.8 s"), (math.inf, "s", "inf s")],
)  # fmt: skip
def test_quantities_are_short_and_without_powers_of_ten(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_a_benchmark_of_which_nothing_can_run_says_so_by_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    for file, code in ((None, NOTHING_RAN), (ROOT, 0)):
        monkeypatch.setattr("benchmarks.harness.registry.run_benchmark", lambda *_, file=file: file)
        assert main(["profiling"]) == code


def test_nothing_is_written_where_no_part_can_run(tmp_path: Path) -> None:
    file = tmp_path / "small.json"
    arguments = ["--only", "missing", "--out", str(file), "--state", str(tmp_path)]
    assert run_benchmark("small", SMALL, arguments) is None
    assert not file.exists()


def test_a_part_is_resumed_for_its_own_options_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.harness.checkpoints.commit", lambda: "abc")
    runs: list[int] = []

    def part(options: Namespace, _: Console) -> PartResult:
        runs.append(options.seeds)
        return [Figure("f", 1.0, None, "lower", "")], []

    benchmark = Benchmark(SMALL.options, (Part("part", part, ("seeds",)),))
    common = ["--out", str(tmp_path / "out.json"), "--state", str(tmp_path)]
    for arguments in ([], [], ["--first-seed", "1"], ["--seeds", "6"], ["--quick"], ["--seeds", "6"]):
        runner.run_benchmark("b", benchmark, [*common, *arguments])
    assert runs == [5, 6, 2]


def test_the_readme_is_up_to_date() -> None:
    """Names, commands and files are compared; commits and dates change with each recorded run."""

    def columns(text: str) -> list[list[str]]:
        return [re.split(r"\s*\|\s*", line)[1:5] for line in text.splitlines() if line.startswith("| ")]

    written = README.read_text(encoding="utf-8")
    assert columns(written) == columns(readme()), "run `python -m benchmarks --readme`"
    for entry in ENTRIES:
        assert entry.command in written
        assert entry.result.is_file() or entry.name not in RECORDED
        assert (README.parent / entry.name).is_dir()
