"""The double that stands for an engine with states behaves as one."""

import pytest

from tests.support.doubles import ScriptedStateEngine
from tests.support.engine_conformance import StateConformance


class TestScriptedStateEngine(StateConformance):
    caches = False

    @pytest.fixture
    def engine(self) -> ScriptedStateEngine:
        return ScriptedStateEngine("scripted")
