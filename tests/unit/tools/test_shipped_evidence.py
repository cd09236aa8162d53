"""The evidence that ships is that of the pools that ship: nobody who uses the defaults reads a pool.

Without models: members stand in that refuse to read. They have the fingerprints for which the evidence was made; that
the packaged models have them too is tested with the models (tests/integration/test_shipped_evidence_models.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from el4ner.engines.base import StateRequest, StateResult
from el4ner.evidence.prepared import SHIPPED
from el4ner.loader import pipeline_from
from el4ner.pools import load_pools
from tests.support.doubles import ScriptedStateEngine, ToldProgress
from tools.shipped_evidence import ENSEMBLES, prepared_settings, recorded_members

ADVICE = "the shipped evidence is out of date: run `make evidence`, and commit what it changes"


class Unreading(ScriptedStateEngine):
    def __init__(self, name: str, states_fingerprint: str) -> None:
        super().__init__(name)
        self.states_fingerprint = states_fingerprint

    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        raise AssertionError(ADVICE)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_the_shipped_pools_need_no_reading_and_no_weighing(ensemble: str, tmp_path: Path) -> None:
    settings = prepared_settings(ensemble)
    recorded = recorded_members()
    engines = {name: Unreading(name, recorded[name]) for name in settings.ensemble.members}
    progress = ToldProgress()
    pipeline = pipeline_from(settings, engines, load_pools(settings.pools), None, cache_dir=tmp_path, progress=progress)
    assert not progress.labels, ADVICE
    assert all(pipeline.calibration(pool) is not None for pool in settings.pools.paths)


def test_the_shipped_evidence_is_small() -> None:
    size = sum(file.stat().st_size for file in SHIPPED.folder.iterdir())
    assert size < 6_000_000, f"{size / 1e6:.1f} MB go into every wheel, and into the history with every change"
