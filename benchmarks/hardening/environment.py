"""Commands in odd environments: locales, terminals, variables, streams, limits, disks and working folders."""

from __future__ import annotations

import errno
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.hardening.bounded_worker import BoundedRun, Ending
from benchmarks.hardening.files import note
from benchmarks.hardening.findings import Findings
from benchmarks.hardening.journal import Journal
from benchmarks.hardening.starter import PLAN, StarterApplication, environment, prepared, verb
from benchmarks.harness.benchmark import PartResult

_LIMIT_S = 60.0
"""Time limit of a command, whose start alone takes a second on a busy machine; verbs wait for nothing longer."""
_JUDGED = Ending.TRACEBACK, Ending.CRASH, Ending.HANG, Ending.VAGUE
_SMALL_DISK = "64k"
VERBS = (
    ("--help",), ("--version",), ("init", "new"), ("validate",), ("schema",), ("explain", PLAN), ("status",),
    ("plan", "-o", "other.json"), ("simulate", PLAN, "--duration", "20s"), ("render", "kubernetes", PLAN), ("events",),
    ("profile", "--show"), ("report", PLAN, "--what-if", "0s"), ("forget",), ("destroy",), ("explain", "nothing.json"),
    ("validate", "no-such-folder"),
)  # fmt: skip


@dataclass(frozen=True)
class Surroundings:
    """Environment of one command."""

    name: str
    variables: Mapping[str, str | None] = field(default_factory=dict)
    """Variables to set; None: to remove."""
    limits: Sequence[tuple[int, int]] = ()
    """Limits of resources."""
    closed: Sequence[int] = ()
    """Standard streams that are closed."""
    streams: Mapping[int, str] = field(default_factory=dict)
    """Standard stream -> file."""
    shell: str = ""
    """Commands in a mount namespace of its own, before the verb; `$FOLDER` is the application."""
    columns: int | None = None
    """Columns of a pseudo-terminal that the output goes to."""
    folder: str = ""
    """Name of the working folder: odd characters, or `deleted`."""

    @property
    def kind(self) -> str:
        """Group for tables: the name of a variable, or the name without values."""
        return (
            self.name.partition("=")[0] if "=" in self.name else " ".join(re.sub(r"'.*'|[0-9]+", "", self.name).split())
        )

    @property
    def is_visible(self) -> bool:
        """Return whether a message can be read."""
        return not ({1, 2} & {*self.closed, *self.streams})


def _texts(name: str, *values: str | None) -> Iterator[Surroundings]:
    for value in values:
        yield Surroundings(f"{name}={value!r}"[:60], {name: value})


def all_surroundings() -> list[Surroundings]:
    """Return all environments; those with mounts only where mounting is allowed."""
    limit = resource.RLIMIT_NOFILE
    listed = [
        *_texts("LANG", "C", "", "xx_YY.nothing"),
        *(Surroundings(f"output is {encoding}", {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C"})
          for encoding in ("ascii", "latin-1", "cp437", "utf-16")),
        Surroundings("POSIX locale", {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        *_texts("TERM", None, "dumb", "nonsense", ""),
        *_texts("COLUMNS", "0", "1", "-5", "abc", "1000000", "7"),
        *_texts("HOME", None, "", "/dev/null", "/nowhere/at/all", "~"),
        *_texts("TMPDIR", "/nowhere", "/dev/null", ""),
        *_texts("XDG_STATE_HOME", "", "/dev/null/x", "relative", "/proc/x"),
        *_texts("CIRCINUS_RUN_DIR", "", "/dev/null", "x" * 300, "/proc/self/x", "\udcff"),
        *_texts("CIRCINUS_ENGINE", "", "cloud"),
        *_texts("TZ", "", "Nonsense/Nowhere", ":/dev/zero"),
        *_texts("FORCE_COLOR", "1"), *_texts("NO_COLOR", "1"), *_texts("PYTHONWARNINGS", "error::DeprecationWarning"),
        Surroundings("no variables", dict.fromkeys(os.environ)),
        *(Surroundings(f"stream {number} closed", closed=(number,)) for number in (0, 1, 2)),
        Surroundings("all streams closed", closed=(0, 1, 2)),
        *(Surroundings(f"stream {number} is full", streams={number: "/dev/full"}) for number in (1, 2)),
        Surroundings("the reader has gone", streams={1: "|"}),
        *(Surroundings(f"{count} descriptors", limits=((limit, count),)) for count in (10, 16, 24, 40)),
        *(Surroundings(f"files of at most {size} bytes", limits=((resource.RLIMIT_FSIZE, size),))
          for size in (0, 4_096)),
        Surroundings("256 MiB of addresses", limits=((resource.RLIMIT_AS, 256 * 2**20),)),
        Surroundings("no CPU left for cores", limits=((resource.RLIMIT_CORE, 0), (resource.RLIMIT_STACK, 2**18))),
        *(Surroundings(f"terminal of {columns} columns", columns=columns) for columns in (0, 1, 10, 65_535)),
        *(Surroundings(f"working folder {name!r}", folder=name)
          for name in ("deleted", "a b", "-x", "a\nb", "[red]x[/red]", "\udcff\udcfe", "é" * 60, "$(id)", "x" * 200)),
    ]  # fmt: skip
    if can_mount():
        listed += [
            Surroundings("the folder is read-only", shell=_READ_ONLY),
            Surroundings("the disk of the folder is full", shell=_FULL),
            Surroundings("no /proc", shell="mount -t tmpfs none /proc"),
            Surroundings("nothing to write to in /dev/shm", shell="mount -t tmpfs -o ro none /dev/shm"),
        ]  # fmt: skip
    return listed


_READ_ONLY = 'mount --bind "$FOLDER" "$FOLDER" && mount -o remount,ro,bind "$FOLDER" && cd "$FOLDER"'
_FULL = (
    'mkdir "$FOLDER.kept" && cp -a "$FOLDER/." "$FOLDER.kept" && '
    f'mount -t tmpfs -o size={_SMALL_DISK} none "$FOLDER" && '
    '{ cp -a "$FOLDER.kept/." "$FOLDER" 2>/dev/null; dd if=/dev/zero of="$FOLDER/fill" 2>/dev/null; cd "$FOLDER"; }'
)


def can_mount() -> bool:
    """Return whether this process may mount file systems in a namespace of its own."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


def environments(inputs: int, seed: int, journal: Path, console: Console) -> PartResult:
    """Run verbs in odd environments.

    Args:
        inputs: number of commands; environments in turns, each with a random verb.
        seed: of the verbs.
        journal: file of the outcomes; those of an interrupted run count.
        console: prints.
    """
    rng = np.random.default_rng([seed, 100])
    findings = Findings("environment", _JUDGED, _LIMIT_S, Journal(journal, seed=seed))
    with tempfile.TemporaryDirectory(prefix="circinus-environment-") as scratch, ExitStack() as stack:
        application = prepared()
        listed = all_surroundings()
        order = np.concatenate([rng.permutation(len(listed)) for _ in range(-(-inputs // len(listed)))])[:inputs]
        drawn = [
            OddCommand(number, listed[place], VERBS[int(rng.integers(len(VERBS)))], bool(rng.random() < 0.6))
            for number, place in enumerate(order.tolist())
        ]
        pool = stack.enter_context(ThreadPoolExecutor(os.cpu_count() or 1))
        left = [given for given in drawn if given.name not in findings.names]
        runs = pool.map(lambda given: given.run(application, Path(scratch)), left)
        for given, run in zip(left, runs, strict=True):
            kind, name = given.surroundings.kind, given.name
            if given.surroundings.is_visible:
                note(findings, kind, name, run, given.text.split())
            else:
                ending = run.ending if run.ending is not Ending.VAGUE else Ending.MESSAGE  # which nothing can read
                findings.add(kind, ending, name=name, text=run.last_line, wall_s=run.wall_s)
    return findings.result(console)


@dataclass(frozen=True)
class OddCommand:
    """Command in an odd environment."""

    number: int
    surroundings: Surroundings
    arguments: tuple[str, ...]
    as_json: bool

    @property
    def name(self) -> str:
        """Name by which the input can be repeated."""
        return f"{self.number}: {self.surroundings.name}: {self.text}"

    @property
    def text(self) -> str:
        """Command as typed."""
        as_json = self.as_json and not self.arguments[0].startswith("--")
        return " ".join([*self.arguments, *(["--json"] if as_json else [])])

    def run(self, application: StarterApplication, scratch: Path) -> BoundedRun:
        """Run the command in a copy of the application."""
        parent, odd = scratch / str(self.number), self.surroundings
        folder = application.copy(parent / (odd.folder or "application"))
        command = verb(*self.text.split())
        if odd.folder == "deleted":
            command = ["sh", "-c", 'rm -r "$PWD" && exec "$@"', "sh", *command]
        if odd.shell:
            command = ["unshare", "-m", "sh", "-c", f'{odd.shell} && exec "$@"', "sh", *command]
        variables = {**environment(), "FOLDER": str(folder)}
        for name, value in odd.variables.items():
            if name != "PYTHONPATH":  # without it there would be no command
                variables.pop(name, None)
                if value is not None:
                    variables[name] = value
        try:
            return bounded_in(odd, command, folder, variables)
        finally:
            shutil.rmtree(parent, ignore_errors=True)


def bounded_in(
    surroundings: Surroundings, command: Sequence[str], folder: Path, variables: Mapping[str, str]
) -> BoundedRun:
    """Run a command in its environment, with its output in pipes or in a pseudo-terminal."""
    start_s = time.monotonic()
    with ExitStack() as stack:
        terminal = stack.enter_context(_Terminal(surroundings.columns)) if surroundings.columns is not None else None
        output = subprocess.PIPE if terminal is None else terminal.end
        process = subprocess.Popen(
            command, cwd=folder, env=dict(variables), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, preexec_fn=_prepared(surroundings),
        )  # fmt: skip
        try:
            outputs, is_hung = process.communicate(timeout=_LIMIT_S), False
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            outputs, is_hung = process.communicate(), True
        encoding = variables.get("PYTHONIOENCODING", "utf-8")
        stdout, stderr = ((text or b"").decode(encoding, errors="replace") for text in outputs)
        if terminal is not None:  # progress comes before a document
            shown = terminal.text().replace("\r\n", "\n")
            stdout = shown[max(shown.find('{\n  "schema_version"'), 0) :]
    return BoundedRun(process.returncode, stdout, stderr, time.monotonic() - start_s, 0, is_hung)


def _prepared(surroundings: Surroundings) -> Callable[[], None]:
    def prepare() -> None:
        for number, path in surroundings.streams.items():
            if path == "|":
                reader, writer = os.pipe()
                os.close(reader)
                os.dup2(writer, number)
            else:
                os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY), number)
        for number in surroundings.closed:
            os.close(number)
        for kind, value in surroundings.limits:
            resource.setrlimit(kind, (value, value))

    return prepare


class _Terminal:
    """Pseudo-terminal with a number of columns, whose output a thread collects."""

    def __init__(self, columns: int) -> None:
        import fcntl
        import struct
        import termios
        import threading

        self._reader, self.end = pty.openpty()
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._output = bytearray()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def __enter__(self) -> _Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.text()

    def text(self) -> str:
        """Close the end of the program, and return all that it printed."""
        if self.end >= 0:
            os.close(self.end)
            self.end = -1
        self._thread.join(5.0)
        return self._output.decode("utf-8", errors="replace").replace("\r\n", "\n")

    def _collect(self) -> None:
        try:
            while data := os.read(self._reader, 2**16):
                self._output += data
        except OSError as error:
            if error.errno != errno.EIO:  # all other ends are closed
                raise
        finally:
            os.close(self._reader)
