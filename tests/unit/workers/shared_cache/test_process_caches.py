"""A process asks Redis for what it can use, and for nothing else; whoever scrapes sees what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from workers.config import StreamSettings, load_stream_settings
from workers.shared_cache.process_caches import process_caches
from workers.telemetry.metrics import Metrics

ALL = ("extract", "classify", "validate")
PAPER = {"method": {"mode": "paper"}}


def configured(sections: dict[str, Any]) -> StreamSettings:
    # Nobody listens there.
    redis = {"url": "redis://127.0.0.1:1/0", **sections.get("redis", {})}
    return load_stream_settings(environ={}, overrides={**sections, "redis": redis})


@pytest.mark.parametrize(
    ("sections", "stages", "retrieves", "shares"),
    [
        ({}, ALL, False, ("classify", "extract")),
        ({"method": {"validation": "soft"}}, ALL, True, tuple(sorted(ALL))),
        (PAPER, ALL, True, tuple(sorted(ALL))),
        (PAPER, ["extract"], True, ("extract",)),
        (PAPER, ["classify"], False, ("classify",)),
        ({**PAPER, "retrieval": {"kind": "random"}}, ALL, False, tuple(sorted(ALL))),
        ({}, ["validate"], False, ()),
        ({"method": {"repeats": "off"}}, ALL, False, ()),
        ({"redis": {"share_answers": False}}, ALL, False, ()),
        ({"redis": {"share_answers": False}, **PAPER}, ALL, True, ()),
        ({"redis": {"enabled": False}, **PAPER}, ALL, False, ()),
    ],
    ids=str,
)
def test_a_process_keeps_in_redis_what_its_stages_can_use(
    sections: dict[str, Any], stages: Sequence[str], retrieves: bool, shares: tuple[str, ...]
) -> None:
    with process_caches(configured(sections), stages) as caches:
        assert (caches.retrieval is not None) is retrieves
        assert sorted(() if caches.answers is None else caches.answers.counters) == list(shares)
        assert (caches.answers is not None) is bool(shares)


def test_what_came_of_it_is_counted_by_stage() -> None:
    with process_caches(configured({"method": {"validation": "soft"}}), ALL) as caches:
        metrics = Metrics(version="1", stages=ALL)
        caches.observe(metrics)
        assert caches.answers is not None
        assert caches.retrieval is not None
        caches.answers.report("classify", hits=3, misses=2, damaged=1)
        assert caches.answers.get_many("classify", ["a"]) == [None]
        assert caches.retrieval.get_many(["a"]) == [None]
        text = metrics.exposition()[0].decode()
    assert 'el4ner_shared_answers_total{outcome="hit",stage="classify"} 3.0' in text
    assert 'el4ner_shared_answers_total{outcome="miss",stage="classify"} 2.0' in text
    assert 'el4ner_shared_answers_total{outcome="miss",stage="extract"} 0.0' in text
    assert 'el4ner_shared_answers_damaged_total{stage="classify"} 1.0' in text
    assert 'el4ner_cache_errors_total{stage="classify"} 1.0' in text
    assert 'el4ner_cache_errors_total{stage="extract"} 0.0' in text, "left alone after the first call that failed"
    assert 'el4ner_cache_lookups_total{outcome="miss"} 1.0' in text
