"""A data set with a part of its pool, for members that take too long to read all of it."""

from __future__ import annotations

from dataclasses import replace

from el4ner.evaluation import Dataset
from el4ner.evidence.span_memory import drawn

__all__ = ["with_smaller_pool"]


def with_smaller_pool(dataset: Dataset, sentences: int | None) -> Dataset:
    """At most so many of the pool's sentences, drawn by a hash of their text, those without entities as they come;
    None: all."""
    whole = dataset.pool.sentences
    if sentences is None or sentences >= len(whole):
        return dataset
    kept = tuple(whole[place] for place in drawn([sentence.text for sentence in whole], sentences))
    return replace(dataset, pool=replace(dataset.pool, sentences=kept))
