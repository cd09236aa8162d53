"""What prototypes are made of, as sums over spans: where a few spans come or go, only these are read.

The covariance that all types share is that of spans around their type's mean. With x a span, n its type's spans, s
their sum and m the mean, which is not quite s / n (:meth:`~el4ner.evidence.judges.Prototypes.means`),

    Σ (x - m)(x - m)ᵀ  =  Σ x xᵀ - Σ_types (s mᵀ + m sᵀ - n m mᵀ)

so that counts, sums and products are enough. They add up over any parts of a pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from el4ner.evidence.judges import Doubles, Floats, Ints, Prototypes

__all__ = ["SpanSums"]


@dataclass(frozen=True, eq=False)
class SpanSums:
    """Of spans by type. ``counts`` ``[kinds]``, ``sums`` ``[kinds, dimensions]``, ``products`` ``[dimensions,
    dimensions]``: Σ x xᵀ over all of them."""

    counts: Ints
    sums: Doubles
    products: Doubles

    @classmethod
    def of(cls, known: Floats | Doubles, labels: Ints, kinds: int) -> Self:
        """Of spans ``[spans, dimensions]``."""
        # Of fewer spans than dimensions nothing may be left around the means but the rounding of float32.
        if len(known) <= known.shape[1]:
            known = known.astype(np.float64)
        sums = np.stack([known[labels == kind].sum(axis=0, dtype=np.float64) for kind in range(kinds)])
        return cls(np.bincount(labels, minlength=kinds), sums, (known.T @ known).astype(np.float64))

    def __add__(self, other: Self) -> Self:
        return type(self)(self.counts + other.counts, self.sums + other.sums, self.products + other.products)

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.counts - other.counts, self.sums - other.sums, self.products - other.products)

    def placed(self, places: Ints, kinds: int) -> Self:
        """The same spans, where type i is type ``places[i]`` of ``kinds``."""
        counts = np.zeros(kinds, dtype=np.int64)
        counts[places] = self.counts
        sums = np.zeros((kinds, self.sums.shape[1]))
        sums[places] = self.sums
        return type(self)(counts, sums, self.products)

    def prototypes(self) -> Prototypes:
        """Those of these spans: what :meth:`Prototypes.of` makes of them, but for rounding."""
        count = int(self.counts.sum())
        if not count:
            return Prototypes.of(np.zeros((0, self.sums.shape[1]), np.float32), np.zeros(0, np.int64), len(self.counts))
        means = Prototypes.means(self.counts, self.sums, self.sums.sum(axis=0) / count)
        across = self.sums.T @ means
        scatter = self.products - across - across.T + means.T @ (self.counts[:, None] * means)
        return Prototypes.by_covariance(self.counts, means, scatter / count)
