"""Spans of a sentence that are likely to be entities, by a member's states and by what the cheap proposers say."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from el4ner.engines.wrapped import Call
from el4ner.evidence.judges import Floats
from el4ner.evidence.prepared import PreparedEvidence
from el4ner.evidence.reading import at_once, slices
from el4ner.models.files import DAMAGED_ARRAYS, written_atomically
from el4ner.models.progress import NO_PROGRESS, Progress
from el4ner.proposing.boundary_probe import BoundaryProbe, questions_of
from el4ner.proposing.span_rule import SpanRule, features_of, worth_asking
from el4ner.proposing.word_reader import WordReader, Words
from el4ner.text.proposal_limits import cost
from el4ner.text.white_space import may_be_a_name
from el4ner.text.word_units import touched
from el4ner.types import Span, Usage

__all__ = ["FLOOR", "WORDS_FOR_ONE", "BoundaryProposer", "KnownSentence", "Proposed"]

FLOOR: Final = 0.01
"""The least probability of a proposal. Of 0.007, 0.01, 0.015, 0.02 and 0.03 F1 on development splits was the same; with
this one all of them keep more of the entities, with half as many candidates as the chunker and the lexicon have."""
WORDS_FOR_ONE: Final = 4
"""In a text that is unlike the pool's nothing may look likely, and still the likeliest spans are the entities."""
_FORMAT: Final = 2
_DIGITS: Final = 5
log = logging.getLogger(__name__)

Place = tuple[int, int]


class Proposed(NamedTuple):
    """What the cheap proposers say of a text."""

    chunked: Collection[Span]
    in_lexicon: Collection[Span]


class KnownSentence(NamedTuple):
    """A pool sentence: its text, where entities are, and what the cheap proposers say of it as if it were new."""

    text: str
    entities: tuple[Place, ...]
    proposed: Proposed


@dataclass(frozen=True, eq=False)
class BoundaryProposer:
    """``left_out`` maps each pool sentence's text to what is proposed in it by a probe that never saw it, with
    probabilities."""

    reader: WordReader
    probe: BoundaryProbe
    rule: SpanRule
    left_out: Mapping[str, Mapping[Place, float]]
    fingerprint: str

    def propose(self, texts: Sequence[str], proposed: Sequence[Proposed]) -> tuple[list[dict[Span, float]], Usage]:
        """For each text its proposals, and how likely each is an entity: those of :data:`FLOOR` or more, and at least
        one for every :data:`WORDS_FOR_ONE` words; no more than there are words. The likeliest."""
        read, usage = self.reader.read(texts)
        found = []
        for text, (words, states), cheap in zip(texts, read, proposed, strict=True):
            likely = _probabilities(words, self.probe.log_odds(states), cheap, self.rule)
            found.append({Span(*place, text[slice(*place)]): share for place, share in _chosen(text, words, likely)})
        return found, usage

    @classmethod
    def open(
        cls,
        sentences: Sequence[KnownSentence],
        reader: WordReader,
        folder: Path,
        *,
        label: str,
        progress: Progress = NO_PROGRESS,
        prepared: PreparedEvidence | None = None,
        call: Call = at_once,
    ) -> BoundaryProposer:
        """What is prepared; else from its file in ``folder``, or read and solved now and written there. A damaged file
        is made anew.

        ``sentences``: of different texts, with at least one word and one entity in all. ``call``: calls the reader,
        slice by slice.
        """
        shared, own = _key(sentences, reader.states_fingerprint), _key(sentences, reader.fingerprint)
        file = None if prepared is None else prepared.find(_file_name(shared))
        if prepared is not None and prepared.fill and file is None:
            file = prepared.add(
                _file_name(shared), _opened(folder / _file_name(own), sentences, reader, label, progress, call)
            )
        if file is not None and set(_ARRAYS) <= file.arrays.keys():
            return cls._of(sentences, reader, file.arrays, f"{shared} prepared {file.digest}")
        arrays = _opened(folder / _file_name(own), sentences, reader, label, progress, call)
        return cls._of(sentences, reader, arrays, own)

    @classmethod
    def _of(
        cls,
        sentences: Sequence[KnownSentence],
        reader: WordReader,
        arrays: Mapping[str, npt.NDArray[Any]],
        fingerprint: str,
    ) -> BoundaryProposer:
        left_out: dict[str, dict[Place, float]] = {sentence.text: {} for sentence in sentences}
        rows = zip(*(arrays[name].tolist() for name in ("sentence", "start", "end", "probability")), strict=True)
        for sentence, start, end, probability in rows:
            left_out[sentences[sentence].text][start, end] = probability
        probe = BoundaryProbe(arrays["centre"], arrays["scale"], arrays["weights"], arrays["offsets"])
        rule = SpanRule(tuple(arrays["rule"][:-1].tolist()), float(arrays["rule"][-1]))
        return cls(reader, probe, rule, left_out, fingerprint)


_ARRAYS: Final = (
    *("centre", "scale", "weights", "offsets", "rule"),
    *("sentence", "start", "end", "probability"),
)


def _key(sentences: Sequence[KnownSentence], reader: str) -> str:
    content = [[sentence.text, sentence.entities, *map(_places, sentence.proposed)] for sentence in sentences]
    return hashlib.sha256(orjson.dumps([_FORMAT, reader, FLOOR, WORDS_FOR_ONE, content])).hexdigest()[:24]


def _file_name(key: str) -> str:
    return f"boundaries-{key}.npz"


def _opened(
    path: Path, sentences: Sequence[KnownSentence], reader: WordReader, label: str, progress: Progress, call: Call
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of the file, which is made where it is not there."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in _ARRAYS}
    except FileNotFoundError:
        pass
    except DAMAGED_ARRAYS as error:
        log.warning("the boundaries of a pool are damaged and are read anew", extra={"path": str(path)})
        log.debug("damaged boundaries: %s", error)
    arrays = _solved(sentences, _read(sentences, reader, label, progress, call))
    with written_atomically(path) as out:
        np.savez(out, allow_pickle=False, **arrays)
    return arrays


def _read(
    sentences: Sequence[KnownSentence], reader: WordReader, label: str, progress: Progress, call: Call
) -> list[Words]:
    progress.start(label, len(sentences))
    texts = [sentence.text for sentence in sentences]
    read: dict[int, Words] = {}
    for batch in slices(texts, [2 * cost(text) for text in texts]):
        words, _ = call(partial(reader.read, [texts[index] for index in batch]))
        read.update(zip(batch, words, strict=True))
        progress.advance(len(batch))
    progress.done()
    return [read[index] for index in range(len(sentences))]


def _solved(sentences: Sequence[KnownSentence], read: Sequence[Words]) -> dict[str, Floats]:
    """The arrays of the file."""
    answers = [questions_of(words, sentence.entities) for sentence, (words, _) in zip(sentences, read, strict=True)]
    with_words = [index for index, (words, _) in enumerate(read) if words]
    probe, odds = BoundaryProbe.of([read[index][1] for index in with_words], [answers[index] for index in with_words])
    features, right = [], []
    for index, log_odds in zip(with_words, odds, strict=True):
        words, sentence = read[index][0], sentences[index]
        spans = features_of(log_odds, *_by_words(words, sentence.proposed))
        entities = set(sentence.entities)
        rows = worth_asking(spans.features, len(words))
        features.append(spans.features[rows])
        right += [
            (words[first][0], words[last][1]) in entities
            for first, last in zip(spans.first[rows].tolist(), spans.last[rows].tolist(), strict=True)
        ]
    rule = SpanRule.of(np.concatenate(features), np.asarray(right, dtype=np.bool_))
    found: list[tuple[int, int, int, float]] = []
    for index, log_odds in zip(with_words, odds, strict=True):
        words, sentence = read[index][0], sentences[index]
        likely = _probabilities(words, log_odds, sentence.proposed, rule)
        found += [(index, *place, share) for place, share in sorted(_chosen(sentence.text, words, likely))]
    numbers = np.asarray(found, dtype=np.float64).reshape(-1, 4)
    return {
        "centre": probe.centre,
        "scale": probe.scale,
        "weights": probe.weights,
        "offsets": probe.offsets,
        "rule": np.asarray([*rule.weights, rule.offset]),
        "sentence": numbers[:, 0].astype(np.int64),
        "start": numbers[:, 1].astype(np.int64),
        "end": numbers[:, 2].astype(np.int64),
        "probability": numbers[:, 3],
    }


def _probabilities(words: Sequence[Place], log_odds: Floats, proposed: Proposed, rule: SpanRule) -> dict[Place, float]:
    """Of all that may be a span. What a cheap proposer says stands for the words that it touches."""
    if not words:
        return {}
    chunked, in_lexicon = _by_words(words, proposed)
    spans = features_of(log_odds, chunked, in_lexicon)
    odds = np.clip(rule.log_odds(spans.features).astype(np.float64), -30, 30)
    shares = np.round(1 / (1 + np.exp(-odds)), _DIGITS).clip(10.0**-_DIGITS, 1 - 10.0**-_DIGITS).tolist()
    pairs = list(zip(spans.first.tolist(), spans.last.tolist(), strict=True))
    likely = {(words[first][0], words[last][1]): share for (first, last), share in zip(pairs, shares, strict=True)}
    by_words = dict(zip(pairs, shares, strict=True))
    for span in (*proposed.chunked, *proposed.in_lexicon):
        likely[span.start, span.end] = by_words[touched(words, (span.start, span.end))]
    return likely


def _chosen(text: str, words: Sequence[Place], likely: Mapping[Place, float]) -> list[tuple[Place, float]]:
    """The likeliest that are one name by their white space, as :meth:`BoundaryProposer.propose` says."""
    kept: list[tuple[Place, float]] = []
    for place, share in sorted(likely.items(), key=lambda item: (-item[1], item[0])):
        if len(kept) >= len(words) or (share < FLOOR and len(kept) * WORDS_FOR_ONE >= len(words)):
            break
        if may_be_a_name(text[slice(*place)]):
            kept.append((place, share))
    return kept


def _by_words(words: Sequence[Place], proposed: Proposed) -> tuple[set[Place], set[Place]]:
    chunked, in_lexicon = ({touched(words, (span.start, span.end)) for span in spans} for spans in proposed)
    return chunked, in_lexicon


def _places(spans: Collection[Span]) -> list[Place]:
    return sorted((span.start, span.end) for span in spans)
