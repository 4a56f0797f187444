"""The pipeline that hears words, profiled once for all tests that need it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from listening import Listening
from listening import listening as _listening


@pytest.fixture(scope="session")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    yield from _listening(tmp_path_factory.mktemp("listening"))
