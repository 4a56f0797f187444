"""The local engine in the background, through its client."""

from __future__ import annotations

import pytest

from circinus.serving.conformance import EngineConformance
from circinus.serving.local.client import LocalEngineClient, start_daemon


class TestLocalEngineClient(EngineConformance):
    @pytest.fixture
    def engine(self, tmp_path_factory: pytest.TempPathFactory) -> LocalEngineClient:
        return start_daemon(tmp_path_factory.mktemp("engine"))
