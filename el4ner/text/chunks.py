"""Cheap span proposals, without a model: what in a text might be a mention.

Nothing here knows any entity type. High recall and cheap; the classifier's ``none`` is what makes it precise. How it is
done for prose is in ``prose_chunks``, for log lines in ``log_chunks``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from el4ner.text.log_chunks import log_chunks
from el4ner.text.prose_chunks import prose_chunks
from el4ner.text.prose_words import is_function_word, is_proper, word_surfaces
from el4ner.text.segment import TextKind
from el4ner.text.words import Chunk, function_words
from el4ner.types import Span

__all__ = [
    "COMMON_WEIGHT",
    "PRONOUN_WEIGHT",
    "PROPER_WEIGHT",
    "Chunk",
    "chunks",
    "function_words",
    "outermost",
    "span_weight",
]

PROPER_WEIGHT = 4.0
COMMON_WEIGHT = 2.0
PRONOUN_WEIGHT = 1.0
"""Retrieval weighs proper nouns over nouns over pronouns. 4 / 2 / 1 is what a public replication uses; the paper's own
values we could not read."""


def chunks(text: str, kind: TextKind = "prose") -> list[Chunk]:
    """The proposals for one sentence: sorted by start then longest first, each span once."""
    return list(_chunks(text, kind))


@lru_cache(maxsize=256)  # retrieval, extraction and the pool's demonstrations ask about the same sentences
def _chunks(text: str, kind: TextKind) -> tuple[Chunk, ...]:
    proposed = log_chunks(text) if kind == "log" else prose_chunks(text)
    unique = {(chunk.span.start, chunk.span.end): chunk for chunk in proposed}
    return tuple(sorted(unique.values(), key=lambda chunk: (chunk.span.start, -chunk.span.end)))


def outermost(chunks_of_text: Sequence[Chunk]) -> list[Span]:
    """The spans of :func:`chunks`' result that lie in no other one: each name once, not its parts as well."""
    spans: list[Span] = []
    for chunk in chunks_of_text:  # by start, then longest first: what lies in another one comes after it
        if not spans or chunk.span.end > spans[-1].end:
            spans.append(chunk.span)
    return spans


def span_weight(surface: str) -> float:
    """The weight of an input span in retrieval, judged by its form: proper, pronoun or common."""
    words = word_surfaces(surface)
    if words and all(is_function_word(word) for word in words):
        return PRONOUN_WEIGHT
    return PROPER_WEIGHT if any(is_proper(word) for word in words) else COMMON_WEIGHT
