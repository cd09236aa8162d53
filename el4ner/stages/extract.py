"""Stage 2: span extraction. Every member lists spans; the result is the union (arXiv 2505.23038, section 3.2).

``scored`` mode departs from the paper: a chunker proposes as well, or alone (``method.proposals``), so every proposal
is a substring of the input and costs nothing; the classifier's ``none`` does the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from el4ner.config import MethodSettings
from el4ner.engines import checks
from el4ner.engines.base import Engine, GenerateRequest
from el4ner.errors import DocumentError
from el4ner.pools.pool import PoolSentence
from el4ner.stages.answers import parse_spans
from el4ner.stages.context import STOP, StageContext
from el4ner.text.atoms import AtomGate
from el4ner.text.chunks import chunks
from el4ner.text.mentions import find_mentions
from el4ner.types import Mode, Sentence, SentenceCandidates, Span, SpanCandidate, Usage

__all__ = ["CHUNKS", "LEXICON", "SentenceInput", "cheap_proposals", "check_spans", "extract", "propose"]

CHUNKS = "chunks"
LEXICON = "lexicon"
"""The names of the proposers that are no model."""


@dataclass(frozen=True, slots=True)
class SentenceInput:
    """A sentence and the pool sentences to show with it, most similar first."""

    sentence: Sentence
    demonstrations: tuple[int, ...]


def extract(
    batch: Sequence[SentenceInput], engines: Sequence[Engine], context: StageContext
) -> tuple[list[SentenceCandidates], Usage]:
    """Candidates of each sentence, in the batch's order; offsets are the document's. Nobody's proposal begins or ends
    inside of an atom (:mod:`el4ner.text.atoms`), unless the pool labels parts of such."""
    proposals: list[dict[Span, list[str]]] = [{} for _ in batch]
    dropped = [0] * len(batch)
    usage = Usage()
    proposers = proposers_of(context)
    gates = [AtomGate(item.sentence.text, context.pool.divisible) for item in batch]
    for item, found, gate in zip(batch, proposals, gates, strict=True):
        if CHUNKS in proposers:
            for chunk in chunks(item.sentence.text, context.pool.text_kind):
                if gate.admits(chunk.span):
                    found[_in_document(chunk.span, item.sentence)] = [CHUNKS]
        if LEXICON in proposers:
            for span in filter(gate.admits, context.pool.lexicon.find(item.sentence.text)):
                found.setdefault(_in_document(span, item.sentence), []).append(LEXICON)
    if "models" in proposers:
        for engine in engines:
            answers, used = _generate(batch, engine, context)
            usage += used
            for index, surfaces in enumerate(answers):
                sentence = batch[index].sentence
                for surface in surfaces:
                    mentions = find_mentions(surface, sentence.text)
                    dropped[index] += not mentions
                    for span in filter(gates[index].admits, mentions):
                        found_by = proposals[index].setdefault(_in_document(span, sentence), [])
                        if engine.name not in found_by:
                            found_by.append(engine.name)
    return [
        SentenceCandidates(
            sentence=item.sentence,
            demonstrations=item.demonstrations,
            candidates=tuple(SpanCandidate(span, tuple(names)) for span, names in sorted(found.items())),
            dropped=missed,
        )
        for item, found, missed in zip(batch, proposals, dropped, strict=True)
    ], usage


def check_spans(count: int, method: MethodSettings) -> None:
    """Every candidate costs the members time, so that these are a document's size as well.

    Raises:
        DocumentError: there are more than ``method.max_spans``.
    """
    if count > method.max_spans:
        raise DocumentError(
            f"{count} spans are proposed in the text, more than method.max_spans = {method.max_spans}",
            code="too-many-spans",
        )


def proposers_of(context: StageContext) -> tuple[str, ...]:
    """Who proposes spans: in paper mode the models alone, whatever ``method.proposals`` says."""
    return ("models",) if context.settings.mode is Mode.PAPER else context.settings.proposals


def cheap_proposals(context: StageContext) -> Callable[[PoolSentence], list[Span]]:
    """What the proposers that are no model find in a sentence of the pool itself, as if it were not in the pool: a
    surface that only this sentence has (or a copy of it) is not in the lexicon. Offsets are the sentence's.

    Where only models propose the chunker does it here: something has to show what is no entity."""
    proposers: list[str] = [name for name in context.settings.proposals if name != "models"] or [CHUNKS]
    surfaces: dict[str, set[str]] = {}
    for sentence in context.pool.sentences:
        surfaces.setdefault(sentence.text, set()).update(span.text.strip() for span, _ in sentence.spans)
    seen = Counter(surface for own in surfaces.values() for surface in own)

    def of(sentence: PoolSentence) -> list[Span]:
        found = [chunk.span for chunk in chunks(sentence.text, context.pool.text_kind)] if CHUNKS in proposers else []
        if LEXICON in proposers:
            own = surfaces[sentence.text]
            # Found as it is written, or by a surface in lower case, which is found in any.
            found += [
                span
                for span in context.pool.lexicon.find(sentence.text)
                if any(seen[form] > (form in own) for form in (span.text, span.text.lower()))
            ]
        gate = AtomGate(sentence.text, context.pool.divisible)
        return [span for span in found if gate.admits(span)]

    return of


def propose(
    sentences: Sequence[Sentence], engines: Sequence[Engine], context: StageContext
) -> tuple[list[list[str]], Usage]:
    """Spans of the input for retrieval, as the paper has it: every model, zero-shot, union (section 3.1)."""
    surfaces: list[dict[str, None]] = [{} for _ in sentences]
    usage = Usage()
    for engine in engines:
        requests = [
            GenerateRequest(
                context.prompt(
                    engine, "paper_spans", (), reserve=context.settings.max_new_tokens, sentence=sentence.text
                ),
                context.settings.max_new_tokens,
                STOP,
                spans_of=sentence.text if context.settings.constrain else None,
            )
            for sentence in sentences
        ]
        for index, result in enumerate(checks.generate(engine, requests)):
            usage += result.usage
            gate = AtomGate(sentences[index].text, context.pool.divisible)
            for surface in parse_spans(f"-{result.text}"):
                for span in filter(gate.admits, find_mentions(surface, sentences[index].text)):
                    surfaces[index][span.text] = None
    return [list(found) for found in surfaces], usage


def _generate(batch: Sequence[SentenceInput], engine: Engine, context: StageContext) -> tuple[list[list[str]], Usage]:
    settings = context.settings
    results = checks.generate(
        engine,
        [
            GenerateRequest(
                context.prompt(
                    engine,
                    "paper_extract",
                    item.demonstrations,
                    reserve=settings.max_new_tokens,
                    sentence=item.sentence.text,
                ),
                settings.max_new_tokens,
                STOP,
                spans_of=item.sentence.text if settings.constrain else None,
            )
            for item in batch
        ],
    )
    usage = sum((result.usage for result in results), Usage())
    return [parse_spans(f"-{result.text}") for result in results], usage


def _in_document(span: Span, sentence: Sentence) -> Span:
    return Span(sentence.start + span.start, sentence.start + span.end, span.text)
