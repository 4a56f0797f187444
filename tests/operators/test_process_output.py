"""Output of operators' processes: one bounded file for each process, and its last lines in errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from budget import HANG_LIMIT_S
from circinus.errors import CircinusError
from circinus.operators import process_output
from circinus.operators.executor_process import OperatorProcessError
from circinus.operators.fork_server_client import ForkServerClient
from circinus.operators.host import OperatorHost
from circinus.operators.pickling import pickle_value, unpickle_value
from circinus.operators.process_output import excerpt, open_output, output_folder
from circinus.profiling.measurement.operator_process import OperatorProcess, OperatorProcessKey
from circinus.specification import KnobValues
from raised import raises_code

SOURCE = """
import os, sys
from circinus.operators import operator

@operator(version="1")
class Talker:
    def __init__(self):
        print("loading")
    def process(self, commands):
        (command,) = commands
        print("said", command)
        if command == "fail":
            print("on the way", file=sys.stderr)
            raise ValueError("no")
        if command == "abort":
            os.abort()
        if command == "much":
            print("x" * 999_999)
        return commands

@operator(version="1")
class Mute:
    def __init__(self):
        print("cannot load")
        raise ValueError("no")
    def process(self, values):
        return values

@operator(version="1")
class Redirector:
    def process(self, commands):
        (command,) = commands
        if command == "closed":
            os.closerange(1, 3)
        else:
            reader, writer = os.pipe()
            os.close(reader)
            own = os.open(__file__ + ".own", os.O_RDWR | os.O_CREAT)
            if not os.fstat(own).st_size:
                os.truncate(own, 2**21)
            target = {"devnull": os.open(os.devnull, os.O_WRONLY), "pipe": writer, "own": own}[command]
            os.dup2(target, 1)
            os.dup2(target, 2)
        raise ValueError("no")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "talkative.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def processes() -> Iterator[ForkServerClient]:
    client = ForkServerClient(OperatorHost)
    yield client
    client.close()


def started(processes: ForkServerClient, folder: Path, output: Path | None, name: str = "Talker") -> OperatorProcess:
    key = OperatorProcessKey(f"talkative:{name}", "1", KnobValues(), 1.0)
    return OperatorProcess(processes, key, (folder,), HANG_LIMIT_S, output)


def call(process: OperatorProcess, command: str) -> Any:
    return unpickle_value(next(process.process_each([[[pickle_value(command)]]])).outputs[0])


@pytest.mark.parametrize("kept", [False, True])
def test_errors_end_with_what_the_failing_call_printed(processes: ForkServerClient, folder: Path, kept: bool) -> None:
    output = folder / "output" if kept else None
    process = started(processes, folder, output)
    assert call(process, "hello") == "hello"
    for _ in range(2):
        with pytest.raises(
            OperatorProcessError, match=r"no \(talkative.py:14\); last output: said fail \| on the way$"
        ):
            call(process, "fail")
    with pytest.raises(OperatorProcessError, match=r"was killed by SIGABRT; last output: .*said abort"):
        call(process, "abort")
    with pytest.raises(OperatorProcessError, match=r"no .*; last output: cannot load$"):
        started(processes, folder, output, "Mute")
    if output is not None:
        lines = (output / "talkative.Talker.log").read_text(encoding="utf-8").splitlines()
        assert lines[:3] == ["loading", "said hello", "said hello"]
        assert any(line.startswith("Traceback") for line in lines)
        assert "cannot load" in (output / "talkative.Mute.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", ["devnull", "pipe", "own", "closed"])
def test_an_operator_may_redirect_its_output(processes: ForkServerClient, folder: Path, target: str) -> None:
    process = started(processes, folder, folder / "output", "Redirector")
    for _ in range(2):
        with pytest.raises(OperatorProcessError, match=r"^ValueError: no \(talkative.py:\d+\)$"):
            call(process, target)
    assert process.alive
    process.close()
    if target == "own":
        assert (folder / "talkative.py.own").stat().st_size >= 2**21


def test_files_are_bounded_and_of_one_process_each(processes: ForkServerClient, folder: Path) -> None:
    output = folder / "output"
    first, second = (started(processes, folder, output) for _ in range(2))
    for _ in range(3):
        assert call(first, "much") == "much"
    assert call(first, "hello") == "hello"
    file = output / "talkative.Talker.log"
    assert file.stat().st_size < 2 * process_output._LIMIT_BYTES
    assert file.read_bytes().endswith(b"said hello\n")
    assert b"\0" not in file.read_bytes()
    with pytest.raises(OperatorProcessError, match=r"SIGABRT; last output: loading \| said abort"):
        call(second, "abort")
    assert (output / "talkative.Talker.2.log").read_bytes().startswith(b"loading\nsaid abort\n")
    first.close()


def test_a_file_is_opened_again_when_its_process_has_ended(tmp_path: Path) -> None:
    limit = process_output._LIMIT_BYTES
    with open_output(tmp_path, "a:B") as first, open_output(tmp_path, "a:B") as second:
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.B.2.log", "a.B.log"]
        first.write(b"x" * limit)
        second.write(b"second")
    with open_output(tmp_path, "a:B") as third:  # so that what a later cut leaves is all its own
        assert os.fstat(third.fileno()).st_size == limit // 2
        assert excerpt(third.fileno(), start=limit // 2) == ""
    assert len(list(tmp_path.iterdir())) == 2


def test_an_excerpt_is_the_last_lines_behind_an_offset(tmp_path: Path) -> None:
    with open_output(tmp_path / "new", "a.b:C") as file:
        assert excerpt(file.fileno()) == ""
        file.write(b"one\n\n  two\x1b[0m\n\tthree  3\nfour\n" + b"y" * 500 + b"\n")
        assert excerpt(file.fileno()) == f"; last output: three 3 | four | {'y' * 120}…"
        assert excerpt(file.fileno(), start=file.tell()) == ""
        assert excerpt(file.fileno(), start=10**9).startswith("; last output: three 3")  # the file was cut
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.b.C.log"]


def test_the_folder_is_beside_its_owner() -> None:
    assert output_folder(Path("a/.circinus/engine")) == Path("a/.circinus/engine-output")
    assert output_folder(Path("a/profiles.sqlite")) == Path("a/profiles-output")


@pytest.mark.parametrize("place", [Path.symlink_to, Path.hardlink_to])
def test_links_are_not_followed(tmp_path: Path, place: Any) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "output"
    victim.write_bytes(b"x" * (process_output._LIMIT_BYTES + 1))
    folder.mkdir(mode=0o700)
    place(folder / "a.B.log", victim)
    with raises_code(CircinusError, "output.unsafe"):
        open_output(folder, "a:B")
    (tmp_path / "link").symlink_to(tmp_path)
    with raises_code(CircinusError, "output.unsafe"):
        open_output(tmp_path / "link", "a:B")
    assert victim.stat().st_size == process_output._LIMIT_BYTES + 1
