"""The streams' mixes of types as metrics: how far each is from its pool's, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from workers.telemetry.metrics import MAX_LABEL_CHARS, OTHER, Metrics

if TYPE_CHECKING:
    from el4ner.evidence.stream_mix import MixReport, StreamMix

__all__ = ["observe_mixes"]

_MOST_TYPES: Final = 100
"""Types of a pool that have a series of their own."""


def observe_mixes(metrics: Metrics, mixes: Callable[[], Mapping[str, StreamMix]]) -> None:
    """Have them read when somebody scrapes. A pool of which too little was seen yet has no value.

    ``mixes``: by the pool's name; called on the thread that scrapes.
    """

    def reports() -> dict[str, MixReport]:
        known = {pool: mix.report for pool, mix in mixes().items()}
        return {pool: report for pool, report in known.items() if report is not None}

    metrics.observe(
        "el4ner_mix_divergence_bits", lambda: {(pool,): report.divergence for pool, report in reports().items()}
    )
    metrics.observe("el4ner_mix_ratio", lambda: _by_type(reports(), lambda report: report.shares))
    metrics.observe("el4ner_mix_pool_ratio", lambda: _by_type(reports(), lambda report: report.pool_shares))


def _by_type(
    reports: Mapping[str, MixReport], shares: Callable[[MixReport], Mapping[str, float]]
) -> dict[tuple[str, ...], float]:
    return {
        (pool, label): share for pool, report in reports.items() for label, share in _bounded(shares(report)).items()
    }


def _bounded(shares: Mapping[str, float]) -> dict[str, float]:
    """The first types of the pool; all others together, those with too long names among them."""
    bounded: dict[str, float] = {}
    for number, (label, share) in enumerate(shares.items()):
        shown = label if number < _MOST_TYPES and len(label) <= MAX_LABEL_CHARS else OTHER
        bounded[shown] = bounded.get(shown, 0.0) + share
    return bounded
