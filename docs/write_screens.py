"""Write the screens of the documentation, from a trace of the starter application: `python docs/write_screens.py`.

After a change of the starter, record a trace in its folder: `circinus profile --exhaustive --record starter.trace`.
"""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = Path(__file__).with_name("screens")
COLUMNS = "80"
COMMANDS = {
    "profile": ["profile", "--trace", "starter.trace"],
    "plan": ["plan", "--trace", "starter.trace", "--time-limit", "60s"],  # also on a busy machine
    "explain": ["explain", "archive"],
}
_OTHER_MACHINE = re.compile(r"^warning: .*?declare its speed\n", re.DOTALL | re.MULTILINE)
"""Warning about the machine of the trace, which the machine that writes the documentation need not be."""


def screens() -> Iterator[tuple[str, str]]:
    """Yield the name of each screen, and what its command prints."""
    with TemporaryDirectory() as folder:
        _circinus(folder, "init")
        trace = gzip.decompress((FOLDER / "starter.trace.gz").read_bytes())
        (Path(folder) / "starter.trace").write_bytes(trace)
        for name, arguments in COMMANDS.items():
            text = re.sub(r"planned in .*?, ", "", _circinus(folder, *arguments))
            text = _OTHER_MACHINE.sub("", text)
            yield name, "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _circinus(folder: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "circinus", *arguments]
    environment = os.environ | {"COLUMNS": COLUMNS, "NO_COLOR": "1"}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=True)
    return run.stdout


if __name__ == "__main__":
    for name, text in screens():
        (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8")
