"""The examples of `docs/extending.md` on testing an engine run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")


def example(first: str) -> dict[str, Any]:
    """Run the only example that begins with a line, and return its names."""
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if code.startswith(first)]
    names: dict[str, Any] = {"__name__": "example"}
    exec(code, names)
    return names


def test_an_engine_of_a_reader_is_tested_by_conformance() -> None:
    names = example("import pytest\n")
    tests, engine = names["TestCountingEngine"](), names["CountingEngine"]()
    tests.test_fork_and_join_keep_the_order_of_inputs(engine)
    assert engine.requests == 1


def test_what_calls_an_engine_is_tested_on_random_plans_with_a_fake_one() -> None:
    names = example("import asyncio\n")
    assert names["response"].output == 42
    assert names["engine"].applied == [names["desired"]]
