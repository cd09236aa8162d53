"""Which types a stream shows how often, over a window of what was judged last: to report drift, and to correct answers.

A :class:`StreamMix` belongs to one pool in one process. It begins with the pool's mix, is kept nowhere, and knows only
what it is given: sentences that are answered from memory (``method.repeats``) are not judged again and do not count.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from el4ner.evidence.judges import Floats
from el4ner.evidence.priors import (
    Shares,
    divergence,
    entity_probability,
    estimated_density,
    estimated_mix,
    log_odds,
    reweighted,
    with_density,
)

__all__ = ["MixReport", "StreamMix"]

Priors = Literal["pool", "density", "stream"]
"""What is corrected: nothing; how many of the candidates are entities; that, and the types' shares among these."""
WINDOW: Final = 8_192
"""The latest candidates, from which density and mix are estimated: some 300 sentences. Memory: four bytes for each of
them and each type."""
ESTIMATE_EVERY: Final = 512
"""Candidates between two estimates."""
MAY_BE_ENTITY: Final = 0.1
"""A candidate that is less probably an entity says next to nothing about their types."""
FEWEST_ENTITIES: Final = 200.0
"""Below this expected number of entities in the window their mix is not estimated."""
BACK_AT: Final = 0.7
"""A drift is over when the divergence is below this share of the threshold: around the threshold it is told once."""
_SHOWN: Final = 3
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MixReport:
    """What is known of a stream's mix. ``shares`` are the types', in the pool's order, and ``pool_shares`` those that
    they have in the pool; ``divergence`` of the two is in bits, 0 to 1; ``entities`` is the expected number in the
    window that the stream's were estimated from."""

    shares: Mapping[str, float]
    pool_shares: Mapping[str, float]
    divergence: float
    entities: float
    drifted: bool


class StreamMix:
    """The mix of one pool's stream. What it does depends on the spans and their order, not on how they are batched.

    Args:
        pool: its name, for the log.
        types: the pool's, in its order.
        pool_shares: the pool's mix (:func:`~el4ner.evidence.priors.pool_mix`).
        pool_density: the share of its candidates that are entities.
        priors: what is corrected (``method.priors``). The mix is reported in any case.
        threshold: the divergence beyond which a log line says that the stream is unlike the pool
            (``method.drift_threshold``).
    """

    def __init__(
        self,
        pool: str,
        types: Sequence[str],
        pool_shares: Shares,
        *,
        pool_density: float,
        priors: Priors,
        threshold: float,
    ) -> None:
        self._pool = pool
        self._types = tuple(types)
        self._pool_shares = pool_shares
        self._pool_density = pool_density
        self._priors = priors
        self._threshold = threshold
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget the stream: the next span is judged by the pool's mix."""
        self._mix = self._pool_shares
        self._density_shift = 0.0
        self._window: Floats = np.empty((0, len(self._types) + 1), np.float32)
        self._latest: list[Floats] = []
        self._since_estimate = 0
        self._reported_mix: Shares | None = None
        self.report: MixReport | None = None
        """None until enough was seen. Replaced as a whole, so that any thread may read it."""

    @property
    def types(self) -> tuple[str, ...]:
        """The pool's, in its order."""
        return self._types

    @property
    def corrects(self) -> bool:
        """Whether what is said depends on the stream."""
        return self._priors != "pool"

    def marked(self, fingerprint: str) -> str:
        """The fingerprint of evidence that is corrected so: what it says then depends on the stream as well."""
        return f"{fingerprint}-{self._priors}" if self.corrects else fingerprint

    def observe(self, log_probabilities: Floats) -> None:
        """Spans that are decided about: they count."""
        self.corrected(log_probabilities)

    def corrected(self, log_probabilities: Floats) -> Floats:
        """Log-probabilities ``[spans, types + none]`` by the mix of the stream so far; then these count too.

        They come back as they are where nothing is corrected, or too little was seen.
        """
        parts: list[Floats] = []
        start = 0
        while start < len(log_probabilities):
            stop = min(len(log_probabilities), start + ESTIMATE_EVERY - self._since_estimate)
            parts.append(self.reweighted(log_probabilities[start:stop]))
            self._latest.append(log_probabilities[start:stop])
            self._since_estimate += stop - start
            if self._since_estimate == ESTIMATE_EVERY:
                self._estimate()
            start = stop
        return np.concatenate(parts) if parts else log_probabilities

    def reweighted(self, log_probabilities: Floats) -> Floats:
        """As :meth:`corrected`, of spans that do not count: they will be judged again, with more evidence."""
        if not self.corrects or not self._density_shift:
            return log_probabilities
        answers = with_density(log_probabilities, self._density_shift)
        if self._priors == "stream" and self.report is not None:
            answers = reweighted(answers, self._mix / self._pool_shares)
        return answers

    def _estimate(self) -> None:
        self._window = np.concatenate([self._window, *self._latest])[-WINDOW:]
        self._latest = []
        self._since_estimate = 0
        density = estimated_density(self._window, self._pool_density)
        self._density_shift = log_odds(density) - log_odds(self._pool_density)
        window = with_density(self._window, self._density_shift)
        entity = entity_probability(window)
        window, entity = window[entity >= MAY_BE_ENTITY], entity[entity >= MAY_BE_ENTITY]
        entities = float(entity.sum())
        if entities < FEWEST_ENTITIES:
            return
        self._mix = estimated_mix(window, self._pool_shares)
        apart = divergence(self._mix, self._pool_shares)
        shares, pool_shares = (
            dict(zip(self._types, mix.tolist(), strict=True)) for mix in (self._mix, self._pool_shares)
        )
        self.report = MixReport(shares, pool_shares, apart, entities, self._follow_drift(apart))

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
