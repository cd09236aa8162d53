"""Which types a stream shows how often, over a window of what was judged last: to report drift, and to correct answers.

A :class:`StreamMix` belongs to one pool in one process. It begins with the pool's mix, is kept nowhere, and knows only
what it is given: sentences that are answered from memory (``method.repeats``) are not judged again and do not count.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from el4ner.evidence.judges import Floats
from el4ner.evidence.priors import Shares, divergence, entity_probability, estimated_mix, reweighted

__all__ = ["MixReport", "StreamMix"]

WINDOW: Final = 4_096
"""Candidates that the mix is estimated from: the latest that may be entities. Memory: four bytes for each of them and
each type."""
ESTIMATE_EVERY: Final = 256
"""Such candidates between two estimates."""
MAY_BE_ENTITY: Final = 0.1
"""A candidate that is less probably an entity says next to nothing about their types."""
FEWEST_ENTITIES: Final = 200.0
"""Below this expected number of entities in the window nothing is estimated."""
BACK_AT: Final = 0.7
"""A drift is over when the divergence is below this share of the threshold: around the threshold it is told once."""
_SHOWN: Final = 3
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MixReport:
    """What is known of a stream's mix. ``shares`` are the types', in the pool's order; ``divergence`` from the pool's
    mix is in bits, 0 to 1; ``entities`` is the expected number in the window that they were estimated from."""

    shares: Mapping[str, float]
    divergence: float
    entities: float
    drifted: bool


class StreamMix:
    """The mix of one pool's stream. What it does depends on the spans and their order, not on how they are batched.

    Args:
        pool: its name, for the log.
        types: the pool's, in its order.
        pool_shares: the pool's mix (:func:`~el4ner.evidence.priors.pool_mix`).
        corrects: whether judgements are corrected by the stream's mix (``method.priors``); if not it is reported only.
        threshold: the divergence beyond which a log line says that the stream is unlike the pool
            (``method.drift_threshold``).
    """

    def __init__(
        self, pool: str, types: Sequence[str], pool_shares: Shares, *, corrects: bool, threshold: float
    ) -> None:
        self._pool = pool
        self._types = tuple(types)
        self._pool_shares = pool_shares
        self._mix = pool_shares
        self._corrects = corrects
        self._threshold = threshold
        self._window: Floats = np.empty((0, len(types) + 1), np.float32)
        self._latest: list[Floats] = []
        self._since_estimate = 0
        self._reported_mix: Shares | None = None
        self.report: MixReport | None = None
        """None until enough was seen. Replaced as a whole, so that any thread may read it."""

    def marked(self, fingerprint: str) -> str:
        """The fingerprint of evidence that is corrected so: what it says then depends on the stream as well."""
        return f"{fingerprint}-stream" if self._corrects else fingerprint

    def observe(self, log_probabilities: Floats) -> None:
        """Spans that are decided about: they count."""
        self.corrected(log_probabilities)

    def corrected(self, log_probabilities: Floats) -> Floats:
        """Log-probabilities ``[spans, types + none]`` by the mix of the stream so far; then these count too.

        They come back as they are where nothing is corrected, or too little was seen.
        """
        may_be = np.flatnonzero(entity_probability(log_probabilities) >= MAY_BE_ENTITY)
        parts: list[Floats] = []
        start, counted = 0, 0
        while start < len(log_probabilities):
            missing = ESTIMATE_EVERY - self._since_estimate
            due = counted + missing <= len(may_be)
            stop = int(may_be[counted + missing - 1]) + 1 if due else len(log_probabilities)
            taken = may_be[counted : counted + missing] if due else may_be[counted:]
            parts.append(self.reweighted(log_probabilities[start:stop]))
            self._latest.append(log_probabilities[taken])
            self._since_estimate += len(taken)
            if due:
                self._estimate()
            start, counted = stop, counted + len(taken)
        return np.concatenate(parts) if parts else log_probabilities

    def reweighted(self, log_probabilities: Floats) -> Floats:
        """As :meth:`corrected`, of spans that do not count: they will be judged again, with more evidence."""
        if not self._corrects or self.report is None:
            return log_probabilities
        return reweighted(log_probabilities, self._mix / self._pool_shares)

    def _estimate(self) -> None:
        self._window = np.concatenate([self._window, *self._latest])[-WINDOW:]
        self._latest = []
        self._since_estimate = 0
        entities = float(entity_probability(self._window).sum())
        if entities < FEWEST_ENTITIES:
            return
        self._mix = estimated_mix(self._window, self._pool_shares)
        apart = divergence(self._mix, self._pool_shares)
        shares = dict(zip(self._types, self._mix.tolist(), strict=True))
        self.report = MixReport(shares, apart, entities, self._follow_drift(apart))

    def _follow_drift(self, apart: float) -> bool:
        """Whether the stream is unlike the pool; says so when that begins, ends, or goes on to yet another mix."""
        began = self._reported_mix is None
        if apart < (self._threshold if began else BACK_AT * self._threshold):
            if not began:
                self._reported_mix = None
                log.info(
                    "the stream's mix of types is like the pool's again",
                    extra={"pool": self._pool, "divergence_bits": round(apart, 3)},
                )
            return False
        if self._reported_mix is None or divergence(self._mix, self._reported_mix) >= self._threshold:
            self._reported_mix = self._mix
            log.warning(
                "the stream's mix of types is unlike the pool's: %s",
                self._largest_changes(),
                extra={"pool": self._pool, "divergence_bits": round(apart, 3)},
            )
        return True

    def _largest_changes(self) -> str:
        order = np.argsort(-np.abs(self._mix - self._pool_shares), kind="stable")[:_SHOWN]
        return ", ".join(
            f"{self._types[index]} {self._mix[index]:.1%} (pool: {self._pool_shares[index]:.1%})" for index in order
        )
