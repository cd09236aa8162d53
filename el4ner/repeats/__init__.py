"""What was tagged before is not asked again: every stage remembers its answers to sentences, and to lines like them."""

from __future__ import annotations

from collections.abc import Mapping

from el4ner.config import MethodSettings
from el4ner.repeats.answer_memory import Answered, RepeatCounts, StageMemory
from el4ner.repeats.carry import AnswersCarry, ClassifyCarry, ExtractCarry, ValidateCarry
from el4ner.text.segment import TextKind
from el4ner.text.template_miner import TemplateMiner

__all__ = ["Answered", "Memories", "RepeatCounts", "StageMemory"]


class Memories:
    """The stages' memories of one pipeline, by pool: ``extract``, ``classify`` and ``validate``; and ``answers``, what
    members said to ``classify`` where that is decided about in another process.

    Stages may run in processes of their own, so none relies on what another one remembers, and each keeps its answers
    by all that they depend on in its input. Settings, models and pools of a pipeline never change, so they are no part
    of it: a memory is one pipeline's, and goes with it. Not thread-safe, as the pipeline.

    Args:
        method: ``repeats`` and ``repeat_cache_sentences``.
        kinds: the kind of text of each pool.
    """

    def __init__(self, method: MethodSettings, kinds: Mapping[str, TextKind]) -> None:
        size = 0 if method.repeats == "off" else method.repeat_cache_sentences

        def miner(kind: TextKind) -> TemplateMiner | None:
            # One for each memory: what a stage answers must not depend on which others share its process.
            return TemplateMiner(memory=size) if size and method.repeats == "templates" and kind == "log" else None

        self.extract = {name: StageMemory(ExtractCarry(), size, miner(kind)) for name, kind in kinds.items()}
        self.classify = {name: StageMemory(ClassifyCarry(), size, miner(kind)) for name, kind in kinds.items()}
        self.answers = {name: StageMemory(AnswersCarry(), size) for name in kinds}
        # Without validation there is nobody to spare a question.
        verdicts = 0 if method.validation_kind == "off" else size
        self.validate = {
            name: StageMemory(ValidateCarry(), verdicts, miner(kind) if verdicts else None)
            for name, kind in kinds.items()
        }

    @property
    def counts(self) -> dict[str, RepeatCounts]:
        """By stage, over all pools, since the pipeline was made."""
        return {
            "extract": sum((memory.counts for memory in self.extract.values()), RepeatCounts()),
            "classify": sum((memory.counts for memory in self.classify.values()), RepeatCounts())
            + sum((memory.counts for memory in self.answers.values()), RepeatCounts()),
            "validate": sum((memory.counts for memory in self.validate.values()), RepeatCounts()),
        }
