"""Stage 2: span extraction. Every member lists spans; the result is the union (arXiv 2505.23038, section 3.2).

``scored`` mode departs from the paper (``method.proposals``): a chunker and the pool's own surfaces propose, and one
member by its hidden states of the words (:mod:`el4ner.proposing`), which also leaves out what of the others' proposals
hardly is an entity. So every proposal is a substring of the input, and the classifier's ``none`` does the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from el4ner.config import MethodSettings
from el4ner.engines import checks
from el4ner.engines.base import Engine, GenerateRequest
from el4ner.errors import DocumentError
from el4ner.evidence import BOUNDARIES
from el4ner.pools.pool import Pool, PoolSentence
from el4ner.proposing.boundary_proposer import Proposed
from el4ner.stages.answers import parse_spans
from el4ner.stages.context import STOP, StageContext
from el4ner.text.atoms import AtomGate
from el4ner.text.chunks import chunks
from el4ner.text.mentions import find_mentions
from el4ner.text.proposal_limits import admitted
from el4ner.text.white_space import as_read, comparable
from el4ner.types import Mode, Sentence, SentenceCandidates, Span, SpanCandidate, Usage

__all__ = [
    "CHUNKS",
    "LEXICON",
    "SentenceInput",
    "cheap_proposals",
    "check_spans",
    "extract",
    "new_proposals",
    "pool_proposals",
    "propose",
    "without_parts_of_atoms",
]

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
    """Candidates of each sentence, in the batch's order; offsets are the sentence's own."""
    proposals: list[dict[Span, list[str]]] = [{} for _ in batch]
    dropped = [0] * len(batch)
    usage = Usage()
    proposers = proposers_of(context)
    cheap = [_cheap(item.sentence.text, context) for item in batch]
    boundaries: list[dict[Span, float]] = [{} for _ in batch]
    if context.proposer is not None:
        boundaries, usage = context.proposer.propose([item.sentence.text for item in batch], cheap)
    for said, likely, proposed in zip(cheap, boundaries, proposals, strict=True):
        for span in likely:
            proposed[span] = [BOUNDARIES]
        for name, spans in ((CHUNKS, said.chunked), (LEXICON, said.in_lexicon)):
            for span in spans:
                if context.proposer is None or span in likely:
                    proposed.setdefault(span, []).append(name)
    if context.proposer is not None and context.taught is not None and LEXICON in proposers:
        # Somebody said of a name that it is one because nobody had found it.
        for item, likely, proposed in zip(batch, boundaries, proposals, strict=True):
            for span in context.taught.find(item.sentence.text):
                if span not in likely:
                    proposed.setdefault(span, []).append(LEXICON)
    if "models" in proposers:
        for engine in engines:
            answers, used = _generate(batch, engine, context)
            usage += used
            for index, surfaces in enumerate(answers):
                sentence = batch[index].sentence
                for surface in surfaces:
                    mentions = find_mentions(surface, sentence.text)
                    dropped[index] += not mentions
                    for span in mentions:
                        proposed_by = proposals[index].setdefault(span, [])
                        if engine.name not in proposed_by:
                            proposed_by.append(engine.name)
    return [
        SentenceCandidates(
            sentence=item.sentence,
            demonstrations=item.demonstrations,
            candidates=_candidates(item.sentence.text, proposed, likely, context.pool),
            dropped=missed,
        )
        for item, proposed, likely, missed in zip(batch, proposals, boundaries, dropped, strict=True)
    ], usage


def _cheap(text: str, context: StageContext) -> Proposed:
    """What the proposers that are no model say of a sentence of the stream."""
    proposers = proposers_of(context)
    return Proposed(
        [chunk.span for chunk in chunks(text, context.pool.text_kind)] if CHUNKS in proposers else [],
        context.pool.lexicon.find(text) if LEXICON in proposers else [],
    )


def _candidates(
    text: str, proposed: Mapping[Span, list[str]], likely: Mapping[Span, float], pool: Pool
) -> tuple[SpanCandidate, ...]:
    """What everybody proposed and is considered. The chunker's are the first to go."""
    named = {span for span, names in proposed.items() if names != [CHUNKS]}
    return tuple(
        SpanCandidate(span, tuple(proposed[span]), likely.get(span))
        for span in _considered(text, proposed, pool, first=named)
    )


def _considered(text: str, proposed: Iterable[Span], pool: Pool, *, first: Collection[Span]) -> list[Span]:
    """The proposals for a sentence that stay, by place: whole atoms or none, unless the pool labels parts of such
    (:mod:`el4ner.text.atoms`), and within the limits, where those in ``first`` are the last to go."""
    gate = AtomGate(text, pool.divisible)
    return sorted(admitted(text, filter(gate.admits, proposed), first=first))


def without_parts_of_atoms(answers: Sequence[SentenceCandidates], text: str, pool: Pool) -> list[SentenceCandidates]:
    """A document's answers without candidates inside of an atom that is longer than a sentence may be, so that it was
    cut in two: a piece of it does not look like one. Offsets are those of ``text``, the document's."""
    cut: set[int] = set()
    for place, (before, after) in enumerate(pairwise(answers)):
        if before.sentence.end == after.sentence.start:
            cut |= {place, place + 1}
    if not cut:
        return list(answers)
    gate = AtomGate(text, pool.divisible)
    return [
        replace(answer, candidates=tuple(candidate for candidate in answer.candidates if gate.admits(candidate.span)))
        if place in cut
        else answer
        for place, answer in enumerate(answers)
    ]


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
    """Who proposes spans: in paper mode the models alone, whatever ``method.proposals`` says. Where nobody would, since
    no member shows its states (or the pool is too small), the chunker does."""
    if context.settings.mode is Mode.PAPER:
        return ("models",)
    if context.proposer is None and set(context.settings.proposals) == {BOUNDARIES}:
        return (CHUNKS,)
    return context.settings.proposals


def cheap_proposals(context: StageContext) -> Callable[[PoolSentence], Proposed]:
    """What the proposers that are no model find in a sentence of the pool itself, as if it were not in the pool: a
    surface that only this sentence has (or a copy of it) is not in the lexicon. Offsets are the sentence's.

    Where only models propose the chunker does it here: something has to show what is no entity."""
    proposers: list[str] = [name for name in context.settings.proposals if name != "models"] or [CHUNKS]
    surfaces: dict[str, set[str]] = {}
    for sentence in context.pool.sentences:
        surfaces.setdefault(sentence.text, set()).update(
            comparable(span.text.strip()).form for span, _ in sentence.spans
        )
    seen = Counter(surface for in_sentence in surfaces.values() for surface in in_sentence)

    def of(sentence: PoolSentence) -> Proposed:
        chunked: set[Span] = set()
        labelled: set[Span] = set()
        if CHUNKS in proposers:
            chunked.update(chunk.span for chunk in chunks(sentence.text, context.pool.text_kind))
        if LEXICON in proposers:
            here = surfaces[sentence.text]
            # Found as it is written, or by a surface in lower case, which is found in any.
            labelled.update(
                span
                for span in context.pool.lexicon.find(sentence.text)
                if any(seen[form] > (form in here) for form in _forms(span.text))
            )
        return Proposed(chunked, labelled)

    return of


def pool_proposals(context: StageContext) -> Callable[[PoolSentence], list[Span]]:
    """The candidates of a sentence of the pool itself, as if it were not in the pool. Offsets are the sentence's."""
    proposer, pool = context.proposer, context.pool
    if proposer is not None:  # who knew what the others propose when the pool was read

        def left_out(sentence: PoolSentence) -> list[Span]:
            places = proposer.left_out.get(sentence.text, {})
            proposed = {Span(start, end, sentence.text[start:end]) for start, end in places}
            return _considered(sentence.text, proposed, pool, first=proposed)

        return left_out
    cheap = cheap_proposals(context)

    def of(sentence: PoolSentence) -> list[Span]:
        chunked, labelled = cheap(sentence)
        return _considered(sentence.text, {*chunked, *labelled}, pool, first=labelled)

    return of


def new_proposals(sentences: Sequence[PoolSentence], context: StageContext) -> list[dict[Span, float | None]]:
    """The candidates of sentences that the pool is to have, in the order of the text, and how likely each is an entity
    by the states of words (None: nobody reads them): as :func:`pool_proposals` has them of those that it has. Offsets
    are the sentence's own. The pool may have a text already, with other labels."""
    pool, proposer = context.pool, context.proposer
    proposers: list[str] = [name for name in context.settings.proposals if name != "models"] or [CHUNKS]
    known = {sentence.text for sentence in pool.sentences}
    of_known = cheap_proposals(context)
    cheap = [
        of_known(sentence)
        if sentence.text in known
        else Proposed(
            [chunk.span for chunk in chunks(sentence.text, pool.text_kind)] if CHUNKS in proposers else [],
            pool.lexicon.find(sentence.text) if LEXICON in proposers else [],
        )
        for sentence in sentences
    ]
    if proposer is None:
        return [
            dict.fromkeys(
                _considered(sentence.text, {*said.chunked, *said.in_lexicon}, pool, first=set(said.in_lexicon))
            )
            for sentence, said in zip(sentences, cheap, strict=True)
        ]
    likely, _ = proposer.propose([sentence.text for sentence in sentences], cheap)
    proposals: list[dict[Span, float | None]] = []
    for sentence, found in zip(sentences, likely, strict=True):
        left_out = proposer.left_out.get(sentence.text)
        if left_out is not None:  # who was shown these labels is not asked
            found = {Span(start, end, sentence.text[start:end]): share for (start, end), share in left_out.items()}
        proposals.append({span: found[span] for span in _considered(sentence.text, found, pool, first=found.keys())})
    return proposals


def _forms(surface: str) -> tuple[str, str]:
    form = comparable(surface).form
    return form, form.lower()


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
                spans_of=as_read(sentence.text) if context.settings.constrain else None,
            )
            for sentence in sentences
        ]
        for index, result in enumerate(checks.generate(engine, requests)):
            usage += result.usage
            gate = AtomGate(sentences[index].text, context.pool.divisible)
            for surface in parse_spans(f"-{result.text}"):
                for span in filter(gate.admits, find_mentions(surface, sentences[index].text)):
                    surfaces[index][span.text] = None
    return [list(spans) for spans in surfaces], usage


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
                spans_of=as_read(item.sentence.text) if settings.constrain else None,
            )
            for item in batch
        ],
    )
    usage = sum((result.usage for result in results), Usage())
    return [parse_spans(f"-{result.text}") for result in results], usage
