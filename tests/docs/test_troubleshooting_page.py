"""Every message that `docs/troubleshooting.md` quotes is one that the command really prints in that case."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import circinus as c
from circinus.serving.local.run_dir import RunDirectory
from cli_runner import run_circinus
from prepared import prepared_starter

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = {section.partition("\n")[0]: section for section in PAGE.split("\n## ")[1:]}


def circinus(folder: Path, *arguments: str) -> str:
    """Everything that a command prints, in one line."""
    run = run_circinus(*arguments, cwd=folder)
    assert "Traceback" not in run.stderr
    return " ".join((run.stdout + run.stderr).split())


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def stale(folder: Path) -> str:
    queries = (folder / "queries.yaml").read_text(encoding="utf-8")
    (folder / "more.yaml").write_text(queries.partition("---")[0].replace("typing-aid", "evening"), encoding="utf-8")
    said = circinus(folder, "explain", "evening")
    replace(folder / "queries.yaml", "rate: 5/s", "rate: 6/s")
    said += circinus(folder, "apply")
    (folder / "starter" / "operators.py").open("a").write("\n# changed\n")
    return said + circinus(folder, "plan")


def untrusted(folder: Path) -> str:
    inbox = folder / "inbox"
    c.Plan.load(folder / "plan.json").save(inbox / "plan.json")
    replace(inbox / "plan.json", '"seal": "', '"seal": "0')
    return circinus(inbox, "apply")


def fix_service_times(folder: Path) -> None:
    """Replace measured service times, which an interrupted replica may stretch beyond what a plan can promise."""
    with closing(sqlite3.connect(folder / ".circinus" / "profiles.sqlite")) as store, store:
        store.execute("UPDATE service SET service_s = 0.001")
        store.execute("UPDATE allocation SET ratio = batch_size")
        store.execute("DELETE FROM checksum")


def rejected(folder: Path) -> str:
    fix_service_times(folder)
    replace(folder / "queries.yaml", "p95 <= 500ms", "p95 <= 50us")
    circinus(folder, "plan")
    said = circinus(folder, "explain", "plan.json", "archive")
    replace(folder / "pipeline.yaml", "batch_sizes: [1, 4]", "allowed_tiers: [device]\n      batch_sizes: [1, 4]")
    circinus(folder, "plan")
    return said + circinus(folder, "explain", "plan.json", "archive")


def small_budget(folder: Path) -> str:
    replace(folder / "pipeline.yaml", "lower: [true]", "lower: [true, false]")  # as in the whole starter
    said = circinus(folder, "profile", "--budget", "0s", "--store", "new.sqlite")
    # An objective that nothing was measured for, so that what was measured early leaves it open.
    replace(folder / "queries.yaml", "accuracy >= 0.7", "accuracy >= 0.65")
    return said + circinus(folder, "profile", "--show")


def broken_operator(folder: Path) -> str:
    replace(folder / "pipeline.yaml", "operators:Correct", "operators:Corect")
    said = circinus(folder, "validate")
    replace(folder / "pipeline.yaml", "starter.operators:Corect", "starter.operatrs:Correct")
    said += circinus(folder, "validate")
    replace(folder / "pipeline.yaml", "starter.operatrs", "starter.operators")
    line = "        self._method = method"
    operators, words = folder / "starter" / "operators.py", folder / "starter" / "words.py"
    replace(operators, line, f'        raise FileNotFoundError("model.bin")\n{line}')
    said += circinus(folder, "profile")
    replace(operators, f'        raise FileNotFoundError("model.bin")\n{line}', line)
    replace(words, "    right = sum(", "    __import__('os')._exit(3)\n    right = sum(")
    said += circinus(folder, "profile")
    replace(words, "    dataset = []", "    __import__('os').abort()\n    dataset = []")
    return said + circinus(folder, "profile")


def small_machine(folder: Path) -> str:
    replace(folder / "infrastructure.yaml", "cpus: 2", "cpus: 4096")  # more than any machine has
    circinus(folder, "plan")
    return circinus(folder, "apply", "--mode", "real")


def kill(engine: RunDirectory) -> None:
    """End an engine, and wait until it has ended."""
    process = engine.process()
    assert process is not None
    os.kill(process, signal.SIGKILL)
    while (connection := engine.connect()) is not None:
        connection.close()
        time.sleep(0.02)


def engine_left_over(folder: Path) -> str:
    circinus(folder, "apply", "--mode", "replay")
    engine = folder / ".circinus" / "engine"
    try:
        queries = (folder / "queries.yaml").read_text(encoding="utf-8")
        (folder / "queries.yaml").write_text(queries.partition("---")[0], encoding="utf-8")
        circinus(folder, "plan")
        said = circinus(folder, "load", "--duration", "1s")
        kill(RunDirectory(engine))
        said += circinus(folder, "status")
    finally:
        circinus(folder, "destroy")
    return said + circinus(folder, "status")


def unusable(folder: Path) -> str:
    said = circinus(folder, "explain", "n" * 300)
    (folder / "queries.yaml").unlink()
    os.mkfifo(folder / "queries.yaml")
    return said + circinus(folder, "validate", "queries.yaml")


CASES: dict[str, Callable[[Path], str]] = {
    "The plan is stale": stale,
    "The code of a plan is not trusted": untrusted,
    "A query is rejected": rejected,
    "The budget was too small": small_budget,
    "An operator cannot be loaded": broken_operator,
    "This machine is too small for the mode `real`": small_machine,
    "An engine still runs, or was killed": engine_left_over,
    "A file, a folder or the output cannot be used": unusable,
}


def test_every_section_is_checked() -> None:
    assert list(SECTIONS) == list(CASES)


@pytest.mark.slow
@pytest.mark.parametrize("title", CASES)
def test_every_quoted_message_is_printed(title: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    folder = prepared_starter(tmp_path_factory).copy(tmp_path / "application")
    said = CASES[title](folder)
    quoted = [
        line for block in re.findall(r"```text\n(.*?)```", SECTIONS[title], re.DOTALL) for line in block.splitlines()
    ]
    assert quoted
    for message in quoted:
        pattern = ".*?".join(re.escape(part) for part in message.split("…"))
        assert re.search(pattern, said), f"{message}\nis not in\n{said}"
