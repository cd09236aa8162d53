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
from el4ner.stages.teaching import PoolTeacher
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
        settings, engines, pools, retrievers, proposers, retrieves, answers, unread, teachers: as :class:`BasePipeline`
            has them.
        sources: what the members answer by in scored mode, by the pool's name.
        left_out: who found what is proposed in the pools' sentences, by the pool's name, where that is not their
            proposer.
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
        teachers: Mapping[str, PoolTeacher] = MappingProxyType({}),
        left_out: Mapping[str, BoundaryProposer] = MappingProxyType({}),
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
            teachers=teachers,
        )
        self._made: dict[str, PoolEvidence] = {}
        for name in pools.keys() - unread.keys():
            proposer = (proposers or {}).get(name)
            made = PoolEvidence(proposer, sources=sources.get(name, ()), left_out=left_out.get(name))
            self._take_in(name, self._files_read(name, made))
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
        self._made[name] = made

    @override
    def _decided_by(self, stage: StageName, pool: str) -> str:
        decided_by = super()._decided_by(stage, pool)
        if stage != "classify":
            return decided_by
        # What a member compares with was proposed by the proposer, which need not be hosted here.
        return fingerprint(decided_by, [source.fingerprint for source in self._made_of(pool).sources])

    def _made_of(self, pool: str) -> PoolEvidence:
        return self._made.get(pool, PoolEvidence())

    def answer(self, batch: Sequence[DocumentCandidates]) -> list[DocumentAnswers | DocumentError]:
        """What the members say of every candidate (stage 3, without the decision)."""
        return self._run(self._answer, batch)

    def _ask_for_answers(
        self, sentences: list[SentenceCandidates], context: StageContext
    ) -> tuple[list[SentenceAnswers], Usage]:
        made = self._made_of(context.pool.name)
        return ask_members(sentences, list(self.engines.values()), made.sources, context, made.near)

    def _with_speakers(
        self, document: Document, manifest: Manifest, sentences: tuple[SentenceAnswers, ...], usage: Usage
    ) -> DocumentAnswers:
        made = self._made_of(manifest.pool)
        speakers = tuple(made.speakers or (described(source) for source in made.sources))
        types = () if manifest.pool_base is None else tuple(self.pools[manifest.pool].types)
        return DocumentAnswers(document, manifest, speakers, sentences, usage, types)
