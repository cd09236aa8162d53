"""A stream's mix as metrics: only what is known, and never more series than there is room for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from el4ner.evidence.stream_mix import MixReport
from tests.unit.workers.telemetry.test_metrics import samples
from workers.telemetry.metrics import Metrics
from workers.telemetry.mixes import observe_mixes


def shown(mixes: dict[str, Any]) -> dict[tuple[str, ...], float]:
    metrics = Metrics(version="1")
    observe_mixes(metrics, lambda: mixes)
    return {
        (name, *(value for _, value in sorted(labels))): number
        for (name, labels), number in samples(metrics).items()
        if name.startswith("el4ner_mix_")
    }


def mix(shares: dict[str, float], divergence: float = 0.25) -> Any:
    of_pool = dict(zip(shares, reversed(shares.values()), strict=True))
    return SimpleNamespace(report=MixReport(shares, of_pool, divergence, 500.0, True))


def test_a_pools_divergence_and_shares_are_shown_once_they_are_known() -> None:
    assert shown({"news": mix({"person": 0.75, "place": 0.25}), "logs": SimpleNamespace(report=None)}) == {
        ("el4ner_mix_divergence_bits", "news"): 0.25,
        ("el4ner_mix_ratio", "news", "person"): 0.75,
        ("el4ner_mix_ratio", "news", "place"): 0.25,
        ("el4ner_mix_pool_ratio", "news", "person"): 0.25,
        ("el4ner_mix_pool_ratio", "news", "place"): 0.75,
    }


def test_pools_that_are_made_later_are_shown_too() -> None:
    metrics, mixes = Metrics(version="1"), dict[str, Any]()
    observe_mixes(metrics, lambda: mixes)
    mixes["news"] = mix({"person": 1.0})
    assert ("el4ner_mix_ratio", frozenset({("pool", "news"), ("type", "person")})) in samples(metrics)


def test_of_many_types_those_that_there_is_no_room_for_are_shown_together() -> None:
    series = shown({"p": mix({"x" * 65: 0.25, **{f"type-{number}": 1 / 256 for number in range(192)}})})
    ratios = {key[-1]: share for key, share in series.items() if key[0] == "el4ner_mix_ratio"}
    assert len(ratios) == 100, "99 with a name that fits, and the rest"
    assert ratios["other"] == 0.25 + 93 / 256
