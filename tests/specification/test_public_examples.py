"""Examples in the docstrings of exported names: each name has one, and all of them run."""

from __future__ import annotations

import doctest

import pytest

import circinus

_PACKAGES = ("circinus.specification", "circinus.operators", "circinus.errors")
NAMES = sorted(
    name for name in circinus.__all__ if getattr(getattr(circinus, name), "__module__", "").startswith(_PACKAGES)
)


def test_all_packages_export_names() -> None:
    modules = {getattr(circinus, name).__module__ for name in NAMES}
    assert all(any(module.startswith(package) for module in modules) for package in _PACKAGES)
    assert len(NAMES) > 30


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_a_name_run(name: str) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(circinus, name), name=name, globs={})
    assert test.examples, f"{name} has no example"
    output: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF)
    failures, _ = runner.run(test, out=output.append)
    assert not failures, "".join(output)
