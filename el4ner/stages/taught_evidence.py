"""What a pool's evidence becomes when the pool is taught: that of its files, with the taught sentences over it.

Only the taught sentences are read. Their spans go into the same memories, by the same measure (the mean and the spread
of the files' spans), so neighbours and means follow; the lexicon is the taught pool's. How the judges are weighed, and
where entities begin and end, is estimated anew when the pool has grown by ``pools.renew_at``; until that is done the
old estimates serve.

All of it is a function of the files and of what was taught, whatever the order in which that came and whoever was
started when: members of a fleet come to the same evidence.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from el4ner.config import Settings
from el4ner.engines.base import Engine, StateEngine, States
from el4ner.engines.wrapped import Call, RelayedEngine
from el4ner.errors import DocumentError
from el4ner.evidence import Calibration, Evidence, InContextSource, Source, StateSource
from el4ner.evidence.corrections import CorrectionSource, shortfalls, with_corrections
from el4ner.evidence.corrections_apart import NearSpans
from el4ner.evidence.encoders import SpanEncoder
from el4ner.evidence.judges import Floats
from el4ner.evidence.one_thread import one_thread
from el4ner.evidence.sources import described
from el4ner.evidence.span_memory import PoolSpans
from el4ner.pools import Pool, PoolSentence
from el4ner.pools.taught import TaughtPool
from el4ner.prompts import PromptSet
from el4ner.proposing.boundary_proposer import BoundaryProposer
from el4ner.retrieval import Retriever, SentenceTransformerEmbedder
from el4ner.stages.context import StageContext
from el4ner.stages.extract import new_proposals
from el4ner.stages.hosted_pools import PoolEvidence
from el4ner.stages.pool_boundaries import kept_states, known_sentences, word_reader
from el4ner.stages.pool_evidence import boundary_source, in_context_source, pool_spans, span_readers, stream_mix
from el4ner.text.lexicon import Lexicon
from el4ner.types import NONE_TYPE, Span

__all__ = ["MOST_TAUGHT", "TaughtEvidence"]

MOST_TAUGHT: Final = 1_000
"""Taught sentences that spans are compared with: the last ones. All of them are in the lexicon, and may be shown."""
_BATCH: Final = 16
_RENEWALS: Final = 2
log = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _ReadSentence:
    """A taught sentence, read. ``likely``: its proposals, and how likely each is an entity. ``vectors``: of ``spans``,
    by the source's name, as the source's memory has them. ``compared``: what the sources say of these by the files."""

    sentence: PoolSentence
    spans: tuple[Span, ...]
    likely: Mapping[Span, float | None]
    vectors: Mapping[str, Vectors]
    compared: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class _Estimates:
    """What is estimated of a pool, and not known of a sentence by itself."""

    calibration: Calibration | None
    proposer: BoundaryProposer | None


class TaughtEvidence:
    """The evidence of one pool, whatever it is taught. One thread at a time calls it, and another one :meth:`renew`.

    Args:
        settings: of the pipeline.
        engines: the members that this process hosts.
        base: the pool's files.
        embedder: where ``method.encoder`` says so.
        folder: where evidence is kept. What is read of taught sentences is kept there too.
        apart: the ensemble's members run in different processes, of which one hosts the proposer: so taught sentences
            are read without it in all of them, and nothing is estimated anew.
    """

    def __init__(
        self,
        settings: Settings,
        engines: Mapping[str, Engine],
        base: Pool,
        embedder: SentenceTransformerEmbedder | None,
        folder: Path,
        *,
        apart: bool = False,
    ) -> None:
        self._apart = apart
        self._settings = settings
        self._engines = engines
        self._base = base
        self._embedder = embedder
        self._folder = folder
        self._prompts = PromptSet(settings.method.prompt_version)
        self._texts: dict[str, list[PoolSentence]] = {}
        for sentence in base.sentences:
            self._texts.setdefault(sentence.text, []).append(sentence)
        self._read: dict[PoolSentence, _ReadSentence] = {}
        self._estimates: dict[str, _Estimates] = {}
        self._spans: PoolSpans | None = None

    def of(self, taught: TaughtPool, made: PoolEvidence, retriever: Retriever, call: Call) -> PoolEvidence:
        """The evidence of a taught pool.

        Args:
            taught: of the same files.
            made: what came of reading these.
            retriever: of the taught pool.
            call: makes every call of a model. Those that the evidence is asked later are the members' own.
        """
        due = self._due(taught)
        known = None if due is None else self._estimates.get(due.pool.fingerprint)
        if due is not None and known is None and self._estimates:
            known = next(reversed(self._estimates.values()))  # until the next ones are there
        return self._made(taught, made, retriever, call, known)

    def is_due(self, taught: TaughtPool, made: PoolEvidence) -> bool:
        """Whether :meth:`renew` has something to do."""
        if self._apart:
            return False
        if any(isinstance(source, InContextSource) for source in _sources_of(made)):
            return False  # it would take minutes of a model's time
        if made.proposer is None and (made.evidence is None or self._settings.method.weights == "even"):
            return False
        due = self._due(taught)
        return due is not None and due.pool.fingerprint not in self._estimates

    def renew(self, taught: TaughtPool, made: PoolEvidence, retriever: Retriever, call: Call) -> None:
        """Estimate weights and boundaries anew, by what the pool had when it had grown enough."""
        due = self._due(taught)
        if due is None:
            return
        proposer = None if made.proposer is None else self._boundaries(due.pool, made.proposer, call)
        calibration = None if made.evidence is None else made.evidence.calibration
        if calibration is not None and self._settings.method.weights != "even":
            by_files = _Estimates(calibration, proposer)
            sources, spans = self._sources(due, made, retriever, call, by_files)
            label = f"weighing the evidence of pool {due.pool.name}"
            calibration = Calibration.open(self._folder, sources, spans, len(due.pool.types) + 1, label=label)
        self._estimates[due.pool.fingerprint] = _Estimates(calibration, proposer)
        while len(self._estimates) > _RENEWALS:
            del self._estimates[next(iter(self._estimates))]
        log.info(
            "the evidence of a taught pool is weighed anew",
            extra={"pool": taught.pool.name, "examples": len(due.examples)},
        )

    # --- which sentences ----------------------------------------------------------------------------------------

    def _due(self, taught: TaughtPool) -> TaughtPool | None:
        """The pool as it was when it had grown enough for the last time, by the order in which it was taught; None: it
        has not yet."""
        growth, files, count = 1 + self._settings.pools.renew_at, len(self._base.sentences), len(taught.examples)
        enough, step = 0, 1
        while (least := math.ceil(files * (growth**step - 1))) <= count:
            enough, step = max(enough, least), step + 1
        return taught.earlier(enough) if enough else None

    def _to_read(self, taught: TaughtPool) -> list[PoolSentence]:
        """What was taught last and is not in the files as it is."""
        longest = self._settings.method.max_sentence_chars
        new = [
            sentence
            for sentence in taught.sentences
            if len(sentence.text) <= longest and not self._is_in_files(sentence)
        ]
        return new[-MOST_TAUGHT:]

    def _is_in_files(self, sentence: PoolSentence) -> bool:
        """As it was taught: somebody confirmed it."""
        known = self._texts.get(sentence.text, [])
        return bool(known) and all(other == sentence for other in known)

    # --- reading ------------------------------------------------------------------------------------------------

    def _sentences(self, taught: TaughtPool, made: PoolEvidence, call: Call) -> list[_ReadSentence]:
        wanted, read = self._to_read(taught), self._read
        missing = [sentence for sentence in wanted if sentence not in read]
        if missing:
            read.update(self._read_now(missing, made, call))
        if len(read) > 2 * MOST_TAUGHT:
            self._read = {sentence: read[sentence] for sentence in wanted}
        # The order of the topic is nobody's: that of the texts is everybody's.
        return [read[sentence] for sentence in sorted(wanted, key=lambda sentence: sentence.text)]

    def _read_now(
        self, sentences: Sequence[PoolSentence], made: PoolEvidence, call: Call
    ) -> Iterable[tuple[PoolSentence, _ReadSentence]]:
        sources = {source.name: source for source in _sources_of(made) if isinstance(source, StateSource)}
        members = {
            name: kept_states(RelayedEngine(engine, call), self._folder, self._base, "taught")
            for name, engine in self._engines.items()
            if isinstance(engine, StateEngine)
        }
        at_start = not self._read
        proposer = None if self._apart else made.proposer
        context = self._context(proposer)
        if proposer is not None:
            reader = members[proposer.reader.name]
            context = self._context(replace(proposer, reader=word_reader(reader, context)))
        readers = span_readers(self._settings, members, self._embedder, context)
        for first in range(0, len(sentences), _BATCH):
            batch = sentences[first : first + _BATCH]
            try:
                yield from self._read_batch(batch, context, sources, readers, call)
            except DocumentError:
                for one in batch:
                    try:
                        yield from self._read_batch([one], context, sources, readers, call)
                    except DocumentError as error:
                        # It is in the lexicon all the same, and nobody else has to do without for it.
                        log.warning("a taught sentence is not compared with: %s", error, extra={"where": one.where})
                        nothing = {name: source.memory.vectors[:, :0] for name, source in sources.items()}
                        unsaid = {name: source.compared(nothing[name]) for name, source in sources.items()}
                        yield one, _ReadSentence(one, (), {}, nothing, unsaid)
        if at_start:
            # What was withdrawn, or taught long ago, need not be kept.
            for kept in members.values():
                kept.tidy()

    def _read_batch(
        self,
        batch: Sequence[PoolSentence],
        context: StageContext,
        sources: Mapping[str, StateSource],
        readers: Mapping[str, SpanEncoder],
        call: Call,
    ) -> list[tuple[PoolSentence, _ReadSentence]]:
        """
        Raises:
            DocumentError: a sentence does not fit a member.
        """
        proposals = new_proposals(batch, context)
        spans = [
            tuple(sorted({*likely, *(span for span, _ in sentence.spans)}))
            for sentence, likely in zip(batch, proposals, strict=True)
        ]
        vectors: list[dict[str, Vectors]] = [{} for _ in batch]
        for name, source in sources.items():
            states = self._encoded(readers[name], [one.text for one in batch], spans, call)
            for of_sentence, own in zip(states, vectors, strict=True):
                # Rounded as the files' vectors are.
                own[name] = source.memory.comparable(of_sentence).astype(np.float16).astype(np.float32)
        with one_thread():
            compared = [{name: source.compared(own[name]) for name, source in sources.items()} for own in vectors]
        parts = zip(batch, spans, proposals, vectors, compared, strict=True)
        return [(one, _ReadSentence(one, own_spans, likely, own, said)) for one, own_spans, likely, own, said in parts]

    def _encoded(
        self, reader: SpanEncoder, texts: Sequence[str], spans: Sequence[Sequence[Span]], call: Call
    ) -> list[States]:
        if self._settings.method.encoder == "members":  # which are relayed, call by call
            return reader.encode(texts, spans)[0]
        return call(lambda: reader.encode(texts, spans)[0])

    def _context(self, proposer: BoundaryProposer | None) -> StageContext:
        """The files'. What reads spans and words is shown the files' types: states with other types in front of the
        sentence could not be compared with those that are known."""
        return StageContext(self._base, self._prompts, self._settings.method, proposer=proposer)

    # --- putting together ---------------------------------------------------------------------------------------

    def _made(
        self, taught: TaughtPool, made: PoolEvidence, retriever: Retriever, call: Call, estimates: _Estimates | None
    ) -> PoolEvidence:
        proposer = made.proposer
        if proposer is not None and estimates is not None and estimates.proposer is not None:
            proposer = replace(estimates.proposer, reader=proposer.reader)
        sources, spans = self._sources(taught, made, retriever, call, estimates)
        names = Lexicon(span.text for sentence in taught.sentences for span, _ in sentence.spans)
        if made.evidence is None:
            speakers = [described(source) for source in made.sources]
            near = self._near(taught, made, sources, call)
            return replace(made, proposer=proposer, sources=sources, taught=names, speakers=speakers, near=near)
        calibration = made.evidence.calibration
        if estimates is not None and estimates.calibration is not None:
            calibration = estimates.calibration
        types, mix = list(taught.pool.types), made.evidence.mix
        if mix is not None and list(self._base.types) != types:
            mix = stream_mix(taught.pool, spans, self._settings.method)
        adaptive = self._settings.method.adaptive
        correcting = self._corrections(taught, made, made.evidence, sources, calibration, call)
        if correcting is not None:
            sources, calibration = [*sources, correcting], with_corrections(calibration)
        return PoolEvidence(proposer, Evidence(sources, calibration, types, adaptive=adaptive, mix=mix), taught=names)

    def _corrections(
        self,
        taught: TaughtPool,
        made: PoolEvidence,
        files: Evidence,
        sources: Sequence[Source],
        calibration: Calibration,
        call: Call,
    ) -> CorrectionSource | None:
        """What was taught, where what the files say of it falls short; None where nobody compares states."""
        comparing = [source for source in sources if isinstance(source, StateSource)]
        read = self._sentences(taught, made, call)
        if not comparing or not read:
            return None
        spans, kinds = _spans_of(read, taught.pool), len(taught.pool.types) + 1
        keys = _keys(comparing, read)
        compared = {source.name: np.concatenate([one.compared[source.name] for one in read]) for source in comparing}
        likely = [one.likely.get(span) for one in read for span in one.spans]
        by_name = {source.name: source for source in files.in_order}
        missing = shortfalls(
            [by_name[step.source] for step in calibration.steps],
            calibration.steps[-1].combination,
            compared,
            np.asarray([np.nan if share is None else share for share in likely], dtype=np.float64),
            spans.labels,
            kinds,
        )
        return CorrectionSource(comparing, keys, missing, spans.fingerprint)

    def _near(self, taught: TaughtPool, made: PoolEvidence, sources: Sequence[Source], call: Call) -> NearSpans | None:
        """What was taught, for whoever combines what these members say with what others say; None where none of them
        compares states."""
        comparing = [source for source in sources if isinstance(source, StateSource)]
        read = self._sentences(taught, made, call) if comparing else []
        if not read:
            return None
        spans, labels = _spans_of(read, taught.pool), [*taught.pool.types, NONE_TYPE]
        digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16] for text in spans.texts]
        return NearSpans(
            comparing,
            _keys(comparing, read),
            [
                f"{digest}:{span.start}-{span.end}"
                for digest, of_sentence in zip(digests, spans.spans, strict=True)
                for span in of_sentence
            ],
            [labels[label] for label in spans.labels],
            np.concatenate(
                [np.concatenate([one.compared[source.name] for source in comparing], axis=1) for one in read]
            ),
        )

    def _sources(
        self, taught: TaughtPool, made: PoolEvidence, retriever: Retriever, call: Call, estimates: _Estimates | None
    ) -> tuple[list[Source], PoolSpans]:
        before = _sources_of(made)
        found = made.left_out or made.proposer
        if not before:
            return [], self._files_spans(found)
        read, pool = self._sentences(taught, made, call), taught.pool
        kinds, none = len(pool.types) + 1, len(pool.types)
        dropped = {sentence.text for sentence in taught.sentences if not self._is_in_files(sentence)}
        spans, rows = self._files_spans(found).with_taught(
            _spans_of(read, pool), dropped=dropped, none=(len(self._base.types), none)
        )
        proposer = found if estimates is None else estimates.proposer
        sources: list[Source] = []
        for source in before:
            if isinstance(source, StateSource):
                added = [one.vectors[source.name] for one in read]
                shape = source.memory.vectors.shape
                empty = np.zeros((shape[0], 0, shape[2]), np.float32)
                with one_thread():
                    sources.append(source.with_taught(np.concatenate([empty, *added], axis=1), rows, spans, kinds))
            elif isinstance(source, InContextSource):
                context = StageContext(pool, self._prompts, self._settings.method)
                sources.append(in_context_source(self._engines[source.voter], context, spans, retriever))
            elif proposer is not None:
                likely = {one.sentence.text: one.likely for one in read}
                sources.append(boundary_source(proposer, spans, kinds, likely))
        return sources, spans

    def _files_spans(self, proposer: BoundaryProposer | None) -> PoolSpans:
        if self._spans is None:
            self._spans = pool_spans(self._context(proposer))
        return self._spans

    # --- estimating ---------------------------------------------------------------------------------------------

    def _boundaries(self, pool: Pool, made: BoundaryProposer, call: Call) -> BoundaryProposer:
        """Reads the words of the files too, where that is not kept: of a shipped pool only what was solved is."""
        engine = self._engines[made.reader.name]
        assert isinstance(engine, StateEngine)
        reader = word_reader(kept_states(RelayedEngine(engine, call), self._folder, pool, "words"), self._context(None))
        sentences = known_sentences(StageContext(pool, self._prompts, self._settings.method))
        label = f"reading the words of pool {pool.name} with {engine.name}"
        return BoundaryProposer.open(sentences, reader, self._folder, label=label)


def _sources_of(made: PoolEvidence) -> Sequence[Source]:
    return made.sources if made.evidence is None else made.evidence.in_order


def _keys(sources: Sequence[StateSource], read: Sequence[_ReadSentence]) -> dict[str, Vectors]:
    """The taught spans' vectors, by the source's name."""
    return {source.name: np.concatenate([one.vectors[source.name] for one in read], axis=1) for source in sources}


def _spans_of(read: Sequence[_ReadSentence], pool: Pool) -> PoolSpans:
    labels = {label: index for index, label in enumerate(pool.types)}
    gold = [{span: labels[label] for span, label in one.sentence.spans} for one in read]
    return PoolSpans(
        tuple(one.sentence.text for one in read),
        tuple(one.spans for one in read),
        np.asarray(
            [known.get(span, len(labels)) for one, known in zip(read, gold, strict=True) for span in one.spans],
            dtype=np.int64,
        ),
        np.repeat(np.arange(len(read), dtype=np.int64), [len(one.spans) for one in read]),
        np.asarray([span in one.likely for one in read for span in one.spans], dtype=np.bool_),
    )
