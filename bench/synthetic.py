"""Pools of any size and with any number of types, for bench/scaling.py, out of the sentences and entities of a pool."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace

from el4ner.pools import Pool, PoolSentence
from el4ner.types import Span

__all__ = ["divided", "synthetic"]


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


def divided(pool: Pool, types: int) -> Pool:
    """The same sentences with ``types`` types: each of the pool's is divided by a hash of the entities' surfaces.

    Raises:
        ValueError: fewer types than the pool has.
    """
    if types < len(pool.types):
        raise ValueError(f"pool {pool.name} has {len(pool.types)} types already, so it cannot be divided into {types}")
    names = list(pool.types)
    parts = {name: types // len(names) + (index < types % len(names)) for index, name in enumerate(names)}

    def part(surface: str, label: str) -> str:
        number = int.from_bytes(hashlib.sha256(surface.encode()).digest()[:4], "big") % parts[label]
        return f"{label}-{number}"

    made = {f"{name}-{number}": pool.types[name] for name in names for number in range(parts[name])}
    sentences = tuple(
        replace(sentence, spans=tuple((span, part(span.text, label)) for span, label in sentence.spans))
        for sentence in pool.sentences
    )
    return Pool(pool.name, made, sentences, pool.text_kind)


def _surface(draw: random.Random, known: Sequence[str]) -> str:
    one, other = draw.choice(known).split(), draw.choice(known).split()
    if len(one) > 1 and len(other) > 1:
        return " ".join([*one[: draw.randint(1, len(one) - 1)], *other[draw.randint(1, len(other) - 1) :]])
    return " ".join(one)
