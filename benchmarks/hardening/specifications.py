"""Hostile specifications: mutated YAML and arrivals, texts that stand for far more than they hold, and odd files."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from ruamel.yaml import YAML

import circinus as c
from benchmarks.hardening.bounded_worker import HANG_S, Ending, Program, bounded
from benchmarks.hardening.files import note
from benchmarks.hardening.findings import Findings
from benchmarks.hardening.journal import Journal
from benchmarks.hardening.mutations import mutated_bytes, mutated_json, mutated_lines
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import ROOT

ARRIVALS = "arrivals.csv"
_STARTER = Path(c.__file__).parent / "cli" / "starter"
_ARRIVING = """---
apiVersion: circinus/v1
kind: Query
metadata: {name: recorded}
spec: {pipeline: PIPELINE, source: SITE, rate: 1/s, arrivals: {kind: recorded, file: arrivals.csv}}
"""
_QUANTITIES = (
    "0", "-1", "1e-300", "1e300", "1e12", "1e9", "1e400", ".nan", ".inf", "-.inf", "1e9/s", "1e12/s", "1e-300/s", "0/s",
    "1e300ms", "-5ms", "1e-320s", "9" * 400, "0x" + "f" * 4_000, "1" * 5_000, "1." + "0" * 5_000 + "s", "1e999999999s",
    "5" + " " * 50_000 + "a b", "latency" + " " * 5_000 + "x", "p95 <= 1e300s", "p0.0000001 <= 1s", "accuracy >= 1e300",
    "{min: 1e9, max: 1}", "{min: 0, max: 1000000000}", '"\\x1b[2J"', '"\\0"', '"\\U0010FFFF"', "!!int x", "!!set {a}",
    "*nowhere", "&a [*a]", "[[]]", "{{}: 1}", "? [a]", "''", "~", "1:30", "0o777", "true", "2024-01-01", "|\n", "'",
)  # fmt: skip
_MANY = 20_000
_UNPLACED = 9
"""Exit code of a fault without code, file, field or expectation in its list of problems."""


@dataclass(frozen=True)
class Sources:
    """Valid specifications to begin from."""

    texts: Sequence[str]

    @classmethod
    def of_examples(cls) -> Sources:
        """Return those of the examples and of `circinus init`, each with a query whose arrivals are recorded."""
        folders = sorted(path.parent for path in (ROOT / "examples").glob("*/pipeline.yaml"))
        folders.append(_STARTER)
        texts = []
        for folder in folders:
            specification = c.load_specification([folder])
            query = specification.queries[0]
            text = "---\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yaml")))
            arriving = _ARRIVING.replace("PIPELINE", query.pipeline).replace("SITE", query.source)
            texts.append(f"{text}\n{arriving}")
        return cls(texts)

    def draw(self, rng: np.random.Generator) -> str:
        """Return one of them, mostly the short one."""
        return self.texts[-1 if rng.random() < 0.7 else int(rng.integers(len(self.texts)))]


def _lines(text: str, rng: np.random.Generator) -> bytes:
    """Remove, repeat, move, indent or join lines."""
    lines = text.splitlines()
    for _ in range(int(rng.choice((1, 1, 2, 4)))):
        at, other = (int(rng.integers(len(lines))) for _ in range(2))
        kind = int(rng.integers(5))
        if kind == 0:
            del lines[at : at + int(rng.choice((1, 1, 5)))]
        elif kind == 1:
            lines[at:at] = [lines[other]] * int(rng.choice((1, 1, 100)))
        elif kind == 2:
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == 3:
            lines[at] = " " * int(rng.integers(1, 5)) + lines[at]
        else:
            lines[at] = lines[at].strip() if rng.random() < 0.5 else f"{lines[at]} {lines[other]}"
        lines = lines or [""]
    return "\n".join(lines).encode()


def _tree(text: str, rng: np.random.Generator) -> bytes:
    """Change values of the documents, and write them as JSON, which is YAML."""
    documents = list(YAML(typ="safe", pure=True).load_all(text))
    changed = mutated_json(json.dumps(documents, default=str), rng)
    try:
        parts = json.loads(changed)
        return b"\n---\n".join(json.dumps(part).encode() for part in parts)
    except (ValueError, TypeError, RecursionError):
        return changed


def _values(text: str, rng: np.random.Generator) -> bytes:
    """Replace one to three values behind `: ` by extreme ones."""
    lines = text.splitlines()
    candidates = [number for number, line in enumerate(lines) if ": " in line]
    for _ in range(int(rng.integers(1, 4))):
        at = candidates[int(rng.integers(len(candidates)))]
        places = [place for place in range(len(lines[at])) if lines[at].startswith(": ", place)]
        place = places[int(rng.integers(len(places)))] + 2
        rest = lines[at][place:]
        end = next((index for index, letter in enumerate(rest) if letter in ",}"), len(rest))
        if end == 0 or rng.random() < 0.3:
            end = len(rest)
        value = _QUANTITIES[int(rng.integers(len(_QUANTITIES)))]
        lines[at] = lines[at][:place] + value + rest[end:]
    return "\n".join(lines).encode()


def _bomb(text: str, rng: np.random.Generator) -> bytes:
    """Put in place of a value, or around the text, something that stands for far more than it holds."""
    width = int(rng.integers(2, 12))
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * width)}]" for n in range(1, int(rng.integers(3, 40)))]
    merges = [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * width)}], k{n}: 1}}" for n in range(1, 30)]
    many = int(rng.choice((100, 1_000, _MANY)))
    flat = ", ".join(map(str, range(many)))
    named = ", ".join(f"n{n}: {n}" for n in range(many))
    operators = "\n".join(f"    - {{name: o{n}, uses: 'a:b', after: [o{n - 1}]}}" for n in range(many))
    kind = int(rng.integers(12))
    if kind == 0:
        return "\n".join(["l0: &l0 [x]", *levels, f"kind: *l{len(levels)}", "apiVersion: circinus/v1"]).encode()
    if kind == 1:
        return "\n".join(["m0: &m0 {a: 1}", *merges, text]).encode()
    if kind == 2:
        return ("---\n[\n" * many + text).encode()
    if kind == 3:
        return (("[" if rng.random() < 0.5 else "{a: ") * many).encode()
    if kind == 4:
        return ("- " * many + "a\n" + text).encode()
    if kind == 5:
        return "\n---\n".join([text.replace("name: ", f"name: q{n}", 1) for n in range(min(many, 50))]).encode()
    if kind == 6:
        head = "apiVersion: circinus/v1\nkind: Pipeline\nmetadata: {name: long}\nspec:\n  operators:\n"
        return (head + operators + "\n  metric: {name: m, uses: 'a:b'}\n  dataset: {uses: 'a:b'}\n").encode()
    if kind == 7:
        return (text + "\n---\nkind: Query\n" + "".join(f"k{n}: {n}\n" for n in range(many))).encode()
    if kind == 8:
        return ("%YAML 1.2\n---\n" * many + text).encode()
    value = (f"[{flat}]", f"{{{named}}}", "[" + "[" * 90 + flat + "]" * 90 + "]", "x" * (50 * many))[kind % 4]
    lines = text.splitlines()
    candidates = [number for number, line in enumerate(lines) if ": " in line and not line.startswith(("api", "kind"))]
    at = candidates[int(rng.integers(len(candidates)))]
    lines[at] = f"{lines[at].partition(': ')[0]}: {value}"
    return "\n".join(lines).encode()


def _encoded(text: str, rng: np.random.Generator) -> bytes:
    """Write the text in another encoding, with other line ends, or with characters that are not allowed."""
    ways: Sequence[Callable[[], bytes]] = (
        lambda: text.encode("utf-16"),
        lambda: text.encode("utf-32"),
        lambda: b"\xef\xbb\xbf" + text.encode(),
        lambda: b"\xef\xbb\xbf\xef\xbb\xbf" + text.encode(),
        lambda: text.replace("\n", "\r\n").encode(),
        lambda: text.replace("\n", "\r").encode(),
        lambda: text.replace("\n", "\u2028").encode(),
        lambda: text.replace("e", "\u00e9").encode("latin-1"),
        lambda: text.replace("a", "\0", 1).encode(),
        lambda: text.replace("name: ", "name: \x1b]0;x\x07", 1).encode(),
        lambda: text.replace("\n", "\n\t").encode(),
        lambda: text.replace(" ", "\u00a0").encode(),
        lambda: b"",
        lambda: b"\n" * 1_000_000,
        lambda: b"#" * 1_000_000,
    )
    return ways[int(rng.integers(len(ways)))]()


def _odd_files(folder: Path, rng: np.random.Generator) -> None:
    """Put something else beside or in place of a file."""
    path, kind = folder / ("s.yaml" if rng.random() < 0.5 else "t.yaml"), int(rng.integers(7))
    path.unlink(missing_ok=True)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        path.symlink_to("/dev/zero")
    elif kind == 4:
        path.symlink_to("nowhere")
    elif kind == 5:
        with path.open("wb") as file:
            file.truncate(1 << 30)
    else:
        (folder / ARRIVALS).unlink()
        (folder / ARRIVALS).symlink_to(("/dev/zero", "/etc", "nowhere", ARRIVALS)[int(rng.integers(4))])


_TEXTS: dict[str, Callable[[str, np.random.Generator], bytes]] = {
    "bytes": lambda text, rng: mutated_bytes(text.encode(), rng),
    "lines": _lines,
    "tree": _tree,
    "values": _values,
    "bombs": _bomb,
    "encodings": _encoded,
}
_SHARES = {
    "bytes": 0.16, "lines": 0.16, "tree": 0.26, "values": 0.24, "bombs": 0.05, "encodings": 0.03, "arrivals": 0.06,
    "files": 0.04,
}  # fmt: skip
"""Kind of input -> share."""


@dataclass(frozen=True)
class SpecificationInput:
    """Mutated specification."""

    kind: str
    number: int
    seed: int

    @property
    def name(self) -> str:
        """Name by which the input can be repeated."""
        return f"{self.kind}/{self.number}"

    def write(self, sources: Sources, folder: Path) -> None:
        """Write the files to a new folder."""
        rng = np.random.default_rng([self.seed, zlib.crc32(self.kind.encode()), self.number])
        folder.mkdir()
        text = sources.draw(rng)
        times = "time_s,query\n" + "".join(f"{number * 0.21:.2f},recorded\n" for number in range(60))
        change = _TEXTS.get(self.kind)
        (folder / "s.yaml").write_bytes(text.encode() if change is None else change(text, rng))
        (folder / ARRIVALS).write_bytes(mutated_lines(times, rng) if self.kind == "arrivals" else times.encode())
        if self.kind == "files":
            _odd_files(folder, rng)

    def program(self, sources: Sources, folder: Path) -> Program:
        """Return the program that writes the files and reads them as all verbs do."""

        def program() -> None:
            self.write(sources, folder)
            os.chdir(folder)
            arguments = ([Path("s.yaml")], [Path()])[self.number % 2 or self.kind == "files"]
            sys.exit(read(arguments))

        return program


def read(paths: Sequence[Path]) -> int:
    """Load a specification, check and write it, print faults as JSON, and return the exit code."""
    try:
        specification = c.Workspace(list(paths)).validate(operators=False).specification
        specification.fingerprint()
        c.parse_specification(specification.to_yaml(), module_paths=specification.module_paths)
    except c.CircinusError as error:
        print(json.dumps({"kind": "error", "data": error.to_dict()}))
        faults: Sequence[Any] = error.to_dict()["diagnostics"]
        is_placed = all(fault["code"] and fault["file"] and fault["field"] and fault["expected"] for fault in faults)
        return error.exit_code if is_placed else _UNPLACED
    return 0


def specifications(inputs: int, seed: int, journal: Path, console: Console) -> PartResult:
    """Read mutated specifications, each in a process of its own with limits of time and memory.

    Args:
        inputs: number of inputs of all kinds.
        seed: of the mutations.
        journal: file of the outcomes; those of an interrupted run count.
        console: prints.
    """
    findings = Findings("specifications", journal=Journal(journal, seed=seed))
    left = (given for given in drawn(inputs, seed) if given.name not in findings.names)
    return examine(left, findings).result(console)


def drawn(inputs: int, seed: int) -> Iterator[SpecificationInput]:
    """Yield the inputs of all kinds."""
    for kind, share in _SHARES.items():
        for number in range(max(2, round(inputs * share))):
            yield SpecificationInput(kind, number, seed)


def examine(
    given: Iterator[SpecificationInput], findings: Findings, *, at_once: int | None = None, hang_s: float = HANG_S
) -> Findings:
    """Add how the reading of each input ends."""
    sources = Sources.of_examples()
    read([_STARTER])  # imports what each process needs
    with tempfile.TemporaryDirectory(prefix="circinus-specifications-") as name:
        scratch = Path(name)
        programs = ((one, one.program(sources, _folder(scratch, one))) for one in given)
        for one, run in bounded(programs, at_once=at_once, hang_s=hang_s):
            shutil.rmtree(_folder(scratch, one), ignore_errors=True)
            if run.code == _UNPLACED:
                findings.add(one.kind, Ending.VAGUE, name=one.name, text=run.last_line)
            else:
                note(findings, one.kind, one.name, run, ("--json",) if run.code else ())
    return findings


def _folder(scratch: Path, given: SpecificationInput) -> Path:
    return scratch / given.name.replace("/", "-")
