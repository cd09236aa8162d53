"""What members said in processes of their own, into the stage's answer: as one process with all of them would give it.

No engine is loaded. Types and votes of a document that every member answered about are equal, bit by bit, to those of
one process (as far as engines do not depend on the batch and on what they have read before); its spans too. Two things
differ: where members propose the spans that demonstrations are retrieved by (paper mode), each goes by its own, and the
first member's demonstrations are shown to the stages after it; and a member remembers its answers to equal texts only
(``method.repeats``).

Without some members the others decide, and the manifest names those that are missing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from el4ner.config import Settings
from el4ner.errors import ConfigError, DocumentError, MessageError
from el4ner.evidence import BOUNDARIES, judge_said
from el4ner.evidence.calibration import FOLDER
from el4ner.evidence.corrections_apart import correction_together
from el4ner.evidence.encoders import EMBEDDER
from el4ner.evidence.judges import Floats
from el4ner.evidence.prepared import SHIPPED
from el4ner.evidence.sources import TAUGHT
from el4ner.evidence.span_memory import PoolSpans
from el4ner.evidence.stream_mix import StreamMix
from el4ner.evidence.weighing import Weighed, Weighing, covers
from el4ner.models.prepare import default_cache_dir
from el4ner.nearest import choices, nearest_hint
from el4ner.participation import goes_by_mean
from el4ner.pools import Pool, load_pools
from el4ner.prompts import PromptSet
from el4ner.stages.context import StageContext
from el4ner.stages.deciding import by_majority, by_mean, judged
from el4ner.stages.extract import CHUNKS, LEXICON, check_spans
from el4ner.stages.one_sense import with_one_sense
from el4ner.stages.pool_evidence import pool_spans, stream_mix
from el4ner.stages.views import merged
from el4ner.types import (
    NONE_TYPE,
    DocumentAnswers,
    DocumentCandidates,
    DocumentTypes,
    Manifest,
    Mode,
    SentenceAnswers,
    SentenceCandidates,
    SentenceTypes,
    Span,
    SpanCandidate,
    Speaker,
    TypedSpan,
    Usage,
)

__all__ = ["Combiner"]

Result = TypeVar("Result", DocumentCandidates, DocumentAnswers)
Part = tuple[Sequence[str], Result]
"""Members, and what they answered."""


class Combiner:
    """Cheap to make and to call; not thread-safe.

    Args:
        settings: as the members' processes have them.
        pools: the hosted pools by name.
        folder: where calibrations are.

    Raises:
        ConfigError: members cannot answer apart with these settings.
    """

    def __init__(self, settings: Settings, pools: Mapping[str, Pool], folder: Path) -> None:
        if settings.method.adaptive and settings.method.mode is Mode.SCORED:
            raise ConfigError(
                "method.adaptive asks a member about what those before it left open: it needs all members in one "
                "process; switch it off"
            )
        self._settings = settings
        prompts = PromptSet(settings.method.prompt_version)
        self._contexts = {name: StageContext(pool, prompts, settings.method) for name, pool in pools.items()}
        self._folder = folder
        self._weighings: dict[str, Weighing] = {}
        self._spans: dict[str, PoolSpans] = {}
        self._mixes: dict[str, StreamMix] = {}

    @classmethod
    def from_settings(cls, settings: Settings, *, cache_dir: Path | None = None) -> Combiner:
        """With the pools that ``settings`` names.

        Raises:
            ConfigError, PoolError: what cannot be loaded, and how to mend it.
        """
        pools = load_pools(settings.pools)
        return cls(settings, pools, (cache_dir or default_cache_dir()) / FOLDER)

    def candidates(self, parts: Sequence[Part[DocumentCandidates]], expected: Sequence[str]) -> DocumentCandidates:
        """The union of what members proposed, of one document and with equal pools and prompts.

        Args:
            parts: of different members, at least one, in any order.
            expected: the ensemble, in its order.

        Raises:
            DocumentError: the union has more than ``method.max_spans``, or the pool is another one here.
        """
        ordered = _in_order(parts, expected)
        first = ordered[0][1]
        self._context_of(first.manifest)
        bounded = any(part.manifest.evidence is not None for _, part in ordered)
        sentences = tuple(
            self._union(proposed, expected, bounded=bounded)
            for proposed in zip(*(part.sentences for _, part in ordered), strict=True)
        )
        check_spans(sum(len(sentence.candidates) for sentence in sentences), self._settings.method)
        manifest = _manifest(ordered, expected, [name for members, _ in ordered for name in members], None)
        return DocumentCandidates(first.document, manifest, sentences, _usage(ordered))

    def types(self, parts: Sequence[Part[DocumentAnswers]], expected: Sequence[str]) -> DocumentTypes:
        """The types that the ensemble chooses. Arguments as :meth:`candidates`; the parts are about equal candidates.

        Raises:
            DocumentError: the pool is another one here.
            ConfigError: there is no calibration to weigh the answers by.
        """
        ordered = _in_order(parts, expected)
        first = ordered[0][1]
        context = self._context_of(first.manifest)
        labels = [*first.types, NONE_TYPE] if first.types else context.labels
        heard: Sequence[str] = [name for members, _ in ordered for name in members]
        evidence = None
        if first.manifest.mode is Mode.PAPER:
            typed = [
                by_majority(answers[0].candidates, _votes(answers, expected), expected[-1])
                for answers in zip(*(part.sentences for _, part in ordered), strict=True)
            ]
        else:
            said = _Said([part for _, part in ordered], expected, labels)
            weighed = self._weighed(said, expected, context.pool)
            if weighed is None:
                typed = said.by_mean()
            else:
                mix = self._mix_of(context.pool, labels[:-1])
                typed, evidence = said.by_weights(weighed, mix), mix.marked(said.evidence(weighed))
                heard = [said.voter(name) for name in weighed.sources]
        manifest = _manifest(ordered, expected, heard, evidence)
        sentences = tuple(
            SentenceTypes(item.sentence, item.demonstrations, spans)
            for item, spans in zip(first.sentences, typed, strict=True)
        )
        if self._settings.method.one_sense:
            sentences = with_one_sense(sentences, len(labels))
        return DocumentTypes(first.document, manifest, sentences, _usage(ordered))

    @property
    def mixes(self) -> Mapping[str, StreamMix]:
        """Of what was decided so far, by the pool's name. From any thread."""
        return self._mixes.copy()

    def _context_of(self, manifest: Manifest) -> StageContext:
        context = self._contexts.get(manifest.pool)
        if context is None:
            raise DocumentError(
                f"no pool {manifest.pool!r} is hosted here{nearest_hint(manifest.pool, self._contexts)}; "
                f"there are: {choices(sorted(self._contexts))}",
                code="unknown-pool",
            )
        # What it was taught over its files, its members know: all that matters of it comes with their answers.
        files = manifest.pool_base or manifest.pool_fingerprint
        if files != context.pool.lineage:
            raise DocumentError(
                f"pool {manifest.pool!r} is {context.pool.lineage} here, but {files} where its members answered: give "
                "all workers the same pool",
                code="pool-mismatch",
            )
        return context

    def _mix_of(self, pool: Pool, types: Sequence[str]) -> StreamMix:
        """Of the stream of this pool. With other types than before it is one that begins now."""
        mix = self._mixes.get(pool.name)
        if mix is None or list(mix.types) != list(types):
            spans, none = self._spans[pool.name], len(pool.types)
            labels = np.where(spans.labels == none, len(types), spans.labels)
            taught = replace(pool, types={name: pool.types.get(name, name) for name in types})
            mix = self._mixes[pool.name] = stream_mix(taught, replace(spans, labels=labels), self._settings.method)
        return mix

    @staticmethod
    def _union(parts: Sequence[SentenceCandidates], expected: Sequence[str], *, bounded: bool) -> SentenceCandidates:
        """``bounded``: one of the parts is of who reads boundaries."""
        union: dict[Span, SpanCandidate] = {}
        for part in parts:
            for candidate in part.candidates:
                known = union.get(candidate.span)
                union[candidate.span] = candidate if known is None else merged(known, candidate)
        if bounded:
            union = _without_unlikely(union)
        place = {name: number for number, name in enumerate((BOUNDARIES, CHUNKS, LEXICON, *expected))}
        candidates = tuple(
            replace(
                candidate,
                proposed_by=tuple(sorted(candidate.proposed_by, key=lambda name: place.get(name, len(place)))),
            )
            for _, candidate in sorted(union.items())
        )
        dropped = sum(part.dropped for part in parts)
        return SentenceCandidates(parts[0].sentence, parts[0].demonstrations, candidates, dropped)

    def _weighed(self, said: _Said, expected: Sequence[str], pool: Pool) -> Weighed | None:
        """None: the mean decides."""
        method = self._settings.method
        shows_states = any(speaker.by_states and speaker.voter != BOUNDARIES for speaker in said.speakers)
        by_mean = goes_by_mean(method, shows_states=shows_states)
        if by_mean and (covers(said.speakers, expected) or goes_by_mean(method, shows_states=True)):
            return None
        weighing = self._weighings.get(pool.name)
        if weighing is None:
            self._spans[pool.name] = pool_spans(self._contexts[pool.name])
            even = method.weights == "even"
            weighing = Weighing(pool.name, self._folder, even=even, prepared=SHIPPED.folder)
            self._weighings[pool.name] = weighing
        weighed = weighing.of(said.speakers, expected)
        # Where no member that answered shows hidden states and nothing is calibrated for them, the mean decides.
        if weighed is None and not by_mean:
            raise weighing.missing(said.speakers)
        return weighed


class _Said:
    """What speakers of several parts said of a document's candidates, as arrays."""

    def __init__(self, parts: Sequence[DocumentAnswers], expected: Sequence[str], labels: Sequence[str]) -> None:
        self._candidates = [item.candidates for item in parts[0].sentences]
        self._parts = parts
        self._labels = labels
        self._columns: dict[str, Floats] = {}
        # Of sources that compare states: whose they are, and where in what that process mentions of taught spans.
        self._compared: dict[str, tuple[int, int]] = {}
        by_name: dict[str, Speaker] = {}
        for number, part in enumerate(parts):
            numbers = self._numbers(part)
            column = compared = 0
            for speaker in part.speakers:
                width = len(speaker.features)
                # Every process of an ensemble that goes by the embedder's vectors says the same about them.
                if speaker.name not in by_name:
                    by_name[speaker.name] = speaker
                    self._columns[speaker.name] = numbers[:, column : column + width]
                    self._compared[speaker.name] = number, compared
                column += width
                compared += width * _compares(speaker)
        place = {name: number for number, name in enumerate((BOUNDARIES, EMBEDDER, *expected))}

        def in_order(speaker: Speaker) -> tuple[bool, bool, int, str]:
            # One process has what else a member says by its states behind all members.
            further = speaker.by_states and speaker.name != speaker.voter
            return not speaker.by_states, further, place.get(speaker.voter, len(place)), speaker.name

        self.speakers = sorted(by_name.values(), key=in_order)

    def voter(self, source: str) -> str:
        """Whose vote a source's is."""
        return next(speaker.voter for speaker in self.speakers if speaker.name == source)

    def by_mean(self) -> list[tuple[TypedSpan, ...]]:
        """As :func:`~el4ner.stages.deciding.by_mean` decides."""
        members = [speaker for speaker in self.speakers if speaker.voter != BOUNDARIES]
        numbers = np.concatenate([self._columns[speaker.name] for speaker in members], axis=1)
        voters = [speaker.voter for speaker in members]
        return [
            by_mean(candidates, of_sentence, voters, self._labels)
            for candidates, of_sentence in zip(self._candidates, self._by_sentence(numbers), strict=True)
        ]

    def by_weights(self, weighed: Weighed, mix: StreamMix) -> list[tuple[TypedSpan, ...]]:
        """As :func:`~el4ner.evidence.judge_said` decides."""
        numbers = np.concatenate([self._columns[name] for name in weighed.sources], axis=1)
        voters = [self.voter(name) for name in weighed.sources for _ in range(self._columns[name].shape[1])]
        combination = weighed.combination
        if self._is_corrected:
            numbers = np.concatenate([numbers, self._corrections(numbers, weighed)[:, None, :]], axis=1)
            combination = replace(combination, weights=(*combination.weights, 1.0))
            voters.append(TAUGHT)
        judgements = iter(judge_said(numbers, combination, voters, self._labels, mix))
        return [judged(candidates, list(islice(judgements, len(candidates)))) for candidates in self._candidates]

    def evidence(self, weighed: Weighed) -> str:
        """The fingerprint of what :meth:`by_weights` decides by."""
        return weighed.corrected if self._is_corrected else weighed.fingerprint

    @property
    def _is_corrected(self) -> bool:
        """Whether the pool was taught something that states are compared with."""
        return self._parts[0].manifest.pool_base is not None and any(map(_compares, self.speakers))

    def _corrections(self, numbers: Floats, weighed: Weighed) -> Floats:
        """What is to be added for what was taught: ``[spans of all sentences, types + none]``."""
        added = np.zeros((len(numbers), len(self._labels)), dtype=np.float32)
        first = 0
        for place, candidates in enumerate(self._candidates):
            rows, first = slice(first, first + len(candidates)), first + len(candidates)
            of_parts = [part.sentences[place].near for part in self._parts]
            mentioned = {number: near for number, near in enumerate(of_parts) if near is not None}
            columns = self._columns_of(weighed, mentioned)
            if columns is None:
                continue
            together = list(mentioned.values())
            try:
                added[rows] = correction_together(together, numbers[rows], columns, weighed.combination, self._labels)
            except ValueError as error:
                raise MessageError(f"what pool {self._pool!r} was taught: {error}") from error
        return added

    def _columns_of(self, weighed: Weighed, mentioned: Collection[int]) -> list[tuple[int, int] | None] | None:
        """Of each feature whose comparison it is, as :func:`correction_together` wants it; None where a process that
        compares mentions nothing, since it has not seen what was taught."""
        in_order = {number: at for at, number in enumerate(mentioned)}
        by_name = {speaker.name: speaker for speaker in self.speakers}
        columns: list[tuple[int, int] | None] = []
        for name in weighed.sources:
            number, begin = self._compared[name]
            compares = _compares(by_name[name])
            if compares and number not in in_order:
                return None
            width = self._columns[name].shape[1]
            columns += [(in_order[number], begin + at) if compares else None for at in range(width)]
        return columns if mentioned else None

    @property
    def _pool(self) -> str:
        return self._parts[0].manifest.pool

    def _numbers(self, part: DocumentAnswers) -> Floats:
        """``[spans of all sentences, features, types + none]``."""
        features = sum(len(speaker.features) for speaker in part.speakers)
        said = [item.said for item in part.sentences if item.said is not None]
        if any(numbers.shape[2] != len(self._labels) for numbers in said):
            raise MessageError(
                f"expected log-probabilities of the {len(self._labels)} labels {', '.join(self._labels)} of pool "
                f"{part.manifest.pool!r}"
            )
        return np.concatenate([np.zeros((0, features, len(self._labels)), np.float32), *said])

    def _by_sentence(self, numbers: Floats) -> list[Floats]:
        ends = np.cumsum([len(candidates) for candidates in self._candidates])
        return np.split(numbers, ends[:-1]) if len(ends) else []


def _compares(speaker: Speaker) -> bool:
    """Whether it says what it does by states that it compares with the pool's."""
    return speaker.by_states and speaker.voter != BOUNDARIES


def _in_order(parts: Sequence[Part[Result]], expected: Sequence[str]) -> list[Part[Result]]:
    """By the first of their members."""
    place = {name: number for number, name in enumerate(expected)}
    return sorted(parts, key=lambda part: min(place.get(name, len(place)) for name in part[0]))


def _votes(parts: Sequence[SentenceAnswers], expected: Sequence[str]) -> list[dict[str, str]]:
    """For each candidate, in the ensemble's order: a tie that the last member does not decide goes to the first."""
    merged = []
    for number in range(len(parts[0].candidates)):
        votes = {name: label for part in parts for name, label in part.votes[number].items()}
        merged.append({name: votes[name] for name in expected if name in votes})
    return merged


def _without_unlikely(union: Mapping[Span, SpanCandidate]) -> dict[Span, SpanCandidate]:
    """Who reads boundaries leaves out what chunker and lexicon propose and hardly is an entity; the other parts, which
    read none, have it all the same."""
    kept = {}
    for span, candidate in union.items():
        likely = candidate.boundary is not None
        named = tuple(name for name in candidate.proposed_by if likely or name not in (CHUNKS, LEXICON))
        if named:
            kept[span] = replace(candidate, proposed_by=named)
    return kept


def _manifest(
    parts: Sequence[Part[Result]], expected: Sequence[str], heard: Collection[str], evidence: str | None
) -> Manifest:
    members: dict[str, str] = {}
    for _, part in parts:
        for name, fingerprint in part.manifest.members.items():
            members.setdefault(name, fingerprint)
    missing = tuple(name for name in expected if name not in heard)
    answered = {name: members[name] for name in expected if name in members and name not in missing}
    if evidence is None:  # of extraction, by who reads boundaries
        evidence = next((part.manifest.evidence for _, part in parts if part.manifest.evidence is not None), None)
    return replace(parts[0][1].manifest, members=answered, evidence=evidence, missing_members=missing)


def _usage(parts: Sequence[Part[Result]]) -> Usage:
    return sum((part.usage for _, part in parts), Usage())
