"""What the demo leaves behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.demo.main import ROOT, earlier, medians, read_options
from benchmarks.harness.results import FOLDER, Figure, commit, write_results


def test_figures_go_where_git_does_not_look_unless_they_are_to_be_kept() -> None:
    options, fresh = read_options([])
    assert not fresh
    ignored = ["git", "check-ignore", "--quiet", str(options.results / "demo.json")]
    if (ROOT / ".git").exists():
        assert subprocess.run(ignored, cwd=ROOT, check=False).returncode == 0
    assert FOLDER not in (options.results, *options.results.parents)
    assert read_options(["--keep"])[0].results == FOLDER


def test_a_folder_for_results_is_made(tmp_path: Path) -> None:
    path = write_results("few", figures=[], rows=[], seeds=[0], wall_s=1.0, folder=tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / "few.json"
    assert path.is_file()


def test_figures_beside_other_numbers_of_busy_processes_are_kept_with_their_commit(tmp_path: Path) -> None:
    figures = [
        *medians([[Figure("served", 13, 12, "higher", "")]], 0),
        *medians([[Figure("served", 10, 12, "higher", "")]], 2),
    ]
    rows = [{"busy": busy, "query": "q"} for busy in (0, 2)]
    path = write_results("demo", figures=figures, rows=rows, seeds=[0], wall_s=1.0, folder=tmp_path)
    ((kept,), entries) = earlier(path, [2])
    assert (kept.name, kept.value, kept.note) == ("served", 13, f"; at {commit()}")
    assert entries == rows[:1]
    write_results("demo", figures=[kept], rows=entries, seeds=[0], wall_s=1.0, folder=tmp_path)
    assert earlier(path, [2]) == ([kept], entries)
    assert earlier(path, [0]) == ([], [])
