"""How what a stage keeps of its answers is written down for other processes, and read again with suspicion.

No text of a sentence is in it: places by the pieces of a text or template, types, confidences, names of members.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from el4ner.pools import Pool
from el4ner.repeats.carry import NOBODY, AgreedTypes, ExtractedAnchors, KeptAnswers, PlaceVotes
from el4ner.text.templates import Anchor
from el4ner.types import NONE_TYPE, NearTaught, TypedSpan, Verdict

__all__ = ["AgreedFormat", "AnswersFormat", "ExtractedFormat", "VerdictsFormat"]


class ExtractedFormat:
    """Of :class:`~el4ner.repeats.carry.ExtractedAnchors`. ``pool``: whose sentences are demonstrations."""

    def __init__(self, pool: Pool) -> None:
        self._pool_size = len(pool.sentences)

    def to_json(self, kept: ExtractedAnchors) -> Any:
        """Demonstrations, anchors, proposers by candidate, boundaries, dropped."""
        return [
            list(kept.demonstrations),
            [list(anchor) for anchor in kept.anchors],
            [list(names) for names in kept.proposed_by],
            list(kept.boundaries),
            kept.dropped,
        ]

    def from_json(self, data: Any) -> ExtractedAnchors:
        """As :class:`~el4ner.repeats.shared_answers.KeptFormat` says."""
        demonstrations, anchors, proposed_by, boundaries, dropped = data
        shown = tuple(_whole(index, below=self._pool_size) for index in demonstrations)
        places = tuple(Anchor(*(_whole(number) for number in anchor)) for anchor in anchors)
        order = [(place.first, place.skip, place.last, -place.trim) for place in places]
        if order != sorted(set(order)):
            raise ValueError("candidates are not in order, or there twice")
        names = tuple(tuple(_text(name) for name in proposers) for proposers in proposed_by)
        likely = tuple(None if boundary is None else _probability(boundary) for boundary in boundaries)
        if not len(places) == len(names) == len(likely) or not all(names):
            raise ValueError("not every candidate has a proposer")
        return ExtractedAnchors(shown, places, names, likely, _whole(dropped))


class AgreedFormat:
    """Of :class:`~el4ner.repeats.carry.AgreedTypes`. ``pool``: whose types are chosen from."""

    def __init__(self, pool: Pool) -> None:
        self._labels = frozenset((*pool.types, NONE_TYPE))

    def to_json(self, kept: AgreedTypes) -> Any:
        """Lines, and for each place what was said: type, confidences in sum, confidence and votes of a line that chose
        it."""
        return [kept.lines, [self._said(place) for place in kept.said]]

    def from_json(self, data: Any) -> AgreedTypes:
        """As :class:`~el4ner.repeats.shared_answers.KeptFormat` says."""
        lines, places = data
        if _whole(lines) < 1:
            raise ValueError("no line was asked about")
        return AgreedTypes.of(lines, tuple(self._votes(place, lines) for place in places))

    def _said(self, place: PlaceVotes) -> list[Any]:
        choices = place.choices
        return [
            [label, total, choices[label].confidence, dict(choices[label].votes)] for label, total in place.sums.items()
        ]

    def _votes(self, place: Any, lines: int) -> PlaceVotes:
        sums: dict[str, float] = {}
        choices: dict[str, TypedSpan] = {}
        for label, total, confidence, votes in place:
            if label not in self._labels or not 0 <= total <= lines + 1e-6:
                raise ValueError("no such type, or more confidence than lines")
            chosen = {_text(name): _one_of(self._labels, voted) for name, voted in votes.items()}
            sums[label] = float(total)
            choices[label] = TypedSpan(NOBODY, label, _probability(confidence), chosen)
        if not sums:
            raise ValueError("a place without a type")
        return PlaceVotes(sums, choices)


class AnswersFormat:
    """Of :class:`~el4ner.repeats.carry.KeptAnswers`. ``pool``: whose types are spoken about."""

    def __init__(self, pool: Pool) -> None:
        self._labels = frozenset((*pool.types, NONE_TYPE))

    def to_json(self, kept: KeptAnswers) -> Any:
        """Votes by candidate, and log-probabilities: their shape, and their bytes in base64; and what was taught and
        is near."""
        numbers = None if kept.said is None else _packed(kept.said)
        near = None
        if kept.near is not None:
            of_spans = [list(kept.near.spans), list(kept.near.labels), kept.near.vectors]
            near = [*of_spans, _packed(kept.near.cosines), _packed(kept.near.said)]
        return [[dict(votes) for votes in kept.votes], numbers, near]

    def from_json(self, data: Any) -> KeptAnswers:
        """As :class:`~el4ner.repeats.shared_answers.KeptFormat` says."""
        said, numbers, near = data
        votes = tuple({_text(name): _one_of(self._labels, vote) for name, vote in votes.items()} for votes in said)
        if numbers is None:
            return KeptAnswers(votes, None)
        values = _unpacked(numbers, 3)
        if values.shape[2] != len(self._labels):
            raise ValueError("not as many numbers as there are types")
        return KeptAnswers(votes, values, None if near is None else self._near(near))

    def _near(self, data: Any) -> NearTaught:
        spans, labels, vectors, cosines, said = data
        names = tuple(_text(name) for name in spans)
        near = NearTaught(
            names,
            tuple(_one_of(self._labels, label) for label in labels),
            _unpacked(cosines, 2),
            _whole(vectors),
            _unpacked(said, 3),
        )
        if not len(names) == len(near.labels) == near.cosines.shape[1] == len(near.said):
            raise ValueError("not the same number of each")
        return near


class VerdictsFormat:
    """Of the verdicts on a sentence's entities. ``verifier``: who says them."""

    def __init__(self, verifier: str) -> None:
        self._verifier = verifier

    def to_json(self, kept: tuple[Verdict, ...]) -> Any:
        """Whether each holds, and how probably."""
        return [[verdict.holds, verdict.probability] for verdict in kept]

    def from_json(self, data: Any) -> tuple[Verdict, ...]:
        """As :class:`~el4ner.repeats.shared_answers.KeptFormat` says."""
        if not all(type(holds) is bool for holds, _ in data):
            raise ValueError("neither holds nor does not")
        return tuple(Verdict(holds, _probability(probability), self._verifier) for holds, probability in data)


def _packed(numbers: npt.NDArray[np.float32]) -> list[Any]:
    """Their shape, and their bytes in base64."""
    return [list(numbers.shape), base64.b64encode(numbers.astype("<f4").tobytes()).decode()]


def _unpacked(data: Any, dimensions: int) -> npt.NDArray[np.float32]:
    shape, encoded = data
    values = np.frombuffer(base64.b64decode(encoded, validate=True), "<f4").astype(np.float32)
    if len(shape) != dimensions or np.isnan(values).any():
        raise ValueError("not such numbers")
    return values.reshape([_whole(size) for size in shape])


def _whole(value: Any, *, below: float = math.inf) -> int:
    if type(value) is not int or not 0 <= value < below:
        raise ValueError("not a whole number, or too large")
    return value


def _probability(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ValueError("not a probability")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _one_of(labels: Collection[str], value: Any) -> str:
    if value not in labels:
        raise ValueError("no such type")
    return _text(value)
