"""Verbs at an engine that is suspended, or in a folder with links to files of others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import psutil
import pytest

from circinus.serving.local.run_dir import RunDirectory
from circinus.serving.settings import SERVING
from cli_runner import run_circinus
from prepared import prepared_starter

pytestmark = pytest.mark.slow

VERBS = {
    "status": ("status", "--json"),
    "apply": ("apply", "--mode", "replay", "--json"),
    "load": ("load", "--duration", "1s", "--json"),
    "request": ("request", "typing-aid", "--json"),
    "serve": ("serve", "--mode", "replay", "--json"),
    "destroy": ("destroy", "--json"),
}
"""Verb -> arguments; `destroy` is the last, as it ends the engine."""


@pytest.fixture
def application(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Path]:
    folder = prepared_starter(tmp_path_factory).copy(tmp_path / "application")
    yield folder
    run_circinus("destroy", cwd=folder)


def code_of(verb: str, application: Path) -> str:
    """Return the code of the error with which a verb ends."""
    run = run_circinus(*VERBS[verb], cwd=application)
    assert run.returncode == 1, run.stdout + run.stderr
    document = json.loads(run.stdout[run.stdout.rfind("\n{") + 1 :])  # `serve` may have printed events before
    assert document["kind"] == "error"
    return str(document["data"]["code"])


def test_every_verb_ends_at_a_suspended_engine(application: Path) -> None:
    assert run_circinus(*VERBS["apply"], cwd=application).returncode == 0
    process = RunDirectory(application / ".circinus" / "engine").process()
    assert process is not None
    engine = psutil.Process(process)
    engine.suspend()
    short = replace(SERVING, daemon_status_timeout_s=0.3, daemon_close_timeout_s=1.0)
    with patch("circinus.serving.local.client.SERVING", short):
        for verb in list(VERBS)[:-1]:
            assert code_of(verb, application) == "engine.silent", verb
        run = run_circinus(*VERBS["destroy"], cwd=application)
    assert json.loads(run.stdout)["data"]["killed"]
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE


def test_no_verb_follows_a_link_in_the_run_folder(application: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = application / ".circinus" / "engine"
    folder.mkdir(mode=0o700)
    (folder / "log").symlink_to(victim)
    for verb in VERBS:
        assert code_of(verb, application) == "run_folder.unsafe", verb
    assert victim.read_text() == "precious"
    (folder / "log").unlink()


def test_links_beside_the_run_folder_are_not_followed(application: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    state = application / ".circinus" / "engine-control.sqlite"
    state.symlink_to(victim)
    assert code_of("serve", application) == "control.unsafe"
    state.unlink()
    output = application / ".circinus" / "engine-output"
    output.symlink_to(tmp_path)
    run = run_circinus("apply", "--mode", "real", "--json", cwd=application)
    assert json.loads(run.stdout)["data"]["code"] == "output.unsafe"
    assert victim.read_bytes() == b""
