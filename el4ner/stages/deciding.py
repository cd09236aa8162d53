"""From what the members said of candidates to the ensemble's choice: pure, no engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from el4ner.evidence.evidence import Judgement
from el4ner.evidence.judges import Floats
from el4ner.types import NONE_TYPE, SpanCandidate, TypedSpan

__all__ = ["by_majority", "by_mean", "judged", "majority"]


def by_majority(
    candidates: Sequence[SpanCandidate], votes: Sequence[Mapping[str, str]], tie_winner: str
) -> tuple[TypedSpan, ...]:
    """Paper mode; see :func:`majority`."""
    return tuple(
        TypedSpan(candidate, *majority(votes_of, tie_winner), dict(votes_of))
        for candidate, votes_of in zip(candidates, votes, strict=True)
    )


def majority(votes: Mapping[str, str], tie_winner: str) -> tuple[str, float]:
    """The type with the most votes and its share of them; a tie goes to the member ``tie_winner``, then to the first.

    Without any vote the candidate is ``none``: nobody called it an entity.
    """
    if not votes:
        return NONE_TYPE, 1.0
    counts = Counter(votes.values())
    best = max(counts.values())
    leaders = [label for label, count in counts.items() if count == best]
    winner = votes[tie_winner] if votes.get(tie_winner) in leaders else leaders[0]
    return winner, best / len(votes)


def by_mean(
    candidates: Sequence[SpanCandidate], said: Floats, members: Sequence[str], labels: Sequence[str]
) -> tuple[TypedSpan, ...]:
    """Scored mode without evidence: the type with the largest mean of the members' probabilities, and that mean.

    ``said``: log-probabilities ``[spans, members, labels]``.
    """
    if not len(candidates):
        return ()
    beliefs = np.exp(said)
    mean = np.zeros((len(candidates), len(labels)))
    for member in range(len(members)):
        mean += beliefs[:, member]
    mean /= len(members)
    # Of equals the first.
    winners, chosen = mean.argmax(axis=1), beliefs.argmax(axis=2).tolist()
    confidences = mean[np.arange(len(candidates)), winners].tolist()
    return tuple(
        TypedSpan(
            candidate,
            labels[winner],
            min(1.0, confidence),
            {name: labels[vote] for name, vote in zip(members, votes, strict=True)},
        )
        for candidate, winner, confidence, votes in zip(candidates, winners.tolist(), confidences, chosen, strict=True)
    )


def judged(candidates: Sequence[SpanCandidate], judgements: Sequence[Judgement]) -> tuple[TypedSpan, ...]:
    """As the evidence has it (:mod:`el4ner.evidence`)."""
    return tuple(
        TypedSpan(candidate, judgement.type, judgement.confidence, judgement.votes)
        for candidate, judgement in zip(candidates, judgements, strict=True)
    )
