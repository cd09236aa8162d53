"""What was tagged before is not asked again: every stage remembers its answers to sentences, and to lines like them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def memories(
    carry: Carry[Item, Answer, Kept],
    method: MethodSettings,
    kinds: Mapping[str, TextKind],
    exchange_of: Callable[[str], Exchange[Item, Kept] | None] = lambda pool: None,
) -> dict[str, StageMemory[Item, Answer, Kept]]:
    """A stage's memory of each pool, by the pool's name.

    Stages may run in processes of their own, so none relies on what another one remembers, and each keeps its answers
    by all that they depend on in its input. Settings, models and pools of a pipeline never change, so they are no part
    of it: a memory is one pipeline's, and goes with it. Not thread-safe, as the pipeline.

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

    return {name: StageMemory(carry, size, miner(kind), exchange_of(name)) for name, kind in kinds.items()}
