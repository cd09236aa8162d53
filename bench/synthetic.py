"""Pools of any size, for bench/scaling.py: the sentences and entities of a pool in new combinations."""

from __future__ import annotations

import random
from collections.abc import Sequence

from el4ner.pools import Pool, PoolSentence
from el4ner.types import Span

__all__ = ["synthetic"]


def synthetic(pool: Pool, size: int, seed: int = 0) -> Pool:
    """``size`` different sentences with the sentences and entities of ``pool``."""
    draw = random.Random(f"{seed} {size}")
    surfaces: dict[str, list[str]] = {}
    for sentence in pool.sentences:
        for span, label in sentence.spans:
            surfaces.setdefault(label, []).append(span.text)
    patterns = [sentence for sentence in pool.sentences if sentence.spans]
    made: dict[str, PoolSentence] = {}
    for _ in range(100 * size):
        if len(made) == size:
            return Pool(f"{pool.name}-{size}", pool.types, tuple(made.values()), pool.text_kind)
        pattern = draw.choice(patterns)
        text, spans, done = "", [], 0
        for span, label in pattern.spans:
            text += pattern.text[done : span.start]
            surface = _surface(draw, surfaces[label])
            spans.append((Span(len(text), len(text) + len(surface), surface), label))
            text += surface
            done = span.end
        text += pattern.text[done:]
        made.setdefault(text, PoolSentence(text, tuple(spans)))
    raise ValueError(f"pool {pool.name} has too few entities for {size} different sentences")


def _surface(draw: random.Random, known: Sequence[str]) -> str:
    one, other = draw.choice(known).split(), draw.choice(known).split()
    if len(one) > 1 and len(other) > 1:
        return " ".join([*one[: draw.randint(1, len(one) - 1)], *other[draw.randint(1, len(other) - 1) :]])
    return " ".join(one)
