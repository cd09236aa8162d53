"""The packaged models read as those did that the shipped evidence was made with."""

from __future__ import annotations

import pytest

from el4ner.engines.base import StateEngine
from el4ner.engines.registry import load_engine
from el4ner.models.prepare import default_cache_dir
from tools.shipped_evidence import prepared_settings, recorded_members

pytestmark = pytest.mark.models


@pytest.mark.parametrize("name", sorted(recorded_members()))
def test_a_packaged_member_finds_the_shipped_evidence(name: str) -> None:
    settings = prepared_settings("default").models[name].model_copy(update={"dtype": "auto"})
    engine = load_engine(name, settings, cache_dir=default_cache_dir())
    assert isinstance(engine, StateEngine)
    assert engine.states_fingerprint == recorded_members()[name], "run `make evidence`, and commit what it changes"
    engine.close()
