"""The script of `docs/python.md` runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from budget import HANG_LIMIT_S

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_complete_script_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.partition("## A complete script")[2], flags=re.DOTALL)
    short = blocks[1].replace('duration="5s", warm_up="1s"', 'duration="1s", warm_up="0s"')
    assert short != blocks[1]
    for name, text in (("mail.py", blocks[0]), ("main.py", short)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, timeout=HANG_LIMIT_S, check=False
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "plan.json").exists()
    assert (tmp_path / ".circinus" / "profiles.sqlite").exists()
