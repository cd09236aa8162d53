"""Every figure of a run, from its records alone: a run that was read from disk gives the same ones as a fresh one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from el4ner.evaluation.analysis import Confusion, Losses, confusion, losses
from el4ner.evaluation.contributions import MemberFigures, Proposers, members, proposers
from el4ner.evaluation.pairing import paired
from el4ner.evaluation.reliability import Reliability, calibration, judged
from el4ner.evaluation.scoring import Scores, of_type, score, strict_tallies
from el4ner.evaluation.sentence_records import SentenceRecord
from el4ner.evaluation.stats import Comparison, Intervals, compare, intervals, tallies_of
from el4ner.participation import STAGES
from el4ner.pools.pool import Pool
from el4ner.types import Usage

__all__ = ["EvaluationResult", "compare_with", "summarise"]


@dataclass(frozen=True)
class EvaluationResult:
    """``seconds`` and ``tokens`` are by stage and of all sentences together, ``usage`` is of all stages."""

    scores: Scores
    candidate_recall: float
    """The share of gold entities whose boundaries were among the candidates: no later stage can win the others back."""
    sentences: int
    seconds: dict[str, float]
    usage: Usage
    settings: dict[str, Any]
    fingerprints: dict[str, str]
    tokens: dict[str, Usage]
    intervals: Intervals
    type_intervals: dict[str, Intervals]
    calibration: Reliability
    losses: Losses
    type_losses: dict[str, Losses]
    proposers: Proposers
    members: dict[str, MemberFigures]
    confusion: Confusion
    records: tuple[SentenceRecord, ...]
    cached_sentences: int = 0
    """How many of the sentences were not measured now; they keep the seconds of when they were."""
    comparison: Comparison | None = None

    def as_json(self) -> dict[str, Any]:
        """For ``el4ner eval --json``: the keys are a promise to scripts."""
        strict = self.scores.strict
        total = self.usage.prompt_tokens + self.usage.new_tokens
        count = max(1, self.sentences)
        return {
            "precision": strict.precision,
            "recall": strict.recall,
            "f1": strict.f1,
            "precision_ci": self.intervals.precision,
            "recall_ci": self.intervals.recall,
            "f1_ci": self.intervals.f1,
            "span_f1": self.scores.spans.f1,
            "candidate_recall": self.candidate_recall,
            "sentences": self.sentences,
            "cached_sentences": self.cached_sentences,
            "seconds_per_sentence": sum(self.seconds.values()) / count,
            "seconds_by_stage": self.seconds,
            "tokens_per_sentence": total / count,
            "cached_tokens_per_sentence": self.usage.cached_tokens / count,
            "new_tokens_per_sentence": self.usage.new_tokens / count,
            "per_type": {
                label: {**asdict(scores), **_cis(self.type_intervals[label])}
                for label, scores in self.scores.per_type.items()
            },
            "ece": self.calibration.ece,
            "right_at_0_8": asdict(self.calibration.sure),
            "losses": {
                **_flat(self.losses),
                "per_type": {label: _flat(lost) for label, lost in self.type_losses.items()},
            },
            "proposers": {
                "union": asdict(self.proposers.union),
                "each": {name: asdict(proposer) for name, proposer in self.proposers.each.items()},
            },
            "members": {name: asdict(member) for name, member in self.members.items()},
            "comparison": None if self.comparison is None else asdict(self.comparison),
            "settings": self.settings,
            "fingerprints": self.fingerprints,
        }


def summarise(
    records: Sequence[SentenceRecord],
    *,
    pool: Pool,
    settings: Mapping[str, Any],
    fingerprints: Mapping[str, str],
    cached: int = 0,
    seed: int = 0,
) -> EvaluationResult:
    """All figures.

    Args:
        records: one a sentence, in the data set's order.
        pool: the demonstrations' pool; its types are listed even where nothing is of them.
        settings: what was run, for people and scripts.
        fingerprints: of what was run.
        cached: how many of the records were not measured now.
        seed: of the resampling.
    """
    gold = [record.gold for record in records]
    predicted = [record.predicted for record in records]
    scores = score(gold, predicted, list(pool.types))
    together, by_type = losses(records, pool)
    proposed = proposers(records)
    tokens: dict[str, Usage] = {}
    seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
    for record in records:
        for stage, used in record.usage.items():
            tokens[stage] = tokens.get(stage, Usage()) + used
        for stage, taken in record.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + taken
    return EvaluationResult(
        scores=scores,
        candidate_recall=proposed.union.recall,
        sentences=len(records),
        seconds=seconds,
        usage=sum(tokens.values(), Usage()),
        settings=dict(settings),
        fingerprints=dict(fingerprints),
        tokens=tokens,
        intervals=intervals(tallies_of(records), seed=seed),
        type_intervals={
            label: intervals(strict_tallies(of_type(gold, label), of_type(predicted, label)), seed=seed)
            for label in scores.per_type
        },
        calibration=calibration(judged(records)),
        losses=together,
        type_losses=by_type,
        proposers=proposed,
        members=members(records),
        confusion=confusion(records, list(pool.types)),
        records=tuple(records),
        cached_sentences=cached,
    )


def compare_with(
    result: EvaluationResult, other: Sequence[SentenceRecord], *, name: str, seed: int = 0
) -> EvaluationResult:
    """``result`` with its paired comparison to another run, which is called ``name``.

    Raises:
        EvaluationError: the runs are over different sentences or gold standards.
    """
    mine, theirs = paired(result.records, other)
    comparison = compare(tallies_of(mine), tallies_of(theirs), seed=seed)
    return replace(result, comparison=replace(comparison, other=name))


def _cis(intervals: Intervals) -> dict[str, Any]:
    return {f"{name}_ci": interval for name, interval in asdict(intervals).items()}


def _flat(lost: Losses) -> dict[str, Any]:
    return {
        "gold": lost.gold,
        **{str(name): count for name, count in lost.outcomes.items()},
        "not_shown": lost.not_shown,
    }
