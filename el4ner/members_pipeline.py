"""The stages over documents, of some of an ensemble's members: the others run in other processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from typing_extensions import override

from el4ner.config import Settings
from el4ner.engines.base import Engine
from el4ner.errors import DocumentError
from el4ner.evidence import Source
from el4ner.evidence.sources import described
from el4ner.participation import StageName
from el4ner.pipeline import BasePipeline
from el4ner.pools import Pool
from el4ner.proposing.boundary_proposer import BoundaryProposer
from el4ner.repeats import AnswersCarry, AnswersFormat, AnswerStore, memories
from el4ner.retrieval import Retriever
from el4ner.serialize import fingerprint
from el4ner.stages import StageContext
from el4ner.stages.asking import ask_members
from el4ner.stages.document_stage import DocumentStage
from el4ner.stages.hosted_pools import PoolEvidence, ReadPool
from el4ner.stages.views import answers_in, candidates_apart
from el4ner.types import (
    Document,
    DocumentAnswers,
    DocumentCandidates,
    Manifest,
    SentenceAnswers,
    SentenceCandidates,
    Usage,
)

__all__ = ["MembersPipeline"]


class MembersPipeline(BasePipeline):
    """Some of an ensemble's members. What it extracts is their part, and instead of classifying it says what they
    answer; :class:`el4ner.stages.combine.Combiner` makes the ensemble's results of all parts.

    Args:
        settings, engines, pools, retrievers, proposers, retrieves, answers, unread: as :class:`BasePipeline` has them.
            Nobody teaches their pools.
        sources: what the members answer by in scored mode, by the pool's name.
    """

    def __init__(
        self,
        settings: Settings,
        engines: Mapping[str, Engine],
        pools: Mapping[str, Pool],
        retrievers: Mapping[str, Retriever],
        sources: Mapping[str, Sequence[Source]],
        proposers: Mapping[str, BoundaryProposer] | None = None,
        *,
        retrieves: bool = True,
        answers: AnswerStore | None = None,
        unread: Mapping[str, ReadPool] = MappingProxyType({}),
    ) -> None:
        method = settings.method
        if method.repeats == "templates":
            # Each member would take over its own answers from other lines than the others do.
            method = method.model_copy(update={"repeats": "exact"})
        super().__init__(
            settings,
            engines,
            pools,
            retrievers,
            {},
            proposers or {},
            repeats=method,
            retrieves=retrieves,
            answers=answers,
            unread=unread,
            teachers={},
        )
        self._sources = dict(sources)
        answering = AnswersCarry()
        self._answer = DocumentStage(
            "classify",
            memories(answering, method, self._kinds, self._shared("classify", answering, AnswersFormat)),
            admit=self._of_the_same_pool,
            sentences=candidates_apart,
            ask=self._ask_for_answers,
            placed=answers_in,
            result=self._with_speakers,
        )
        self._stages = (self._extract, self._answer, self._validate)

    @override
    def _take_in(self, name: str, made: PoolEvidence) -> None:
        self._sources[name] = made.sources

    @override
    def _decided_by(self, stage: StageName, pool: str) -> str:
        decided_by = super()._decided_by(stage, pool)
        if stage != "classify":
            return decided_by
        # What a member compares with was proposed by the proposer, which need not be hosted here.
        return fingerprint(decided_by, [source.fingerprint for source in self._sources.get(pool, ())])

    def answer(self, batch: Sequence[DocumentCandidates]) -> list[DocumentAnswers | DocumentError]:
        """What the members say of every candidate (stage 3, without the decision)."""
        return self._run(self._answer, batch)

    def _ask_for_answers(
        self, sentences: list[SentenceCandidates], context: StageContext
    ) -> tuple[list[SentenceAnswers], Usage]:
        sources = self._sources.get(context.pool.name, ())
        return ask_members(sentences, list(self.engines.values()), sources, context)

    def _with_speakers(
        self, document: Document, manifest: Manifest, sentences: tuple[SentenceAnswers, ...], usage: Usage
    ) -> DocumentAnswers:
        speakers = tuple(described(source) for source in self._sources.get(manifest.pool, ()))
        return DocumentAnswers(document, manifest, speakers, sentences, usage)
