"""The method over documents: what the in-process tagger and the stream's workers both call.

Each stage is one function from a batch of documents to a batch of results, in the same order. A document that cannot be
processed gives a :class:`~el4ner.errors.DocumentError` in its place and costs the others nothing; an engine that fails
raises :class:`~el4ner.errors.EngineError` for the whole batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, TypeVar

from el4ner.config import Settings
from el4ner.engines.base import Engine, Interruptible
from el4ner.engines.placing import place
from el4ner.engines.registry import load_engine
from el4ner.errors import DocumentError
from el4ner.evidence import Calibration, Evidence, Source
from el4ner.evidence.calibration import FOLDER
from el4ner.evidence.sources import described
from el4ner.models.prepare import default_cache_dir, prepare
from el4ner.models.progress import NO_PROGRESS, Progress
from el4ner.nearest import choices, nearest_hint
from el4ner.participation import STAGES, StageName, asks_models_for_query_spans, engines_for
from el4ner.pools import Pool, load_pools
from el4ner.prompts import PromptSet
from el4ner.repeats import Answered, Memories, RepeatCounts
from el4ner.retrieval import RetrievalCache, Retriever, SentenceTransformerEmbedder, make_retriever
from el4ner.stages import SentenceInput, StageContext, classify, extract, validate
from el4ner.stages.asking import ask_members
from el4ner.stages.extract import check_spans, propose, without_parts_of_atoms
from el4ner.stages.pool_evidence import make_evidence, make_sources, shows_demonstrations
from el4ner.stages.slices import in_slices
from el4ner.stages.verification import VerifiedPool, verify_pool
from el4ner.stages.views import (
    answers_of,
    clean_candidates,
    clean_types,
    entities_of,
    original_candidates,
    types_of,
)
from el4ner.text.chunks import chunks, outermost
from el4ner.text.controls import CleanText
from el4ner.text.segment import segment
from el4ner.types import (
    Document,
    DocumentAnswers,
    DocumentCandidates,
    DocumentEntities,
    DocumentTypes,
    Manifest,
    Mode,
    Sentence,
    SentenceCandidates,
    SentenceTypes,
    Usage,
)

__all__ = ["STAGES", "Pipeline", "StageName"]

log = logging.getLogger(__name__)

_In = TypeVar("_In")


class Pipeline:
    """Pools, retrievers and engines, ready to work. Not thread-safe: one owner thread calls it.

    Args:
        settings: what to do and how.
        engines: the ensemble's members by name, in the ensemble's order; or those that the stages in use need.
        pools: the hosted pools by name.
        retrievers: a retriever for each pool, by the pool's name.
        evidence: what the scored mode classifies by, by the pool's name. A pool without any goes by the mean of the
            members' answers in context.
        sources: of a pipeline with a part of the ensemble: what its members answer :meth:`answer` by, by the pool's
            name. It cannot :meth:`classify`, and what it extracts is its members' part.
        retrieves: False: extraction retrieves no demonstrations, since nobody will read them.
    """

    def __init__(
        self,
        settings: Settings,
        engines: Mapping[str, Engine],
        pools: Mapping[str, Pool],
        retrievers: Mapping[str, Retriever],
        evidence: Mapping[str, Evidence] | None = None,
        sources: Mapping[str, Sequence[Source]] | None = None,
        *,
        retrieves: bool = True,
    ) -> None:
        self.settings = settings
        self._retrieves = retrieves
        self.engines = dict(engines)
        self.pools = dict(pools)
        self._retrievers = dict(retrievers)
        self._prompts = PromptSet(settings.method.prompt_version)
        known = evidence or {}
        self._contexts = {
            name: StageContext(pool, self._prompts, settings.method, known.get(name))
            for name, pool in self.pools.items()
        }
        self._sources = sources
        self._progressed: Callable[[], None] = lambda: None
        method = settings.method
        if sources is not None and method.repeats == "templates":
            # Each member would take over its own answers from other lines than the others do.
            method = method.model_copy(update={"repeats": "exact"})
        self._memories = Memories(method, {name: pool.text_kind for name, pool in self.pools.items()})

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        cache: RetrievalCache | None = None,
        cache_dir: Path | None = None,
        progress: Progress = NO_PROGRESS,
        calibrate_anew: bool = False,
        stages: Collection[StageName] = STAGES,
        members: Collection[str] | None = None,
        demonstrations: Literal["all", "shown"] = "all",
    ) -> Pipeline:
        """Load everything that ``settings`` names: models (prepared where they are not yet), pools and their indexes.

        Takes seconds, and minutes where weights have to be converted or a pool's evidence has to be read first.
        ``calibrate_anew``: the evidence is weighed in any case. ``stages``: those that will be asked for; models that
        they do not need are not loaded, and without ``classify`` no evidence is read. ``members``: the part of the
        ensemble that this process hosts, where the others are elsewhere; None: there is only this one.
        ``demonstrations``: ``all``: every sentence gets its own, as other processes may read them; ``shown``: only
        where this pipeline's own prompts show them, so that most often no embedder is loaded.

        Raises:
            ConfigError, ModelError, PoolError: what cannot be loaded, and how to mend it.
        """
        folder = cache_dir or default_cache_dir()
        pools = load_pools(settings.pools)
        embedder = None
        if settings.needs_embedder:
            embedder = SentenceTransformerEmbedder(prepare(settings.retrieval.embedder, folder, progress))
        engines: dict[str, Engine] = {}
        try:
            wanted = {name: settings.models[name] for name in engines_for(settings, stages, members)}
            for name, placed in place(wanted, cache_dir=folder, progress=progress).items():
                engines[name] = load_engine(name, placed, cache_dir=folder, progress=progress)
            return cls.from_parts(
                settings,
                engines,
                pools,
                embedder,
                cache=cache,
                cache_dir=folder,
                progress=progress,
                calibrate_anew=calibrate_anew,
                stages=stages,
                is_part=members is not None,
                demonstrations=demonstrations,
            )
        except BaseException:
            for engine in engines.values():
                engine.close()
            raise

    @classmethod
    def from_parts(
        cls,
        settings: Settings,
        engines: Mapping[str, Engine],
        pools: Mapping[str, Pool],
        embedder: SentenceTransformerEmbedder | None,
        *,
        cache: RetrievalCache | None = None,
        cache_dir: Path,
        progress: Progress = NO_PROGRESS,
        calibrate_anew: bool = False,
        stages: Collection[StageName] = STAGES,
        is_part: bool = False,
        demonstrations: Literal["all", "shown"] = "all",
    ) -> Pipeline:
        """As :meth:`from_settings`, from models and pools that are there already: pools' indexes and evidence are read
        from ``cache_dir``, or made. Several pipelines may share engines; ``embedder`` is None where
        ``settings.needs_embedder`` is False. ``is_part``: the engines are a part of the ensemble."""
        retrieval = settings.retrieval
        shown = demonstrations == "all" or shows_demonstrations(settings, engines.values())
        retrieves = shown and "extract" in stages
        if embedder is not None and (retrieves or settings.method.encoder == "embedder"):
            embedder.load()
        retrievers = {
            name: make_retriever(
                retrieval.kind,
                pool,
                k=retrieval.k,
                seed=retrieval.seed,
                embedder=embedder,
                index_dir=cache_dir / "index",
                cache=cache,
                progress=progress,
                at_first_use=not retrieves,
            )
            for name, pool in pools.items()
        }
        evidence: Mapping[str, Evidence] = {}
        sources: Mapping[str, Sequence[Source]] | None = {} if is_part else None
        if "classify" in stages and is_part:
            sources = make_sources(
                settings,
                engines,
                pools,
                retrievers,
                embedder=embedder,
                folder=cache_dir / FOLDER,
                progress=progress,
            )
        elif "classify" in stages:
            evidence = make_evidence(
                settings,
                engines,
                pools,
                retrievers,
                embedder=embedder,
                folder=cache_dir / FOLDER,
                progress=progress,
                fresh=calibrate_anew,
            )
        return cls(settings, engines, pools, retrievers, evidence, sources, retrieves=retrieves)

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

    def __enter__(self) -> Pipeline:
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

    # --- the stages ---------------------------------------------------------------------------------------------

    def extract(self, documents: Sequence[Document]) -> list[DocumentCandidates | DocumentError]:
        """Segment, retrieve demonstrations, and collect every member's spans (stages 1 and 2)."""

        def work(batch: Sequence[_Segmented], context: StageContext) -> list[DocumentCandidates]:
            sentences = [sentence for item in batch for sentence in item.sentences]
            views = [item.view for item in batch for _ in item.sentences]

            def ask(asked: list[Sentence]) -> tuple[list[SentenceCandidates], Usage]:
                inputs, usage = self._with_demonstrations(asked, context) if self._retrieves else _bare(asked)
                found, used = extract(inputs, list(self.engines.values()), context)
                return found, usage + used

            answered = self._memories.extract[context.pool.name].answer(
                sentences, lambda asked: in_slices(asked, ask, self._progressed)
            )
            whole = without_parts_of_atoms(answered.answers, [view.text for view in views], context.pool)
            placed = [original_candidates(found, view) for found, view in zip(whole, views, strict=True)]
            manifest = self.manifest("extract", context.pool.name)
            regrouped = _regrouped(replace(answered, answers=placed), [len(item.sentences) for item in batch])
            return [
                DocumentCandidates(item.document, manifest, candidates, share)
                for item, (candidates, share) in zip(batch, regrouped, strict=True)
            ]

        prepared = [self._guard(self._segmented, document) for document in documents]
        found = self._by_pool(prepared, lambda item: item.document, work)
        return [one if isinstance(one, DocumentError) else self._guard(self._within_spans, one) for one in found]

    def classify(self, batch: Sequence[DocumentCandidates]) -> list[DocumentTypes | DocumentError]:
        """Give every candidate a type or ``none`` (stage 3)."""

        def work(items: Sequence[DocumentCandidates], context: StageContext) -> list[DocumentTypes]:
            flat = [sentence for item in items for sentence in item.sentences]
            answered = self._memories.classify[context.pool.name].answer(
                _clean(items, clean_candidates),
                lambda asked: in_slices(
                    asked, lambda some: classify(some, list(self.engines.values()), context), self._progressed
                ),
            )
            answered = replace(answered, answers=[*map(types_of, flat, answered.answers)])
            manifest = self.manifest("classify", context.pool.name)
            regrouped = _regrouped(answered, [len(item.sentences) for item in items])
            return [
                DocumentTypes(item.document, manifest, sentences, share)
                for item, (sentences, share) in zip(items, regrouped, strict=True)
            ]

        return self._by_pool([self._guard(self._same_pool, item) for item in batch], lambda item: item.document, work)

    def answer(self, batch: Sequence[DocumentCandidates]) -> list[DocumentAnswers | DocumentError]:
        """What the members say of every candidate (stage 3, without the decision): of a part of the ensemble. All parts
        together are decided about by :class:`el4ner.stages.combine.Combiner`."""
        by_pool = self._sources or {}

        def work(items: Sequence[DocumentCandidates], context: StageContext) -> list[DocumentAnswers]:
            flat = [sentence for item in items for sentence in item.sentences]
            sources = by_pool.get(context.pool.name, ())
            answered = self._memories.answers[context.pool.name].answer(
                _clean(items, clean_candidates),
                lambda asked: in_slices(
                    asked,
                    lambda some: ask_members(some, list(self.engines.values()), sources, context),
                    self._progressed,
                ),
            )
            answered = replace(answered, answers=[*map(answers_of, flat, answered.answers)])
            manifest = self.manifest("classify", context.pool.name)
            speakers = tuple(described(source) for source in sources)
            regrouped = _regrouped(answered, [len(item.sentences) for item in items])
            return [
                DocumentAnswers(item.document, manifest, speakers, sentences, share)
                for item, (sentences, share) in zip(items, regrouped, strict=True)
            ]

        return self._by_pool([self._guard(self._same_pool, item) for item in batch], lambda item: item.document, work)

    def validate(self, batch: Sequence[DocumentTypes]) -> list[DocumentEntities | DocumentError]:
        """Ask the verifier about every typed span that is no ``none`` (stage 4)."""
        off = self.settings.method.validation_kind == "off"
        verifier = None if off else self.engines[self.settings.verifier]

        def work(items: Sequence[DocumentTypes], context: StageContext) -> list[DocumentEntities]:
            flat = [sentence for item in items for sentence in item.sentences]
            answered = self._memories.validate[context.pool.name].answer(
                _clean(items, clean_types),
                lambda asked: in_slices(asked, lambda some: validate(some, verifier, context), self._progressed),
            )
            answered = replace(answered, answers=[*map(entities_of, flat, answered.answers)])
            manifest = self.manifest("validate", context.pool.name)
            regrouped = _regrouped(answered, [len(item.sentences) for item in items])
            return [
                DocumentEntities(item.document, manifest, sentences, share)
                for item, (sentences, share) in zip(items, regrouped, strict=True)
            ]

        return self._by_pool([self._guard(self._same_pool, item) for item in batch], lambda item: item.document, work)

    @property
    def repeats(self) -> Mapping[str, RepeatCounts]:
        """By stage: how many sentences were answered from memory, and how many were not (``method.repeats``)."""
        return self._memories.counts

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

    def manifest(self, stage: StageName, pool: str) -> Manifest:
        """Who would produce a result of ``stage`` for a document of ``pool``."""
        names = list(self.engines)
        if stage == "validate":
            names = [] if self.settings.method.validation_kind == "off" else [self.settings.verifier]
        elif stage == "extract" and self.settings.method.mode is Mode.SCORED:
            names = names if "models" in self.settings.method.proposals else []
        evidence = self._contexts[pool].evidence if stage == "classify" else None
        return Manifest(
            mode=self.settings.method.mode,
            members={name: self.engines[name].fingerprint for name in names},
            prompt_version=self._prompts.version + ("+constrained" if self.settings.method.constrain else ""),
            pool=pool,
            pool_fingerprint=self.pools[pool].fingerprint,
            retriever=self._retrievers[pool].fingerprint,
            evidence=evidence.fingerprint if evidence is not None else None,
        )

    # --- helpers ------------------------------------------------------------------------------------------------

    def _segmented(self, document: Document) -> _Segmented:
        """Sentences of the document's clean text. Refuses what is too large before anything is asked about it."""
        limits = self.settings.method
        if len(document.text) > limits.max_document_chars:
            raise DocumentError(
                f"the text has {len(document.text)} characters, more than method.max_document_chars = "
                f"{limits.max_document_chars}",
                code="document-too-long",
            )
        try:
            document.text.encode()
        except UnicodeEncodeError as error:
            raise DocumentError(
                f"the text has half of a surrogate pair at {error.start}, which no encoding of Unicode can carry",
                code="not-unicode",
            ) from error
        kind = self._pool_of(document).text_kind
        view = CleanText.of(document.text)
        sentences = segment(view.text, kind, max_chars=limits.max_sentence_chars)
        if len(sentences) > limits.max_sentences:
            raise DocumentError(
                f"the text has {len(sentences)} {'lines' if kind == 'log' else 'sentences'}, more than "
                f"method.max_sentences = {limits.max_sentences}",
                code="too-many-sentences",
            )
        # Retrieval compares these before the candidates can be counted. They begin at different characters, so a
        # shorter text cannot have too many.
        if len(document.text) > limits.max_spans and self._compares_chunks():
            check_spans(sum(len(outermost(chunks(sentence.text, kind))) for sentence in sentences), limits)
        return _Segmented(document, view, sentences)

    def _within_spans(self, found: DocumentCandidates) -> DocumentCandidates:
        check_spans(sum(len(sentence.candidates) for sentence in found.sentences), self.settings.method)
        return found

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

    def _same_pool(self, item: _Judgeable) -> _Judgeable:
        """Demonstrations are indices into a pool, so the stages of one document have to see the same pool."""
        pool = self._pool_of(item.document)
        if item.manifest.pool_fingerprint != pool.fingerprint:
            raise DocumentError(
                f"pool {pool.name!r} is {pool.fingerprint} here, but {item.manifest.pool_fingerprint} at the stage "
                "before: give all workers the same pool",
                code="pool-mismatch",
            )
        if any(not 0 <= shown < len(pool.sentences) for one in item.sentences for shown in one.demonstrations):
            raise DocumentError(
                f"a demonstration is none of the {len(pool.sentences)} sentences of pool {pool.name!r}",
                code="pool-mismatch",
            )
        return item

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
        found = self._retrievers[context.pool.name].retrieve(texts, spans)
        return [SentenceInput(sentence, chosen) for sentence, chosen in zip(sentences, found, strict=True)], usage

    def _compares_chunks(self) -> bool:
        return self.settings.retrieval.kind == "span" and not asks_models_for_query_spans(self.settings)

    @staticmethod
    def _guard(step: Callable[[_In], _Out], item: _In) -> _Out | DocumentError:
        try:
            return step(item)
        except DocumentError as error:
            return error

    def _by_pool(
        self,
        items: Sequence[_Item | DocumentError],
        document_of: Callable[[_Item], Document],
        work: Callable[[Sequence[_Item], StageContext], list[_Result]],
    ) -> list[_Result | DocumentError]:
        """Run ``work`` once for each pool, over that pool's items, and put the results in the items' order.

        A document whose sentence fits no model is found only while prompts are made: then the others go on without it.
        """
        results: dict[int, _Result | DocumentError] = {}
        groups: dict[str, list[int]] = {}
        for index, item in enumerate(items):
            if isinstance(item, DocumentError):
                results[index] = item
            else:
                groups.setdefault(self._pool_of(document_of(item)).name, []).append(index)
        for name, indices in groups.items():
            context = self._contexts[name]
            good = [(index, item) for index in indices if not isinstance(item := items[index], DocumentError)]
            done: list[_Result | DocumentError] = []
            try:
                done.extend(work([item for _, item in good], context))
            except DocumentError as error:
                if len(good) == 1:
                    done.append(error)
                else:
                    for _, single in good:
                        alone: _Result | DocumentError = self._alone(single, context, work)
                        done.append(alone)
            results.update(zip((index for index, _ in good), done, strict=True))
        return [results[index] for index in range(len(items))]

    @staticmethod
    def _alone(
        item: _Item, context: StageContext, work: Callable[[Sequence[_Item], StageContext], list[_Result]]
    ) -> _Result | DocumentError:
        try:
            return work([item], context)[0]
        except DocumentError as error:
            return error


class _Segmented(NamedTuple):
    """A document, its clean text, and the sentences of that."""

    document: Document
    view: CleanText
    sentences: list[Sentence]


def _clean(
    items: Sequence[DocumentCandidates] | Sequence[DocumentTypes], clean: Callable[[_Sentence, CleanText], _Sentence]
) -> list[_Sentence]:
    """The sentences of all documents in their clean texts."""
    cleaned: list[_Sentence] = []
    for item in items:
        view = CleanText.of(item.document.text)
        cleaned += [clean(sentence, view) for sentence in item.sentences]  # type: ignore[arg-type]
    return cleaned


_Sentence = TypeVar("_Sentence", SentenceCandidates, SentenceTypes)
_Out = TypeVar("_Out")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Judgeable = TypeVar("_Judgeable", DocumentCandidates, DocumentTypes)


def _bare(sentences: Sequence[Sentence]) -> tuple[list[SentenceInput], Usage]:
    """Without demonstrations."""
    return [SentenceInput(sentence, ()) for sentence in sentences], Usage()


def _regrouped(answered: Answered[_Result], sizes: Sequence[int]) -> list[tuple[tuple[_Result, ...], Usage]]:
    """A flat batch of sentences' results, document by document, each with its share of the tokens: what was answered
    from memory cost none."""
    flat, asked = iter(answered.answers), iter(answered.asked)
    shares = _shared(answered.usage, [sum(islice(asked, size)) for size in sizes])
    return [(tuple(islice(flat, size)), share) for size, share in zip(sizes, shares, strict=True)]


def _shared(usage: Usage, sizes: Sequence[int]) -> list[Usage]:
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
