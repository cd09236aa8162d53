"""One stage over documents: their sentences go to the stage, each answered once, and the answers back to the documents.

A stage itself knows sentences only. What it was asked before its memory answers (:mod:`el4ner.repeats`), and what is
new it is asked slice by slice (:mod:`~el4ner.stages.slices`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from itertools import accumulate, islice, pairwise
from typing import Any, Generic, Protocol, TypeVar

from el4ner.errors import DocumentError
from el4ner.participation import StageName
from el4ner.repeats import PoolMemories, RepeatCounts
from el4ner.stages.context import StageContext
from el4ner.stages.slices import in_slices
from el4ner.types import (
    Document,
    DocumentCandidates,
    DocumentTypes,
    Manifest,
    Sentence,
    SentenceCandidates,
    SentenceTypes,
    Usage,
)

__all__ = ["DocumentStage", "or_error", "shared"]


class _OfADocument(Protocol):
    @property
    def document(self) -> Document: ...


Given = TypeVar("Given", Document, DocumentCandidates, DocumentTypes)
Item = TypeVar("Item", bound=_OfADocument)
Asked = TypeVar("Asked", Sentence, SentenceCandidates, SentenceTypes)
Answer = TypeVar("Answer")
Result = TypeVar("Result")
Value = TypeVar("Value")
Made = TypeVar("Made")
ManifestOf = Callable[[StageName, str], Manifest]


@dataclass(frozen=True, eq=False)
class DocumentStage(Generic[Given, Item, Asked, Answer, Result]):
    """A stage of one pipeline.

    Args:
        name: of the stage.
        memories: by pool.
        admit: what the stage works on for what it is given; refuses by a :class:`~el4ner.errors.DocumentError`.
        sentences: an item's sentences apart, as :mod:`~el4ner.stages.views` says.
        ask: the stage itself, for sentences of one pool.
        placed: its answers to an item's sentences, with the document's offsets.
        result: from document, manifest, placed answers and token counts.
    """

    name: StageName
    memories: PoolMemories[Asked, Answer, Any]
    admit: Callable[[Given], Item]
    sentences: Callable[[Item], list[Asked]]
    ask: Callable[[list[Asked], StageContext], tuple[list[Answer], Usage]]
    placed: Callable[[Item, Sequence[Answer]], Sequence[Answer]]
    result: Callable[[Document, Manifest, tuple[Answer, ...], Usage], Result]

    def run(
        self,
        batch: Sequence[Given],
        context_of: Callable[[Document], StageContext],
        manifest_of: ManifestOf,
        progress: Callable[[], None],
    ) -> list[Result | DocumentError]:
        """A result for each document, or its error: once for each pool, over that pool's documents.

        Args:
            batch: what the stage is given.
            context_of: of the document's pool.
            manifest_of: who answers for a stage about documents of a pool.
            progress: is called behind each slice.
        """
        results: dict[int, Result | DocumentError] = {}
        by_pool: dict[str, list[tuple[int, Item]]] = {}
        contexts: dict[str, StageContext] = {}
        for place, given in enumerate(batch):
            item = or_error(self.admit, given)
            if isinstance(item, DocumentError):
                results[place] = item
                continue
            context = context_of(item.document)
            contexts[context.pool.name] = context
            by_pool.setdefault(context.pool.name, []).append((place, item))
        for pool, numbered in by_pool.items():
            answers = self._or_alone([item for _, item in numbered], contexts[pool], manifest_of, progress)
            results.update(zip((place for place, _ in numbered), answers, strict=True))
        return [results[place] for place in range(len(batch))]

    def _or_alone(
        self, items: Sequence[Item], context: StageContext, manifest_of: ManifestOf, progress: Callable[[], None]
    ) -> list[Result | DocumentError]:
        """A document whose sentence fits no model is found only while prompts are made: then each is asked alone."""
        try:
            return [*self._answer(items, context, manifest_of, progress)]
        except DocumentError as error:
            if len(items) == 1:
                return [error]
            return [result for item in items for result in self._or_alone([item], context, manifest_of, progress)]

    def _answer(
        self, items: Sequence[Item], context: StageContext, manifest_of: ManifestOf, progress: Callable[[], None]
    ) -> list[Result]:
        by_item = [self.sentences(item) for item in items]
        answered = self.memories[context.pool.name].answer(
            [sentence for sentences in by_item for sentence in sentences],
            lambda new: in_slices(new, lambda some: self.ask(some, context), progress),
        )
        answers, asked = iter(answered.answers), iter(answered.asked)
        # What was answered from memory cost nothing.
        usages = shared(answered.usage, [sum(islice(asked, len(sentences))) for sentences in by_item])
        manifest = manifest_of(self.name, context.pool.name)
        results = []
        for item, sentences, usage in zip(items, by_item, usages, strict=True):
            placed = self.placed(item, list(islice(answers, len(sentences))))
            results.append(self.result(item.document, manifest, tuple(placed), usage))
        return results

    @property
    def counts(self) -> RepeatCounts:
        """Over all pools, since the stage was made."""
        return sum((memory.counts for memory in self.memories.values()), RepeatCounts())


def or_error(step: Callable[[Value], Made], value: Value) -> Made | DocumentError:
    """What ``step`` makes of a value, or why it does not."""
    try:
        return step(value)
    except DocumentError as error:
        return error


def shared(usage: Usage, sizes: Sequence[int]) -> list[Usage]:
    """A batch's token counts, shared out by the documents' numbers of asked sentences; the shares add up exactly."""
    total = sum(sizes)
    up_to = [
        Usage(*(count * asked // total if total else 0 for count in astuple(usage)))
        for asked in accumulate(sizes, initial=0)
    ]
    return [after - before for before, after in pairwise(up_to)]
