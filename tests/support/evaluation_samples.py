"""Evaluation records for tests: small ones by hand, and any that a run could give."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from el4ner.evaluation.sentence_records import Considered, Fate, Labelled, SegmentedSentence, SentenceRecord
from el4ner.pools.pool import Pool, PoolSentence
from el4ner.types import NONE_TYPE, Entity, Span, Usage, Verdict

SETTINGS: Mapping[str, Any] = {
    "dataset": "made/up",
    "split": "test",
    "ensemble": {"members": ["a", "b"]},
    "retrieval": {"kind": "span", "k": 5},
    "method": {"mode": "scored"},
}
POOL = Pool(
    "p",
    {"person": "a person", "place": "a place"},
    (
        PoolSentence("Ada slept", ((Span(0, 3, "Ada"), "person"),)),
        PoolSentence("Rome burned", ((Span(0, 4, "Rome"), "place"),)),
        PoolSentence("Nobody", ()),
    ),
)


def considered(
    span: tuple[int, int],
    label: str,
    fate: Fate = "kept",
    *,
    by: Sequence[str] = ("chunks",),
    votes: Mapping[str, str] | None = None,
    confidence: float = 0.5,
) -> Considered:
    """A candidate; its text does not matter."""
    return Considered(*span, "x", tuple(by), label, confidence, votes or {}, None, fate)


def record(
    gold: Sequence[Labelled] = (),
    candidates: Sequence[Considered] = (),
    *,
    text: str = "x" * 100,
    demonstrations: tuple[int, ...] = (),
    seconds: float = 0.5,
) -> SentenceRecord:
    """A record whose entities are its kept candidates."""
    return SentenceRecord(
        text=text,
        gold=tuple(gold),
        pieces=(SegmentedSentence(0, len(text), demonstrations),),
        candidates=tuple(candidates),
        entities=tuple(
            Entity(each.start, each.end, each.text, each.type, each.confidence, each.proposed_by, each.votes)
            for each in candidates
            if each.fate == "kept"
        ),
        seconds={"extract": seconds, "classify": seconds, "validate": seconds},
        usage={"classify": Usage(10, 5, 1)},
    )


TYPES = ("person", "place", "x>y", "été")
_names = st.sampled_from(("a", "b", "chunks", "lexicon"))
_probabilities = st.floats(0, 1)
_verdicts = st.builds(Verdict, st.booleans(), _probabilities, st.none() | _names)


@st.composite
def records(draw: st.DrawFn) -> SentenceRecord:
    """Gold entities without overlaps; candidates on their spans, beside them and across them."""
    text = draw(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    spans = list(itertools.pairwise(cuts))
    gold = [(start, end, draw(st.sampled_from(TYPES))) for start, end in spans if draw(st.booleans())]
    if len(cuts) > 2:
        spans.append((cuts[0], cuts[-1]))
    candidates = []
    for start, end in spans:
        if draw(st.booleans()):
            label = draw(st.sampled_from((*TYPES, NONE_TYPE)))
            fates: tuple[Fate, ...] = ("none",) if label == NONE_TYPE else ("kept", "overlapped", "unsure", "rejected")
            candidates.append(
                Considered(
                    start,
                    end,
                    text[start:end],
                    tuple(draw(st.lists(_names, min_size=1, max_size=3, unique=True))),
                    label,
                    draw(_probabilities),
                    draw(st.dictionaries(_names, st.sampled_from((*TYPES, NONE_TYPE)), max_size=2)),
                    draw(st.none() | _verdicts),
                    draw(st.sampled_from(fates)),
                )
            )
    return record(gold, candidates, text=text, demonstrations=draw(st.lists(st.integers(0, 2), max_size=3).map(tuple)))
