"""``retrieval.pool_spans = "models"`` with the real ensemble: it proposes spans in a pool once, as in the input."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from el4ner.config import Settings, load_settings
from el4ner.engines.torch.transformers_engine import TransformersEngine
from el4ner.loader import load_pipeline
from el4ner.models.prepare import default_cache_dir
from el4ner.models.progress import NO_PROGRESS
from el4ner.pool_retrievers import INDEX_FOLDER
from el4ner.prompts import PromptSet
from el4ner.stages import StageContext
from el4ner.stages.pool_proposals import ProposedSurfaces
from el4ner.types import Document, DocumentCandidates

# Every time: the same with scripted members, in tests/unit/el4ner/stages/test_pool_proposals.py.
pytestmark = [pytest.mark.models, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)]


def test_the_default_members_propose_a_pools_spans_once(tmp_path: Path) -> None:
    pool = tmp_path / "few.jsonl"
    news = (resources.files("el4ner") / "pools" / "news" / "sentences.jsonl").read_text(encoding="utf-8")
    pool.write_text("\n".join(news.splitlines()[:4]))

    def settings(spans: str) -> Settings:
        overrides: dict[str, Any] = {
            "ensemble": {"preset": "default"},
            "pools": {"default": "few", "paths": {"few": str(pool)}},
            "method": {"mode": "paper"},  # whose prompts show demonstrations
            "retrieval": {"k": 2, "pool_spans": spans},
        }
        return load_settings(Settings, environ={}, overrides=overrides)

    with load_pipeline(settings("models"), stages=["extract"]) as pipeline:
        assert list(pipeline.engines) == list(pipeline.settings.ensemble.members)
        few, members = pipeline.pools["few"], list(pipeline.engines.values())
        by_models = pipeline.manifest("extract", "few").retriever
        (found,) = pipeline.extract([Document("d", few.sentences[0].text)])
        assert isinstance(found, DocumentCandidates)
        assert 0 not in found.sentences[0].demonstrations
        assert len(found.sentences[0].demonstrations) == 2
        context = StageContext(few, PromptSet("v1"), pipeline.settings.method)
        kept = ProposedSurfaces(context, members, default_cache_dir() / INDEX_FOLDER, NO_PROGRESS).by_sentence()
        assert any(kept)
        for surfaces, sentence in zip(kept, few.sentences, strict=True):
            assert all(surface in sentence.text for surface in surfaces)
    with load_pipeline(settings("models"), stages=["extract"]) as pipeline:
        for engine in pipeline.engines.values():
            assert isinstance(engine, TransformersEngine)
            assert engine.forward_tokens == 0  # what it proposed stands in a file
        assert pipeline.manifest("extract", "few").retriever == by_models
    with load_pipeline(settings("labelled"), stages=["validate"]) as pipeline:
        assert pipeline.manifest("validate", "few").retriever != by_models
