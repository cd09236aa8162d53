"""From the configuration to each pool's evidence: which members speak how; read and calibrated where it is not yet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from el4ner.config import MethodSettings, Settings
from el4ner.engines.base import Engine, StateEngine
from el4ner.evidence import (
    BoundarySource,
    Calibration,
    Evidence,
    InContextSource,
    Source,
    StateSource,
    even_calibration,
)
from el4ner.evidence.encoders import EmbedderEncoder, MemberEncoder, SpanEncoder
from el4ner.evidence.prepared import SHIPPED, PreparedEvidence
from el4ner.evidence.priors import pool_density, pool_mix
from el4ner.evidence.reading import AT_ONCE, PoolReading
from el4ner.evidence.sources import Ask, StateKind
from el4ner.evidence.span_memory import PoolSpans, SpanMemory
from el4ner.evidence.stream_mix import StreamMix
from el4ner.models.locking import exclusive
from el4ner.participation import goes_by_mean, speaks_in_context
from el4ner.pools import Pool
from el4ner.prompts import PromptSet
from el4ner.proposing.boundary_proposer import BoundaryProposer
from el4ner.proposing.place_encoder import PlaceEncoder
from el4ner.retrieval import Retriever, SentenceTransformerEmbedder
from el4ner.stages.context import StageContext
from el4ner.stages.extract import pool_proposals
from el4ner.stages.in_context import type_scores
from el4ner.stages.pool_boundaries import bare_prompt, kept_states, shown_in_prompts, word_reader
from el4ner.types import Mode, Span

__all__ = [
    "boundary_source",
    "in_context_source",
    "make_evidence",
    "make_sources",
    "pool_spans",
    "span_readers",
    "stream_mix",
]

log = logging.getLogger(__name__)
_IN_PLACE: Final = "in place"
_NOTHING: Final[Mapping[str, Mapping[Span, float | None]]] = MappingProxyType({})


def make_evidence(
    settings: Settings,
    engines: Mapping[str, Engine],
    pools: Mapping[str, Pool],
    retrievers: Mapping[str, Retriever],
    *,
    embedder: SentenceTransformerEmbedder | None,
    folder: Path,
    proposers: Mapping[str, BoundaryProposer],
    reading: PoolReading = AT_ONCE,
    fresh: bool = False,
    prepared: PreparedEvidence = SHIPPED,
) -> dict[str, Evidence]:
    """The evidence of every pool, by name: none in paper mode, and none where no encoder shows states and nothing asks
    for calibrated answers in context.

    Reads each pool's spans with every encoder and estimates the weights, where neither ``prepared`` nor ``folder`` has
    them. ``fresh``: the weights are estimated in any case.
    """
    method = settings.method
    if method.mode is Mode.PAPER:
        return {}
    if goes_by_mean(method, shows_states=any(isinstance(engine, StateEngine) for engine in engines.values())):
        if method.evidence and method.encoder == "members" and "in_context" not in method.evidence:
            log.info("no member shows its hidden states: types go by the members' answers in context")
        return {}
    prompts = PromptSet(method.prompt_version)
    by_pool = {}
    for name, pool in pools.items():
        context = StageContext(pool, prompts, method, proposer=proposers.get(name))
        spans = pool_spans(context)
        kinds = len(pool.types) + 1
        # Workers that start together would all read the same pool: the first one does, the others find its files.
        with exclusive(folder / f"{pool.fingerprint}.lock", reading.waiting, reading.meanwhile):
            sources = _sources(settings, engines, context, spans, retrievers[name], embedder, folder, reading, prepared)
            if method.weights == "even":
                calibration = even_calibration(sources, spans)
            else:
                label = f"weighing the evidence of pool {name}"
                calibration = Calibration.open(
                    folder,
                    sources,
                    spans,
                    kinds,
                    label=label,
                    progress=reading.progress,
                    fresh=fresh,
                    prepared=prepared,
                )
        mix = stream_mix(pool, spans, method)
        by_pool[name] = Evidence(sources, calibration, list(pool.types), adaptive=method.adaptive, mix=mix)
    return by_pool


def make_sources(
    settings: Settings,
    engines: Mapping[str, Engine],
    pools: Mapping[str, Pool],
    retrievers: Mapping[str, Retriever],
    *,
    embedder: SentenceTransformerEmbedder | None,
    folder: Path,
    proposers: Mapping[str, BoundaryProposer],
    reading: PoolReading = AT_ONCE,
) -> dict[str, list[Source]]:
    """The sources of every pool, by name, for members that answer in a process of their own: as :func:`make_evidence`
    has them, without weights. Where types go by the mean of the answers in context, members answer in context. There
    are none in paper mode."""
    method = settings.method
    if method.mode is Mode.PAPER:
        return {}
    prompts = PromptSet(method.prompt_version)
    by_pool = {}
    for name, pool in pools.items():
        context = StageContext(pool, prompts, method, proposer=proposers.get(name))
        with exclusive(folder / f"{pool.fingerprint}.lock", reading.waiting, reading.meanwhile):
            spans = pool_spans(context)
            by_pool[name] = _sources(
                settings, engines, context, spans, retrievers[name], embedder, folder, reading, SHIPPED
            )
    return by_pool


def _state_kinds(method: MethodSettings) -> list[StateKind]:
    return [kind for kind in method.evidence if kind != "in_context"]


def _sources(
    settings: Settings,
    engines: Mapping[str, Engine],
    context: StageContext,
    spans: PoolSpans,
    retriever: Retriever,
    embedder: SentenceTransformerEmbedder | None,
    folder: Path,
    reading: PoolReading,
    prepared: PreparedEvidence,
) -> list[Source]:
    """What extraction found first, then sources by hidden states, then those that answer in context, both in the
    ensemble's order."""
    method, pool = settings.method, context.pool
    by_states = _state_kinds(method)
    members = {name: engine for name, engine in engines.items() if isinstance(engine, StateEngine)}
    sources: list[Source] = []
    if context.proposer is not None and not goes_by_mean(method, shows_states=True):
        sources.append(boundary_source(context.proposer, spans, len(pool.types) + 1))
    if by_states:
        sources += _state_sources(settings, members, context, spans, embedder, folder, reading, prepared)
    for engine in engines.values():
        if speaks_in_context(method, shows_states=isinstance(engine, StateEngine)):
            sources.append(in_context_source(engine, context, spans, retriever))
    return sources


def in_context_source(engine: Engine, context: StageContext, spans: PoolSpans, retriever: Retriever) -> InContextSource:
    """The member's answers in context; ``spans``: those that they are weighed by."""
    fingerprint = f"{engine.fingerprint} {shown_in_prompts(context)} {retriever.fingerprint} {spans.fingerprint}"
    return InContextSource(engine.name, fingerprint, _ask(engine, context), retriever.retrieve)


def _state_sources(
    settings: Settings,
    members: Mapping[str, StateEngine],
    context: StageContext,
    spans: PoolSpans,
    embedder: SentenceTransformerEmbedder | None,
    folder: Path,
    reading: PoolReading,
    prepared: PreparedEvidence,
) -> list[Source]:
    method, pool = settings.method, context.pool
    using, kinds = _state_kinds(method), len(pool.types) + 1

    def memory_of(reader: SpanEncoder, what: str) -> SpanMemory:
        label = f"reading the {what} of pool {pool.name} with {reader.name}"
        return SpanMemory.open(
            spans, reader, folder, label=label, progress=reading.progress, prepared=prepared, call=reading.call
        )

    sources: list[Source] = []
    kept = {name: kept_states(reading.by(engine), folder, pool, "spans") for name, engine in members.items()}
    readers = _encoders(settings, kept, embedder, context)
    for encoder, reader in zip(_encoders(settings, members, embedder, context), readers, strict=True):
        memory, by_boundaries = memory_of(reader, "spans"), context.proposer is not None
        sources.append(StateSource(encoder, memory, spans, kinds, using, by_boundaries=by_boundaries))
    kept_files = list(kept.values())
    proposer = members.get(settings.proposer or "")
    if method.encoder == "members" and pool.text_kind == "log" and proposer is not None:
        words = kept_states(reading.by(proposer), folder, pool, "words")
        memory = memory_of(PlaceEncoder(word_reader(words, context)), "lines")
        in_place = PlaceEncoder(word_reader(proposer, context))
        sources.append(StateSource(in_place, memory, spans, kinds, using, kind=_IN_PLACE))
        kept_files.append(words)
    for each in kept_files:
        each.tidy()
    return sources


def pool_spans(context: StageContext) -> PoolSpans:
    """The spans that a pool's evidence is made from: whoever judges the pool's own sentences has to take the same."""
    method = context.settings
    return PoolSpans.of(
        context.pool, pool_proposals(context), limit=method.pool_sentences, max_chars=method.max_sentence_chars
    )


def span_readers(
    settings: Settings,
    members: Mapping[str, StateEngine],
    embedder: SentenceTransformerEmbedder | None,
    context: StageContext,
) -> dict[str, SpanEncoder]:
    """Who reads spans, by the name of the source that compares them (:attr:`StateSource.name`)."""
    if not _state_kinds(settings.method):
        return {}
    readers = {encoder.name: encoder for encoder in _encoders(settings, members, embedder, context)}
    proposer = members.get(settings.proposer or "")
    if settings.method.encoder == "members" and context.pool.text_kind == "log" and proposer is not None:
        readers[f"{proposer.name} {_IN_PLACE}"] = PlaceEncoder(word_reader(proposer, context))
    return readers


def boundary_source(
    proposer: BoundaryProposer, spans: PoolSpans, kinds: int, more: Mapping[str, Mapping[Span, float | None]] = _NOTHING
) -> BoundarySource:
    """What extraction found of the pool's spans; ``more``: of texts that the proposer was not shown."""
    left_out = []
    for text, in_sentence in zip(spans.texts, spans.spans, strict=True):
        known, further = proposer.left_out.get(text), more.get(text, {})
        for span in in_sentence:
            share = further.get(span) if known is None else known.get((span.start, span.end))
            left_out.append(np.nan if share is None else share)
    return BoundarySource(f"{proposer.fingerprint} {spans.fingerprint}", np.asarray(left_out), kinds)


def stream_mix(pool: Pool, spans: PoolSpans, method: MethodSettings) -> StreamMix:
    """Of a stream that begins now: its candidates are to be like the pool's."""
    labels, kinds = spans.labels[spans.proposed], len(pool.types) + 1
    return StreamMix(
        pool.name,
        list(pool.types),
        pool_mix(labels, kinds),
        pool_density=pool_density(labels, kinds, spans.weights[spans.proposed]),
        priors=method.priors,
        threshold=method.drift_threshold,
    )


def _encoders(
    settings: Settings,
    members: Mapping[str, StateEngine],
    embedder: SentenceTransformerEmbedder | None,
    context: StageContext,
) -> Sequence[SpanEncoder]:
    if settings.method.encoder == "embedder":
        assert embedder is not None  # the pipeline loads it for this encoder
        return [EmbedderEncoder(embedder)]
    return [
        MemberEncoder(engine, bare_prompt(engine, context), _tail(context), version=shown_in_prompts(context))
        for engine in members.values()
    ]


def _tail(context: StageContext) -> Callable[[str], str]:
    return lambda surface: context.prompts.block("scored", "mention", surface=surface)


def _ask(engine: Engine, context: StageContext) -> Ask:
    return lambda questions: type_scores(questions, engine, context)
