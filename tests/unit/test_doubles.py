"""The double that stands for an engine with states behaves as one."""

import pytest
from doubles import ScriptedStateEngine

from tests.engine_conformance import StateConformance


class TestScriptedStateEngine(StateConformance):
    caches = False

    @pytest.fixture
    def engine(self) -> ScriptedStateEngine:
        return ScriptedStateEngine("scripted")
