"""Paper mode with each of its parts on and off, each member alone, and by other spans of the pool.

A row is made of the same three stages as everything else. What is switched off is taken out between them:

- **union off**: of the candidates those that one member proposed (the *best*: the ensemble's verifier), with the
  ensemble's demonstrations; every member still votes about them;
- **vote off**: of the votes that member's alone;
- **validation off**: ``method.validation = "off"``.

A member alone has its own everything: the spans that demonstrations are retrieved by, list, types and validation.
``pool_spans`` are by which the pool's sentences are found (``retrieval.pool_spans``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Literal, TypeVar

from ablation.remembering import RememberingEngine
from el4ner.config import Settings
from el4ner.engines.base import Engine
from el4ner.errors import DocumentError
from el4ner.evaluation import Dataset, SentenceRecord
from el4ner.evaluation.dataset import LabelledSentence
from el4ner.evaluation.recording import Results, record_of
from el4ner.participation import STAGES
from el4ner.pipeline import Pipeline
from el4ner.stages.deciding import by_majority
from el4ner.types import Document, DocumentCandidates, DocumentTypes, TypedSpan

__all__ = ["PaperRow", "PaperRows", "paper_rows", "pool_span_rows"]

T = TypeVar("T")
PoolSpans = Literal["labelled", "models"]
MakePipeline = Callable[[Settings, Mapping[str, Engine]], Pipeline]


@dataclass(frozen=True, slots=True)
class PaperRow:
    """``members``: all, or one alone, for which union and vote say nothing."""

    members: tuple[str, ...]
    union: bool
    vote: bool
    validation: bool
    pool_spans: PoolSpans = "labelled"

    @property
    def is_ensemble(self) -> bool:
        """Whether several members work together."""
        return len(self.members) > 1

    @property
    def key(self) -> str:
        """Short, without spaces."""
        if not self.is_ensemble:
            return f"alone-{self.members[0]}" + ("+validation" if self.validation else "")
        parts = [name for name in ("union", "vote", "validation") if getattr(self, name)]
        return "ensemble" + "".join(f"+{part}" for part in parts) + ("" if self.pool_spans == "labelled" else "-models")

    @property
    def label(self) -> str:
        """For the table."""
        if not self.is_ensemble:
            return f"{self.members[0]} alone" + (", validated by itself" if self.validation else "")
        switched = [f"{name} {'on' if getattr(self, name) else 'off'}" for name in ("union", "vote", "validation")]
        found_by = [] if self.pool_spans == "labelled" else ["the pool's spans by the models"]
        return ", ".join([*switched, *found_by])


def paper_rows(members: Sequence[str]) -> list[PaperRow]:
    """The whole method first, then with parts switched off, then each member alone."""
    together = [PaperRow(tuple(members), *on) for on in product((True, False), repeat=3)]
    alone = [PaperRow((name,), True, True, validation) for name in members for validation in (True, False)]
    return together + alone


def pool_span_rows(members: Sequence[str]) -> list[PaperRow]:
    """The whole method by the pool's labelled spans, then by those that the members propose, then both without
    validation."""
    return [
        PaperRow(tuple(members), True, True, validation, spans)
        for validation in (True, False)
        for spans in ("labelled", "models")
    ]


class PaperRows:
    """Measures rows on one data set. Engines are the caller's.

    Args:
        settings: paper mode, the whole ensemble; the verifier is the best member.
        engines: every member, remembering.
        dataset: its sentences' pool is hosted.
        make: a pipeline from settings and engines.
    """

    def __init__(
        self, settings: Settings, engines: Mapping[str, RememberingEngine], dataset: Dataset, make: MakePipeline
    ) -> None:
        self._settings = settings
        self._engines = engines
        self._dataset = dataset
        self._make = make
        self._pipelines: dict[tuple[tuple[str, ...], bool, PoolSpans], Pipeline] = {}

    def measured(self, row: PaperRow, sentences: Sequence[LabelledSentence]) -> list[SentenceRecord]:
        """A record for each sentence, in order; seconds are what its answers took when they were written, shared out
        evenly.

        Raises:
            DocumentError: a sentence cannot be processed.
        """
        pipeline = self._pipeline(row)
        best = pipeline.settings.verifier
        batch = [Document(str(number), each.text, self._dataset.pool.name) for number, each in enumerate(sentences)]
        times = [self._seconds]
        candidates = _all(pipeline.extract(batch))
        if not row.union:
            candidates = [_proposed_by(best, one) for one in candidates]
        times.append(self._seconds)
        typed = _all(pipeline.classify(candidates))
        if not row.vote:
            typed = [_as_said_by(best, one) for one in typed]
        times.append(self._seconds)
        judged = _all(pipeline.validate(typed))
        times.append(self._seconds)
        shares = [(after - before) / len(sentences) for before, after in pairwise(times)]
        seconds: dict[str, float] = dict(zip(STAGES, shares, strict=True))
        return [
            record_of(sentence, Results(*each), pipeline.settings.method, seconds)
            for sentence, *each in zip(sentences, candidates, typed, judged, strict=True)
        ]

    @property
    def _seconds(self) -> float:
        return sum(engine.seconds for engine in self._engines.values())

    def _pipeline(self, row: PaperRow) -> Pipeline:
        key = (row.members, row.validation, row.pool_spans)
        if key not in self._pipelines:
            settings = self._settings
            verifier = settings.verifier if settings.verifier in row.members else row.members[-1]
            changed = {
                "ensemble": settings.ensemble.model_copy(update={"members": row.members, "verifier": verifier}),
                "method": settings.method.model_copy(update={"validation": "hard" if row.validation else "off"}),
                "retrieval": settings.retrieval.model_copy(update={"pool_spans": row.pool_spans}),
            }
            members = {name: self._engines[name] for name in row.members}
            self._pipelines[key] = self._make(settings.model_copy(update=changed), members)
        return self._pipelines[key]


def _proposed_by(member: str, document: DocumentCandidates) -> DocumentCandidates:
    sentences = tuple(
        replace(
            sentence,
            candidates=tuple(
                replace(candidate, proposed_by=(member,))
                for candidate in sentence.candidates
                if member in candidate.proposed_by
            ),
        )
        for sentence in document.sentences
    )
    return replace(document, sentences=sentences)


def _as_said_by(member: str, document: DocumentTypes) -> DocumentTypes:
    def alone(typed: Sequence[TypedSpan]) -> tuple[TypedSpan, ...]:
        votes = [{name: label for name, label in span.votes.items() if name == member} for span in typed]
        return by_majority([span.candidate for span in typed], votes, member)

    return replace(
        document, sentences=tuple(replace(sentence, typed=alone(sentence.typed)) for sentence in document.sentences)
    )


def _all(results: Sequence[T | DocumentError]) -> list[T]:
    good: list[T] = []
    for result in results:
        if isinstance(result, DocumentError):
            raise result
        good.append(result)
    return good
