"""A learning curve with the real ensemble: more examples help, and what was read for one pool is known to the next."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from el4ner.config import PoolsSettings, Settings, load_settings
from el4ner.engines.remembered_states import remembering
from el4ner.evaluation import Dataset, EvaluationResult, evaluate
from el4ner.evaluation.learning_curve import learning_curve
from el4ner.evaluation.pool_subsets import subsets_of
from el4ner.loader import load_models, pipeline_from
from el4ner.models.prepare import default_cache_dir
from el4ner.pools import load_pools

pytestmark = [pytest.mark.models, pytest.mark.timeout(1200)]


def test_more_examples_help_and_a_further_pool_costs_less_reading(tmp_path: Path) -> None:
    settings = load_settings(Settings, environ={}, overrides={"ensemble": {"preset": "default"}})
    news = load_pools(settings.pools)["news"]
    pool = replace(news, name="part", sentences=news.sentences[:12])
    settings = settings.model_copy(update={"pools": PoolsSettings(default="part", paths={"part": "part"})})
    dataset = Dataset("news/part", "test", pool, news.sentences[12:18])
    assert dataset.sentences
    read: dict[int, int] = {}
    with load_models(settings, cache_dir=default_cache_dir()) as (engines, embedder):
        remembered = {name: remembering(engine) for name, engine in engines.items()}

        def run(part: Dataset) -> EvaluationResult:
            pipeline = pipeline_from(settings, remembered, {"part": part.pool}, embedder, cache_dir=tmp_path)
            ticks = itertools.count()
            result = evaluate(part, pipeline, clock=lambda: float(next(ticks)))
            read[len(part.pool.sentences)] = result.usage.prompt_tokens
            return result

        curve = learning_curve(dataset, subsets_of(pool, (2, None), 1), run)
    few, whole = curve.points
    assert whole.f1[0] > few.f1[0]
    assert few.missing >= whole.missing
    assert read[2] < 0.8 * read[12], "words and shared proposals are known; only other proposals are read"
