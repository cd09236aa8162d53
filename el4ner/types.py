"""The values that flow through the method: small, frozen, and free of behaviour.

Offsets are Unicode code points into the *document's* text, half-open: for every span that a pipeline gives,
``document.text[span.start:span.end] == span.text``. Inside of the stages each sentence is a text of its own
(:mod:`el4ner.stages.views`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "NONE_TYPE",
    "Document",
    "DocumentAnswers",
    "DocumentCandidates",
    "DocumentEntities",
    "DocumentTypes",
    "Entity",
    "Manifest",
    "Mode",
    "NearTaught",
    "Sentence",
    "SentenceAnswers",
    "SentenceCandidates",
    "SentenceEntities",
    "SentenceTypes",
    "Span",
    "SpanCandidate",
    "Speaker",
    "TaggedDocument",
    "TypedSpan",
    "Usage",
    "Verdict",
]

NONE_TYPE: Final = "none"
"""The label of a candidate span that is no entity. No pool may name a type so."""


class Mode(StrEnum):
    """How the stages use their engines.

    ``paper``: free generation, majority vote and true/false verification (arXiv 2505.23038, section 3).
    ``scored``: what el4ner adds: types and validation by log-probability of the possible answers.
    """

    PAPER = "paper"
    SCORED = "scored"


@dataclass(frozen=True, slots=True)
class Document:
    """One text to tag. ``pool`` names the demonstration pool; None takes the default one."""

    id: str
    text: str
    pool: str | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Sentence:
    """A piece of a document: ``document.text[start:end] == text``."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A mention in a text: code points, half-open, and its surface."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What an engine did, in tokens: read from the prompt, of those found in a cache, and newly generated."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.new_tokens + other.new_tokens,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens - other.prompt_tokens,
            self.cached_tokens - other.cached_tokens,
            self.new_tokens - other.new_tokens,
        )


@dataclass(frozen=True, slots=True)
class SpanCandidate:
    """A span that somebody proposed as an entity, and who: engine members by name, ``boundaries``, ``chunks``,
    ``lexicon``.

    ``boundary``: how likely it is an entity by the states of its words (:mod:`el4ner.proposing`); None where nobody
    read these.
    """

    span: Span
    proposed_by: tuple[str, ...]
    boundary: float | None = None


@dataclass(frozen=True, slots=True)
class SentenceCandidates:
    """Extraction's result for one sentence.

    ``demonstrations`` are indices of pool sentences, most similar first: the stages after it show the models the same
    examples. ``dropped`` counts generated spans that do not occur in the sentence.
    """

    sentence: Sentence
    demonstrations: tuple[int, ...]
    candidates: tuple[SpanCandidate, ...]
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class TypedSpan:
    """A candidate with the type that the ensemble chose (or ``none``), before validation.

    ``votes`` maps each member to the type it chose; ``confidence`` in [0, 1] is the ensemble's own, for ``type``.
    """

    candidate: SpanCandidate
    type: str
    confidence: float
    votes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SentenceTypes:
    """Classification's result for one sentence: one typed span per candidate, in the same order."""

    sentence: Sentence
    demonstrations: tuple[int, ...]
    typed: tuple[TypedSpan, ...]


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who says something of spans' types in scored mode, as :class:`el4ner.evidence.Source` describes it.

    ``by_states``: by hidden states; otherwise by answers in context.
    """

    name: str
    voter: str
    fingerprint: str
    features: tuple[str, ...]
    by_states: bool


@dataclass(frozen=True, slots=True, eq=False)
class NearTaught:
    """Which spans that a pool was taught some members find like a sentence's candidates, and what has to be known of
    these spans to correct what the members say of the candidates.

    Args:
        spans: the taught spans, by names that are equal in every process.
        labels: of each the type that it was taught, or none.
        cosines: ``[candidates, spans]``, each the mean of ``vectors`` cosines; 0: the two are too far apart to count.
        vectors: how many there are of a span.
        said: ``[spans, features, types of the files + none]``: what those who compare states say of the taught spans by
            the pool's files alone.
    """

    spans: tuple[str, ...]
    labels: tuple[str, ...]
    cosines: npt.NDArray[np.float32]
    vectors: int
    said: npt.NDArray[np.float32]

    @property
    def compared(self) -> tuple[object, ...]:
        """What is equal where all is, numbers bit by bit."""
        numbers = (self.cosines.shape, self.cosines.tobytes(), self.said.shape, self.said.tobytes())
        return self.spans, self.labels, self.vectors, numbers


@dataclass(frozen=True, slots=True, eq=False)
class SentenceAnswers:
    """What some members say of a sentence's candidates, each for itself, before anything is decided.

    Paper mode: ``votes``, for each candidate the type that each member wrote; one that wrote none is not in it. Scored
    mode: ``said``, log-probabilities ``[spans, features, types + none]``, the features of one speaker behind those of
    the one before; None in paper mode, and where there is no candidate. ``near``: what was taught and is like the
    candidates; None where nothing was, and where no speaker compares states.
    """

    sentence: Sentence
    demonstrations: tuple[int, ...]
    candidates: tuple[SpanCandidate, ...]
    votes: tuple[Mapping[str, str], ...] = ()
    said: npt.NDArray[np.float32] | None = None
    near: NearTaught | None = None

    def __eq__(self, other: object) -> bool:
        """Whether all is equal, numbers bit by bit."""
        if not isinstance(other, SentenceAnswers):
            return NotImplemented
        return self._compared == other._compared

    @property
    def _compared(self) -> tuple[object, ...]:
        bits = None if self.said is None else (self.said.shape, self.said.tobytes())
        near = None if self.near is None else self.near.compared
        return self.sentence, self.demonstrations, self.candidates, self.votes, bits, near


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier said of one typed span: ``holds``, the probability of that, and the member that said so.

    ``verifier`` None: validation was off, or had nothing to ask.
    """

    holds: bool
    probability: float
    verifier: str | None = None


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity mention in a document, with its provenance."""

    start: int
    end: int
    text: str
    type: str
    confidence: float
    proposed_by: tuple[str, ...] = ()
    votes: Mapping[str, str] = field(default_factory=dict)
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class SentenceEntities:
    """Validation's result for one sentence: the typed spans that are no ``none``, each with its verdict."""

    sentence: Sentence
    validated: tuple[tuple[TypedSpan, Verdict], ...]


@dataclass(frozen=True, slots=True)
class TaggedDocument:
    """A document with its entities, sorted by start, then longest first."""

    id: str
    text: str
    entities: tuple[Entity, ...]
    pool: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Who produced a stage's result, and with what: equal manifests and equal inputs give equal results (but for
    log lines with ``method.repeats = "templates"``, which may take over the answers of a line before them).

    ``members`` maps the name of every engine that took part to its fingerprint. ``evidence`` is the fingerprint of what
    the pool's spans were compared by and weighed with, where the stage did so. ``missing_members``: those of the
    ensemble that the result does without, since they run in other processes and did not answer in time, or failed.
    ``pool_base``: of a pool that was taught more than its files have, the fingerprint of what these have.
    """

    mode: Mode
    members: Mapping[str, str]
    prompt_version: str
    pool: str
    pool_fingerprint: str
    retriever: str
    evidence: str | None = None
    missing_members: tuple[str, ...] = ()
    pool_base: str | None = None


@dataclass(frozen=True, slots=True)
class DocumentCandidates:
    """Extraction's result for a document."""

    document: Document
    manifest: Manifest
    sentences: tuple[SentenceCandidates, ...]
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class DocumentAnswers:
    """What some members say of a document's candidates. ``speakers``: in the order of the answers; none in paper mode.
    They are described as they are without what the pool was taught, by which they are weighed.

    ``manifest`` names these members alone. ``types``: those of the pool as it was taught; empty: those of its files.
    """

    document: Document
    manifest: Manifest
    speakers: tuple[Speaker, ...]
    sentences: tuple[SentenceAnswers, ...]
    usage: Usage = Usage()
    types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DocumentTypes:
    """Classification's result for a document."""

    document: Document
    manifest: Manifest
    sentences: tuple[SentenceTypes, ...]
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class DocumentEntities:
    """Validation's result for a document."""

    document: Document
    manifest: Manifest
    sentences: tuple[SentenceEntities, ...]
    usage: Usage = Usage()
