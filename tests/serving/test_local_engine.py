"""The local engine inside the calling process."""

from __future__ import annotations

import pytest

from circinus.serving.conformance import EngineConformance
from circinus.serving.local.engine import LocalEngine


class TestLocalEngine(EngineConformance):
    @pytest.fixture
    def engine(self) -> LocalEngine:
        return LocalEngine()
