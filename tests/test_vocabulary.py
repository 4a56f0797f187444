"""The vocabulary holds: no banned identifiers, unique class names, and a public surface that is a list."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import circinus
from source_trees import source_tree

SOURCE = Path(circinus.__file__).parent
BANNED = frozenset(
    {
        *("told", "beside", "odds", "wanted", "patience", "alone", "whoever", "who", "whom", "whose", "why", "known"),
        *("judged", "surely", "worth", "alike", "least", "there", "here", "nobody", "somebody", "anew", "meanwhile"),
    }
)
"""Words of identifiers that paraphrase a term or are no noun (see docs/glossary.md)."""


EXCEPTIONS = frozenset({"at_least", "_PRIOR_ODDS"})
"""Comparisons (a YAML field, too), and a term of statistics."""

RESULT_WRAPPERS = frozenset({"LoadReport", "SimulationReport"})
"""Results of the API that wrap the value of the same name with rows, frames and JSON."""


Trees = dict[Path, ast.Module]


@pytest.fixture(scope="module")
def trees() -> Trees:
    """Return the syntax tree of each source file."""
    paths = [path for path in sorted(SOURCE.rglob("*.py")) if "starter" not in path.relative_to(SOURCE).parts]
    return {path.relative_to(SOURCE): source_tree(path) for path in paths}


def test_public_class_names_are_unique(trees: Trees) -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path))
    assert len(places) > 100
    twice = {name: paths for name, paths in places.items() if len(paths) > 1 and name not in RESULT_WRAPPERS}
    assert not twice


def _identifiers(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines: classes, functions, parameters, fields and variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def test_no_identifier_has_a_banned_word(trees: Trees) -> None:
    banned = {
        f"{path}: {name}"
        for path, tree in trees.items()
        for name in _identifiers(tree)
        if name not in EXCEPTIONS and not name.startswith("test_") and BANNED & set(name.lower().split("_"))
    }
    assert not banned, "\n".join(sorted(banned))


def test_every_error_of_the_interface_has_a_code(trees: Trees) -> None:
    family = {name for name in dir(circinus) if name.endswith("Error")} - {
        "SpecError",
        "OverloadedError",
    }  # have codes of their own
    missing, codes = [], set()
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in family:
                values = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
                passed_on = any(keyword.arg is None for keyword in node.keywords)
                if not values and not passed_on:
                    missing.append(f"{path}:{node.lineno}")
                codes |= {value.value for value in values if isinstance(value, ast.Constant)}
    assert not missing, "\n".join(missing)
    assert len(codes) > 100
    assert not [code for code in codes if not re.fullmatch(r"[a-z_]+\.[a-z_0-9]+", str(code))]
