"""One stage over documents: their sentences go to the stage, each answered once, and the answers back to the documents.

A stage itself knows sentences only. What it was asked before its memory answers (:mod:`el4ner.repeats`), and what is
new it is asked slice by slice (:mod:`~el4ner.stages.slices`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from el4ner.participation import StageName
from el4ner.repeats import RepeatCounts, StageMemory
from el4ner.stages.context import StageContext
from el4ner.stages.slices import in_slices
from el4ner.types import Document, Manifest, Sentence, SentenceCandidates, SentenceTypes, Usage

__all__ = ["DocumentStage", "OfADocument", "shared"]


class OfADocument(Protocol):
    """What a stage works on belongs to a document."""

    @property
    def document(self) -> Document:
        """The whole, as it came."""


Item = TypeVar("Item", bound=OfADocument)
Asked = TypeVar("Asked", Sentence, SentenceCandidates, SentenceTypes)
Answer = TypeVar("Answer")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class DocumentStage(Generic[Item, Asked, Answer, Result]):
    """
    Args:
        name: of the stage.
        memories: by pool.
        sentences: a document's sentences apart, as :mod:`~el4ner.stages.views` says.
        ask: the stage, for sentences of one pool.
        placed: its answers to a document's sentences, with the document's offsets.
        result: from document, manifest, placed answers and token counts.
    """

    name: StageName
    memories: Mapping[str, StageMemory[Asked, Answer, Any]]
    sentences: Callable[[Item], list[Asked]]
    ask: Callable[[list[Asked], StageContext], tuple[list[Answer], Usage]]
    placed: Callable[[Item, Sequence[Answer]], Sequence[Answer]]
    result: Callable[[Document, Manifest, tuple[Answer, ...], Usage], Result]

    def answer(
        self, items: Sequence[Item], context: StageContext, manifest: Manifest, progress: Callable[[], None]
    ) -> list[Result]:
        """The stage's results for documents of one pool. ``progress`` is called behind each slice."""
        by_item = [self.sentences(item) for item in items]
        answered = self.memories[context.pool.name].answer(
            [sentence for sentences in by_item for sentence in sentences],
            lambda new: in_slices(new, lambda some: self.ask(some, context), progress),
        )
        answers, asked = iter(answered.answers), iter(answered.asked)
        # What was answered from memory cost nothing.
        usages = shared(answered.usage, [sum(islice(asked, len(sentences))) for sentences in by_item])
        return [
            self.result(item.document, manifest, tuple(self.placed(item, list(islice(answers, len(sentences))))), usage)
            for item, sentences, usage in zip(items, by_item, usages, strict=True)
        ]

    @property
    def counts(self) -> RepeatCounts:
        """Over all pools, since the stage was made."""
        return sum((memory.counts for memory in self.memories.values()), RepeatCounts())


def shared(usage: Usage, sizes: Sequence[int]) -> list[Usage]:
    """A batch's token counts, shared out by the documents' numbers of asked sentences; the shares add up exactly."""
    total = sum(sizes)
    shares = []
    given, so_far = Usage(), 0
    for size in sizes:
        so_far += size
        upto = Usage(
            *(
                count * so_far // total if total else 0
                for count in (usage.prompt_tokens, usage.cached_tokens, usage.new_tokens)
            )
        )
        shares.append(
            Usage(
                upto.prompt_tokens - given.prompt_tokens,
                upto.cached_tokens - given.cached_tokens,
                upto.new_tokens - given.new_tokens,
            )
        )
        given = upto
    return shares
