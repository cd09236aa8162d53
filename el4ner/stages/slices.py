"""A batch in slices of bounded cost, so that an engine's call ends within a time that is known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from el4ner.text.proposal_limits import cost
from el4ner.types import Sentence, SentenceCandidates, SentenceTypes, Usage

__all__ = ["MOST_IN_A_SLICE", "in_slices", "size_of"]

MOST_IN_A_SLICE: Final = 100_000
"""The most tokens that a member may have to read for one slice, by the bound of a token for each byte: as much as some
36,000 characters of English prose with their proposals."""

Item = TypeVar("Item", Sentence, SentenceCandidates, SentenceTypes)
Answer = TypeVar("Answer")


def size_of(item: Sentence | SentenceCandidates | SentenceTypes) -> int:
    """The most tokens of a sentence and of what is asked about it, instruction and demonstrations not counted."""
    if isinstance(item, Sentence):
        return cost(item.text)
    spans = (
        [candidate.span for candidate in item.candidates]
        if isinstance(item, SentenceCandidates)
        else [typed.candidate.span for typed in item.typed]
    )
    return cost(item.sentence.text) + sum(cost(span.text) for span in spans)


def in_slices(
    items: Sequence[Item],
    ask: Callable[[list[Item]], tuple[list[Answer], Usage]],
    progress: Callable[[], None],
    *,
    most: int = MOST_IN_A_SLICE,
) -> tuple[list[Answer], Usage]:
    """As ``ask(items)``, asked slice by slice; ``progress`` is called behind each. A sentence that is larger than
    ``most`` is a slice of its own."""
    answers: list[Answer] = []
    usage = Usage()
    for batch in _slices(items, most):
        answered, used = ask(batch)
        answers += answered
        usage += used
        progress()
    return answers, usage


def _slices(items: Sequence[Item], most: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 0
    for item in items:
        more = size_of(item)
        if batch and size + more > most:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += more
    if batch:
        yield batch
