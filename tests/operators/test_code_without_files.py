"""Operators of `python -` and `exec`, and modules that call the workspace while their operators are imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import circinus as c
from circinus.operators import operator_of, resolve, resolve_operator
from raised import raises_code


def _version(text: str) -> str:
    namespace: dict[str, Any] = {"c": c}
    exec(f"FACTOR = 2\ndef helped(x): return x + 1\n{text}", namespace)
    factory = operator_of(namespace["scale"])
    assert factory is not None
    return factory.version


FUNCTION = "@c.operator\ndef scale(x, *, k=1): return [helped(x) * FACTOR * k for _ in (1,)]"
CLASS = """@c.operator
class scale:
    OFFSET = 1
    def __init__(self, *, k=1): self.k = k
    @property
    def half(self): return 0.5
    @staticmethod
    def process(values): return [helped(value) * FACTOR for value in values]
"""


@pytest.mark.parametrize("text", [FUNCTION, CLASS])
def test_the_version_is_that_of_the_bytecode(text: str) -> None:
    assert _version(text) == _version(f"\n\n{text}")


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (FUNCTION, "* k", "+ k"),
        (FUNCTION, "k=1", "k=2"),
        (FUNCTION, "@c", "FACTOR = 3\n@c"),
        (FUNCTION, "@c", "def helped(x): return x + 2\n@c"),
        (CLASS, "OFFSET = 1", "OFFSET = 2"),
        (CLASS, "* FACTOR", "+ FACTOR"),
        (CLASS, "0.5", "0.25"),
    ],
)
def test_another_code_or_constant_is_another_version(text: str, old: str, new: str) -> None:
    assert _version(text) != _version(text.replace(old, new))


PROGRAM = """
import circinus as c
@c.operator
def double(x): return x * FACTOR
FACTOR = 2
spec = c.OperatorSpec(name="a", uses=double)
print(spec.uses)
"""


def test_an_operator_of_standard_input_is_imported_by_other_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-"]
    references = {
        subprocess.run(command, input=PROGRAM, cwd=tmp_path, text=True, capture_output=True, check=True).stdout.strip()
        for _ in range(2)
    }
    (reference,) = references
    assert resolve_operator(reference, [tmp_path / ".circinus" / "code"]).create({}, 1.0).process([1, 2]) == [2, 4]


def test_a_module_that_calls_the_workspace_while_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unguarded_module.py").write_text(
        "import circinus as c\ndef metric(output, truth): return 1.0\nc.Workspace(c.Specification.of([])).validate()\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    with raises_code(c.OperatorError, "script.not_guarded") as caught:
        resolve("unguarded_module:metric", [tmp_path])
    assert caught.value.location == "module unguarded_module"
    c.Workspace(c.Specification.of([])).validate()
