"""Smaller pools out of one: what a data set's pool would be if fewer sentences had been labelled."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from el4ner.evaluation.sentence_records import EvaluationError
from el4ner.pools.pool import Pool

__all__ = ["ALL", "PoolSubset", "check_sizes", "read_sizes", "subsets_of"]

ALL: Final = "all"
"""The whole pool, in a list of sizes."""
EXAMPLE: Final = "5,10,20,50,all"


@dataclass(frozen=True)
class PoolSubset:
    """``size`` sentences of a pool, in its order, with all of its types. ``seed`` drew them; of the whole pool there is
    one subset, with the seed 0."""

    size: int
    seed: int
    pool: Pool

    @property
    def labelled(self) -> int:
        """How many labelled spans there are."""
        return sum(len(sentence.spans) for sentence in self.pool.sentences)

    @property
    def missing(self) -> tuple[str, ...]:
        """Types without any labelled span: they are known by name and description only."""
        shown = {label for sentence in self.pool.sentences for _, label in sentence.spans}
        return tuple(label for label in self.pool.types if label not in shown)


def read_sizes(text: str) -> tuple[int | None, ...]:
    """``5,10,all`` as numbers; None stands for the whole pool.

    Raises:
        EvaluationError: something else, a size below 1, or sizes that do not ascend.
    """
    sizes: list[int | None] = []
    for word in text.split(","):
        part = word.strip()
        if part == ALL:
            sizes.append(None)
        elif part.isascii() and part.isdigit():
            sizes.append(int(part))
        else:
            raise EvaluationError(f"{part!r} is no size of a pool: give numbers of sentences, such as {EXAMPLE}")
    numbers = [size for size in sizes if size is not None]
    if 0 in numbers:
        raise EvaluationError("a pool of 0 sentences shows nothing: the smallest size is 1")
    if None in sizes[:-1] or any(later <= size for size, later in pairwise(numbers)):
        raise EvaluationError(f"{text!r}: sizes ascend, each once, and {ALL} is the last one, such as {EXAMPLE}")
    return tuple(sizes)


def check_sizes(pool: Pool, sizes: Sequence[int | None]) -> None:
    """The pool is large enough for each.

    Raises:
        EvaluationError: it is not.
    """
    there = len(pool.sentences)
    larger = [str(size) for size in sizes if size is not None and size > there]
    if larger:
        raise EvaluationError(
            f"the train split has {there} sentences, fewer than {', '.join(larger)}: leave that out; "
            f"{ALL} is the whole pool"
        )


def subsets_of(pool: Pool, sizes: Sequence[int | None], seeds: int) -> list[PoolSubset]:
    """The subsets by size, then seed. A seed's smaller subset is part of its larger one.

    Sentences are drawn as they are, without looking at their labels: a small subset may lack types, or have no entity.

    Args:
        pool: what is drawn from.
        sizes: ascending; None is the whole pool, and so is its size.
        seeds: 0, 1, … below this number.

    Raises:
        EvaluationError: a size is larger than the pool.
    """
    check_sizes(pool, sizes)
    there = len(pool.sentences)
    orders = [random.Random(seed).sample(range(there), there) for seed in range(seeds)]
    subsets = []
    for size in dict.fromkeys(there if size is None else size for size in sizes):
        if size == there:
            subsets.append(PoolSubset(size, 0, pool))
            continue
        for seed, order in enumerate(orders):
            sentences = tuple(pool.sentences[place] for place in sorted(order[:size]))
            subsets.append(PoolSubset(size, seed, replace(pool, sentences=sentences)))
    return subsets
