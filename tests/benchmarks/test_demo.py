"""What the demo leaves behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.demo.main import ROOT, read_options
from benchmarks.harness.results import FOLDER, write_results


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
