"""The method over documents: what the in-process tagger and the stream's workers both call.

Each stage is one function from a batch of documents to a batch of results, in the same order. A document that cannot be
processed gives a :class:`~el4ner.errors.DocumentError` in its place and costs the others nothing; an engine that fails
raises :class:`~el4ner.errors.EngineError` for the whole batch.

:class:`Pipeline` has the whole ensemble. Where its members run in different processes, each process has a
:class:`~el4ner.members_pipeline.MembersPipeline`. :mod:`el4ner.loader` loads both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self, TypeVar

from el4ner.config import MethodSettings, Settings
from el4ner.decided_by import decided_by
from el4ner.engines.base import Engine, Interruptible, StateEngine
from el4ner.engines.wrapped import Call
from el4ner.errors import DocumentError, El4nerError, PoolReadingError
from el4ner.evidence import Calibration, Evidence
from el4ner.evidence.reading import Meanwhile, ReadingStoppedError
from el4ner.evidence.stream_mix import StreamMix
from el4ner.front_door import FrontDoor, KnownDocument
from el4ner.models.progress import NO_PROGRESS, Progress
from el4ner.nearest import choices, nearest_hint
from el4ner.participation import StageName, asks_models_for_query_spans
from el4ner.pools import Pool
from el4ner.prompts import PromptSet
from el4ner.proposing.boundary_proposer import BoundaryProposer
from el4ner.repeats import (
    AgreedFormat,
    AnswerStore,
    Carry,
    ClassifyCarry,
    ExtractCarry,
    ExtractedFormat,
    KeptFormat,
    RepeatCounts,
    SharedAnswers,
    ValidateCarry,
    VerdictsFormat,
    memories,
)
from el4ner.retrieval import Retriever
from el4ner.stages import SentenceInput, StageContext, classify, extract, validate
from el4ner.stages.admission import check_text, of_the_same_pool, segmented
from el4ner.stages.document_stage import DocumentStage, or_error
from el4ner.stages.extract import check_spans, propose
from el4ner.stages.hosted_pools import HostedPools, PoolEvidence, ReadPool
from el4ner.stages.one_sense import with_one_sense
from el4ner.stages.teaching import PoolReadBeside, PoolTeacher, PoolTeaching, PreparedPool
from el4ner.stages.validate import unverified
from el4ner.stages.verification import VerifiedPool, verify_pool
from el4ner.stages.views import (
    SegmentedDocument,
    candidates_apart,
    candidates_in,
    entities_in,
    sentences_apart,
    types_apart,
    types_in,
)
from el4ner.text.chunks import chunks, outermost
from el4ner.types import (
    Document,
    DocumentCandidates,
    DocumentEntities,
    DocumentTypes,
    Manifest,
    Mode,
    Sentence,
    SentenceCandidates,
    SentenceEntities,
    SentenceTypes,
    TaggedDocument,
    Usage,
)

__all__ = ["BasePipeline", "Pipeline"]

Given = TypeVar("Given", Document, DocumentCandidates, DocumentTypes)
Judgeable = TypeVar("Judgeable", DocumentCandidates, DocumentTypes)
Result = TypeVar("Result")
Kept = TypeVar("Kept")
_EARLIER_POOLS: Final = 32
"""What a pool was before it was taught more is remembered so many times: for documents that are between two stages."""


@contextmanager
def _cannot_be_read(pool: str) -> Iterator[None]:
    try:
        yield
    except (ReadingStoppedError, PoolReadingError):
        raise
    except Exception as error:
        # Whatever it is: the documents that wait for the pool are not to blame.
        what = str(error) if isinstance(error, El4nerError) else f"{type(error).__name__}: {error}"
        raise PoolReadingError(f"pool {pool!r} cannot be read: {what}") from error


class BasePipeline:
    """Pools, retrievers and engines, ready to extract and to validate. Not thread-safe: one owner thread calls it.

    Args:
        settings: what to do and how.
        engines: members by name, in the ensemble's order: those that the stages in use need.
        pools: the hosted pools by name.
        retrievers: a retriever for each pool, by the pool's name.
        evidence: of the pools that have any, by the pool's name.
        proposers: who proposes spans by the states of words, by the pool's name.
        repeats: how much the stages remember of their answers: ``repeats`` and ``repeat_cache_sentences``.
        retrieves: False: extraction retrieves no demonstrations, since nobody will read them.
        answers: what other processes were asked before; None: nothing is shared with any.
        unread: how the pools are read that are not, by name: each when its first document comes.
        teachers: what makes of pools that are taught what the stages need, by the pool's name.
    """

    def __init__(
        self,
        settings: Settings,
        engines: Mapping[str, Engine],
        pools: Mapping[str, Pool],
        retrievers: Mapping[str, Retriever],
        evidence: Mapping[str, Evidence],
        proposers: Mapping[str, BoundaryProposer],
        *,
        repeats: MethodSettings,
        retrieves: bool,
        answers: AnswerStore | None,
        unread: Mapping[str, ReadPool],
        teachers: Mapping[str, PoolTeacher],
    ) -> None:
        self.settings = settings
        self.engines = dict(engines)
        self.pools = dict(pools)
        self.teaching = PoolTeaching(pools, teachers)
        self._earlier: dict[str, OrderedDict[str, Pool]] = {name: OrderedDict() for name in pools}
        self._retrievers = dict(retrievers)
        self._retrieves = retrieves
        self._answers = answers
        self._prompts = PromptSet(settings.method.prompt_version)
        self._unread = dict(unread)
        ready = {
            name: StageContext(pool, self._prompts, settings.method, evidence.get(name), proposers.get(name))
            for name, pool in self.pools.items()
            if name not in unread
        }
        for name in ready:
            self._files_read(name, PoolEvidence(proposers.get(name), evidence.get(name)))
        self._contexts = HostedPools(ready, [name for name in self.pools if name in unread], self._read_pool)
        self._progressed: Callable[[], None] = lambda: None
        self._kinds = {name: pool.text_kind for name, pool in self.pools.items()}
        # Without validation there is nobody to spare a question.
        verdicts = repeats if self._validates else repeats.model_copy(update={"repeats": "off"})
        extracting, validating = ExtractCarry(), ValidateCarry()
        verdict_format = VerdictsFormat(settings.verifier)
        self._extract = DocumentStage(
            "extract",
            memories(extracting, repeats, self._kinds, self._shared("extract", extracting, ExtractedFormat)),
            admit=self._segmented,
            sentences=sentences_apart,
            ask=self._ask_for_candidates,
            placed=candidates_in,
            result=DocumentCandidates,
        )
        self._validate = DocumentStage(
            "validate",
            memories(validating, verdicts, self._kinds, self._shared("validate", validating, lambda _: verdict_format)),
            admit=self._of_the_same_pool,
            sentences=types_apart,
            ask=self._ask_for_verdicts,
            placed=entities_in,
            result=DocumentEntities,
        )
        self._stages: Sequence[DocumentStage[Any, Any, Any, Any, Any]] = ()

    def close(self) -> None:
        """Close the engines."""
        for engine in self.engines.values():
            engine.close()

    def interrupt(self) -> None:
        """From any thread: end the call that is running, and every later one, as far as the engines can. See
        :class:`~el4ner.engines.base.Interruptible`."""
        for engine in self.engines.values():
            if isinstance(engine, Interruptible):
                engine.interrupt()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def report_progress(self, progress: Callable[[], None]) -> None:
        """From now on ``progress`` is called whenever the engines have answered about a slice of a batch: a call of a
        stage may take as long as its documents are, a slice never longer than
        :data:`~el4ner.stages.slices.MOST_IN_A_SLICE` says."""
        self._progressed = progress

    @property
    def repeats(self) -> Mapping[str, RepeatCounts]:
        """By stage: how many sentences were answered from memory, and how many were not (``method.repeats``)."""
        return {stage.name: stage.counts for stage in self._stages}

    @property
    def mixes(self) -> Mapping[str, StreamMix]:
        """Of what was classified so far, by the name of the pool; of pools that have evidence. From any thread."""
        evidence = {name: context.evidence for name, context in self._contexts.ready.items()}
        return {name: made.mix for name, made in evidence.items() if made is not None and made.mix is not None}

    @property
    def unread_pools(self) -> list[str]:
        """Hosted pools that nobody has needed so far, and that have yet to be read. From any thread."""
        return self._contexts.unread

    @property
    def parts_of_reading(self) -> int:
        """How many times the members go through a pool that is read: for its words, and for its spans each."""
        members = sum(isinstance(engine, StateEngine) for engine in self.engines.values())
        return members + (self.settings.proposer in self.engines)

    def read_pools(self, documents: Iterable[Document]) -> None:
        """Read the pools of these documents that have yet to be read, as their stages would.

        Raises:
            PoolReadingError: one cannot be read. It is tried again when it is needed again.
        """
        for name in dict.fromkeys(document.pool or self.settings.pools.default for document in documents):
            self._contexts.get(name)

    def read_beside(self, name: str, call: Call, meanwhile: Meanwhile = lambda _: None) -> PoolReadBeside:
        """Read a pool that is not read, beside the work on documents of others: from a thread of its own, one pool at a
        time. Until :meth:`use_read` has said yes nobody may ask about documents of the pool.

        Args:
            name: of the pool.
            call: calls what asks a model about a slice of the pool, on the pipeline's own thread. What it raises ends
                the reading; what was read is kept, and found when it is begun again.
            meanwhile: called every second while another process reads the pool. What it raises ends the waiting.

        Raises:
            PoolReadingError: it cannot be read.
            ReadingStoppedError: as ``call`` and ``meanwhile`` have raised it.
        """
        with self._contexts.read_beside(name), _cannot_be_read(name):
            return self.teaching.read_beside(name, self._unread[name](call, meanwhile), call)

    @property
    def pools_read_beside(self) -> Collection[str]:
        """Those that :meth:`read_beside` is at work on."""
        return self._contexts.beside

    def teach_beside(self, name: str, read: PoolReadBeside, call: Call) -> PoolReadBeside:
        """What :meth:`read_beside` has given, with what the pool was taught since; as it."""
        with self._contexts.read_beside(name), _cannot_be_read(name):
            return self.teaching.read_beside(name, read.files, call)

    def use_read(self, name: str, read: PoolReadBeside) -> bool:
        """Between two batches: documents of the pool may come. False: :meth:`teach_beside` has to be asked first."""
        if not self.teaching.first_use(name, read):
            return False
        self._take_in(name, read.made)
        self._contexts.replace(name, self._context(name, read.made))
        return True

    def use_pool(self, name: str, prepared: PreparedPool) -> bool:
        """Between two batches: from now on documents of the pool ``name`` are tagged by what it was taught. What was
        answered before is forgotten.

        Returns False where :attr:`teaching` has to prepare it again, since the pool's files were read meanwhile.
        """
        if not self.teaching.use(name, prepared):
            return False
        before, pool = self.pools[name], prepared.taught.pool
        # What was answered goes first: an answer must not be told as the taught pool's.
        self._forget(name)
        if before.fingerprint != pool.fingerprint:
            earlier = self._earlier[name]
            earlier[before.fingerprint] = before
            while len(earlier) > _EARLIER_POOLS:
                earlier.popitem(last=False)
        self._retrievers[name] = prepared.retriever
        self.pools[name] = pool
        if prepared.made is not None:
            self._take_in(name, prepared.made)
            self._contexts.replace(name, self._context(name, prepared.made))
        self._forget(name)  # what is shared with other processes is read as the taught pool has it
        return True

    def _forget(self, pool: str) -> None:
        for stage in self._stages:
            stage.memories.forget(pool)

    def _context(self, name: str, made: PoolEvidence) -> StageContext:
        method = self.settings.method
        return StageContext(self.pools[name], self._prompts, method, made.evidence, made.proposer, made.taught)

    def extract(self, documents: Sequence[Document]) -> list[DocumentCandidates | DocumentError]:
        """Segment, retrieve demonstrations, and collect every member's spans (stages 1 and 2)."""
        return [
            result if isinstance(result, DocumentError) else or_error(self._within_spans, result)
            for result in self._run(self._extract, documents)
        ]

    def validate(self, batch: Sequence[DocumentTypes]) -> list[DocumentEntities | DocumentError]:
        """Ask the verifier about every typed span that is no ``none`` (stage 4)."""
        if self._validates:
            return self._run(self._validate, batch)
        return [or_error(self._unverified, item) for item in batch]

    def _unverified(self, item: DocumentTypes) -> DocumentEntities:
        pool = self._pool_of(item.document)
        of_the_same_pool(item, pool, self._earlier[pool.name])
        return unverified(item, self.manifest("validate", pool.name))

    def manifest(self, stage: StageName, pool: str) -> Manifest:
        """Who would produce a result of ``stage`` for a document of ``pool``."""
        context = self._contexts[pool]
        names, proposer = list(self.engines), context.proposer
        if stage == "validate":
            names = [self.settings.verifier] if self._validates else []
        elif stage == "extract" and self.settings.method.mode is Mode.SCORED:
            reader = proposer.reader.name if proposer is not None else None
            names = names if "models" in self.settings.method.proposals else [name for name in names if name == reader]
        evidence = None
        if stage == "classify":
            evidence = context.evidence.fingerprint if context.evidence is not None else None
        elif stage == "extract" and proposer is not None:
            evidence = proposer.fingerprint
        return Manifest(
            mode=self.settings.method.mode,
            members={name: self.engines[name].fingerprint for name in names},
            prompt_version=self._prompts.version + "".join(f"+{option}" for option in self._options(stage)),
            pool=pool,
            pool_fingerprint=self.pools[pool].fingerprint,
            retriever=self._retrievers[pool].fingerprint,
            evidence=evidence,
            pool_base=self.pools[pool].base,
        )

    # --- what the stages ask ------------------------------------------------------------------------------------

    def _ask_for_candidates(
        self, sentences: list[Sentence], context: StageContext
    ) -> tuple[list[SentenceCandidates], Usage]:
        usage = Usage()
        if self._retrieves:
            inputs, usage = self._with_demonstrations(sentences, context)
        else:
            inputs = [SentenceInput(sentence, ()) for sentence in sentences]
        candidates, used = extract(inputs, list(self.engines.values()), context)
        return candidates, usage + used

    def _with_demonstrations(
        self, sentences: Sequence[Sentence], context: StageContext
    ) -> tuple[list[SentenceInput], Usage]:
        """Stage 1."""
        usage = Usage()
        if asks_models_for_query_spans(self.settings):
            spans, usage = propose(sentences, list(self.engines.values()), context)
        else:
            kind = context.pool.text_kind
            spans = [[span.text for span in outermost(chunks(sentence.text, kind))] for sentence in sentences]
        texts = [sentence.text for sentence in sentences]
        shown = self._retrievers[context.pool.name].retrieve(texts, spans)
        return [SentenceInput(*each) for each in zip(sentences, shown, strict=True)], usage

    def _ask_for_verdicts(
        self, sentences: list[SentenceTypes], context: StageContext
    ) -> tuple[list[SentenceEntities], Usage]:
        return validate(sentences, self.engines[self.settings.verifier] if self._validates else None, context)

    def _options(self, stage: StageName) -> Iterator[str]:
        """What makes a stage's results others than its prompts alone would."""
        if self.settings.method.constrain:
            yield "constrained"
        if self.settings.method.one_sense and stage == "classify":
            yield "one-sense"

    # --- pools that are read when they are needed ---------------------------------------------------------------

    def _read_pool(self, name: str) -> StageContext:
        with _cannot_be_read(name):
            # The call may take minutes: whoever watches it hears of every slice.
            made = self._files_read(name, self._unread[name](self._and_progress, lambda _: self._progressed()))
        self._take_in(name, made)
        return self._context(name, made)

    def _files_read(self, name: str, made: PoolEvidence) -> PoolEvidence:
        """What a pool's files came to; returns what comes of all that it was taught."""
        return self.teaching.read(name, made, self._and_progress)

    def _and_progress(self, function: Callable[[], Kept]) -> Kept:
        answer = function()
        self._progressed()
        return answer

    def _take_in(self, name: str, made: PoolEvidence) -> None:
        """A pool was read: keep what its context does not hold."""

    # --- helpers ------------------------------------------------------------------------------------------------

    def _shared(
        self, stage: StageName, carry: Carry[Any, Any, Kept], form: Callable[[Pool], KeptFormat[Kept]]
    ) -> Callable[[str], SharedAnswers[Any, Kept] | None]:
        """What a stage shares with other processes, by the pool's name: nothing without a store, and nothing where
        answers depend on the stream that a process has seen."""
        store = self._answers
        if store is None or (stage == "classify" and self.settings.method.priors != "pool"):
            return lambda _: None
        return lambda pool: SharedAnswers(
            store, stage, lambda: self._decided_by(stage, pool), carry, form(self.pools[pool])
        )

    def _decided_by(self, stage: StageName, pool: str) -> str:
        """What but the text decides the stage's answers: a fingerprint."""
        return decided_by(self.settings, [self.manifest(stage, pool)])

    @property
    def _validates(self) -> bool:
        return self.settings.method.validation_kind != "off"

    def _segmented(self, document: Document) -> SegmentedDocument:
        method, retrieval = self.settings.method, self.settings.retrieval
        check_text(document, method)
        by_chunks = retrieval.kind == "span" and not asks_models_for_query_spans(self.settings)
        return segmented(document, self._pool_of(document), method, compares_chunks=self._retrieves and by_chunks)

    def _within_spans(self, extracted: DocumentCandidates) -> DocumentCandidates:
        check_spans(sum(len(sentence.candidates) for sentence in extracted.sentences), self.settings.method)
        return extracted

    def _of_the_same_pool(self, item: Judgeable) -> Judgeable:
        pool = self._pool_of(item.document)
        return of_the_same_pool(item, pool, self._earlier[pool.name])

    def _pool_of(self, document: Document) -> Pool:
        name = document.pool or self.settings.pools.default
        pool = self.pools.get(name)
        if pool is None:
            raise DocumentError(
                f"no pool {name!r} is hosted here{nearest_hint(name, self.pools)}; there are: "
                f"{choices(sorted(self.pools))}",
                code="unknown-pool",
            )
        return pool

    def _context_of(self, document: Document) -> StageContext:
        return self._contexts[self._pool_of(document).name]

    def _run(
        self, stage: DocumentStage[Given, Any, Any, Any, Result], batch: Sequence[Given]
    ) -> list[Result | DocumentError]:
        return stage.run(batch, self._context_of, self.manifest, self._progressed)


class Pipeline(BasePipeline):
    """The whole ensemble.

    Args:
        settings, engines, pools, retrievers, proposers, retrieves, answers, unread, teachers: as :class:`BasePipeline`
            has them.
        evidence: what the scored mode classifies by, by the pool's name. A pool without any goes by the mean of the
            members' answers in context.
    """

    def __init__(
        self,
        settings: Settings,
        engines: Mapping[str, Engine],
        pools: Mapping[str, Pool],
        retrievers: Mapping[str, Retriever],
        evidence: Mapping[str, Evidence] | None = None,
        proposers: Mapping[str, BoundaryProposer] | None = None,
        *,
        retrieves: bool = True,
        answers: AnswerStore | None = None,
        unread: Mapping[str, ReadPool] = MappingProxyType({}),
        teachers: Mapping[str, PoolTeacher] = MappingProxyType({}),
    ) -> None:
        method = settings.method
        super().__init__(
            settings,
            engines,
            pools,
            retrievers,
            evidence or {},
            proposers or {},
            repeats=method,
            retrieves=retrieves,
            answers=answers,
            unread=unread,
            teachers=teachers,
        )
        classifying = ClassifyCarry()
        self._classify = DocumentStage(
            "classify",
            memories(classifying, method, self._kinds, self._shared("classify", classifying, AgreedFormat)),
            admit=self._of_the_same_pool,
            sentences=candidates_apart,
            ask=self._ask_for_types,
            placed=types_in,
            result=self._typed_document,
        )
        self._stages = (self._extract, self._classify, self._validate)
        self._front_door = FrontDoor(
            settings,
            *(self._extract, self._classify, self._validate),
            contexts=self._contexts,
            manifest_of=self.manifest,
            within_spans=self._within_spans,
        )

    def classify(self, batch: Sequence[DocumentCandidates]) -> list[DocumentTypes | DocumentError]:
        """Give every candidate a type or ``none`` (stage 3)."""
        return self._run(self._classify, batch)

    def tag(self, batch: Sequence[Document]) -> list[TaggedDocument | DocumentError]:
        """All stages and the joining of their answers in one call: a tagged document for each document, in the same
        order, or why it cannot be processed.

        It is what :meth:`extract`, :meth:`classify`, :meth:`validate` and :func:`~el4ner.assemble.assemble_by` give of
        the same batch in turn, everything that a tagged document shows is equal, and so is what is remembered
        afterwards. So a process may call it for some batches and the stages for others, as long as each batch passes
        all stages before the next one begins. Who answered is :meth:`manifest`, of each stage and the document's pool.
        Log lines whose template is known take the short way: no model, and little work.

        Raises:
            EngineError: a model failed. What was answered until then stays remembered; the batch may be tried again,
                also in parts.
        """
        return self._front_door.tag(batch, self._progressed)

    def known(self, batch: Sequence[Document]) -> list[KnownDocument | None]:
        """Of each document what :meth:`tag` would give without asking anybody; None: somebody has to be asked, or the
        document is no single log line.

        From any thread, and above all while another one is in :meth:`tag` and waits for a model. What is asked about a
        template at that moment is not known yet; a template that is only checked goes by what stands.
        """
        return self._front_door.known(batch)

    @property
    def tagging_usage(self) -> Mapping[StageName, Usage]:
        """By stage, what :meth:`tag` has cost so far; stages that were not asked may be missing."""
        return self._front_door.usage

    def calibration(self, pool: str) -> Calibration | None:
        """How the evidence of ``pool`` is weighed; None where there is none."""
        evidence = self.evidence(pool)
        return evidence.calibration if evidence is not None else None

    def evidence(self, pool: str) -> Evidence | None:
        """What scored mode classifies documents of ``pool`` by; None: by the mean of the answers in context."""
        return self._contexts[pool].evidence

    def verify_pool(
        self, pool: str, *, limit: int, clock: Callable[[], float], progress: Progress = NO_PROGRESS
    ) -> VerifiedPool | None:
        """What the verifier says of the pool's own sentences (at most ``limit``), each typed as if it were not in the
        pool, whatever ``method.validation`` is; None where there is no evidence to do that by."""
        context = self._contexts[pool]
        return verify_pool(
            context,
            self.engines[self.settings.verifier],
            lambda sentences: self._with_demonstrations(sentences, context)[0],
            limit=limit,
            clock=clock,
            progress=progress,
        )

    def _ask_for_types(
        self, sentences: list[SentenceCandidates], context: StageContext
    ) -> tuple[list[SentenceTypes], Usage]:
        return classify(sentences, list(self.engines.values()), context)

    def _typed_document(
        self, document: Document, manifest: Manifest, sentences: tuple[SentenceTypes, ...], usage: Usage
    ) -> DocumentTypes:
        if self.settings.method.one_sense:
            sentences = with_one_sense(sentences, len(self._contexts[manifest.pool].labels))
        return DocumentTypes(document, manifest, sentences, usage)
