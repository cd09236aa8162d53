"""What was tagged before is not asked again: every stage remembers its answers to sentences, and to lines like them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from el4ner.config import MethodSettings
from el4ner.repeats.answer_memory import Answered, Found, LookedAt, RepeatCounts, StageMemory, Subject
from el4ner.repeats.carry import (
    AgreedTypes,
    AnswersCarry,
    ClassifyCarry,
    ExtractCarry,
    ExtractedAnchors,
    ValidateCarry,
)
from el4ner.repeats.entries import Carry, Exchange
from el4ner.repeats.kept_formats import AgreedFormat, AnswersFormat, ExtractedFormat, VerdictsFormat
from el4ner.repeats.line_key import LineKey, SaidOfText
from el4ner.repeats.shared_answers import AnswerStore, KeptFormat, SharedAnswers
from el4ner.text.segment import TextKind
from el4ner.text.template_miner import TemplateMiner

__all__ = [
    "AgreedFormat",
    "AgreedTypes",
    "AnswerStore",
    "Answered",
    "AnswersCarry",
    "AnswersFormat",
    "Carry",
    "ClassifyCarry",
    "Exchange",
    "ExtractCarry",
    "ExtractedAnchors",
    "ExtractedFormat",
    "Found",
    "KeptFormat",
    "LineKey",
    "LookedAt",
    "PoolMemories",
    "RepeatCounts",
    "SaidOfText",
    "SharedAnswers",
    "StageMemory",
    "Subject",
    "ValidateCarry",
    "VerdictsFormat",
    "memories",
]

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Kept = TypeVar("Kept")


class PoolMemories(dict[str, StageMemory[Item, Answer, Kept]]):
    """A stage's memory of each pool, by the pool's name. ``make``: of a pool, empty."""

    def __init__(self, names: Iterable[str], make: Callable[[str], StageMemory[Item, Answer, Kept]]) -> None:
        super().__init__((name, make(name)) for name in names)
        self._make = make

    def forget(self, name: str) -> None:
        """Another memory for the pool, which has changed. What was counted stays counted."""
        empty = self._make(name)
        empty.counts = self[name].counts
        self[name] = empty


def memories(
    carry: Carry[Item, Answer, Kept],
    method: MethodSettings,
    kinds: Mapping[str, TextKind],
    exchange_of: Callable[[str], Exchange[Item, Kept] | None] = lambda pool: None,
) -> PoolMemories[Item, Answer, Kept]:
    """A stage's memory of each pool, by the pool's name.

    Stages may run in processes of their own, so none relies on what another one remembers, and each keeps its answers
    by all that they depend on in its input. Settings and models of a pipeline never change, so they are no part of it:
    a memory is one pipeline's, and goes with it. Whoever changes a pool has its memory forgotten. Not thread-safe, as
    the pipeline.

    Args:
        carry: the stage's.
        method: ``repeats`` and ``repeat_cache_sentences``.
        kinds: the kind of text of each pool.
        exchange_of: with other processes, by the pool's name; by default none.
    """
    size = 0 if method.repeats == "off" else method.repeat_cache_sentences

    def miner(kind: TextKind) -> TemplateMiner | None:
        # One for each memory: what a stage answers must not depend on which others share its process.
        return TemplateMiner(memory=size) if size and method.repeats == "templates" and kind == "log" else None

    return PoolMemories(kinds, lambda name: StageMemory(carry, size, miner(kinds[name]), exchange_of(name)))
