"""A pool's evidence, ready to judge spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from el4ner.evidence.calibration import Calibration, Step
from el4ner.evidence.combination import Combination, Decisions
from el4ner.evidence.judges import Floats
from el4ner.evidence.sources import BOUNDARIES, TAUGHT, SentenceQuestion, Source
from el4ner.evidence.stream_mix import StreamMix
from el4ner.types import NONE_TYPE, Usage

__all__ = ["Evidence", "Judgement", "judge_said"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A span's type (or none), the calibrated probability of that type, and the vote of every member that was asked."""

    type: str
    confidence: float
    votes: Mapping[str, str] = field(default_factory=dict)


def judge_said(
    said: Floats, combination: Combination, voters: Sequence[str], labels: Sequence[str], mix: StreamMix | None = None
) -> list[Judgement]:
    """Judgements of spans that every source has spoken about.

    Args:
        said: ``[spans, features, types + none]``, in the combination's order of features.
        combination: weighs the features.
        voters: whose vote each feature belongs to.
        labels: the pool's types, and none.
        mix: of the stream that the spans are from; None: nobody follows it.
    """
    if not len(said):
        return []
    likely = combination.log_probabilities(said)
    decisions = combination.decide_by(likely if mix is None else mix.corrected(likely))
    return [_judgement(decisions, row, of_span, voters, labels) for row, of_span in enumerate(said)]


def _judgement(decisions: Decisions, row: int, said: Floats, voters: Sequence[str], labels: Sequence[str]) -> Judgement:
    """A vote is the member's own choice: by the mean of what it said, whatever the ensemble's weights are."""
    by_voter: dict[str, list[int]] = {}
    for feature, voter in enumerate(voters[: len(said)]):  # the first ones were asked
        if voter not in (BOUNDARIES, TAUGHT):  # which are nobody's choice of a type
            by_voter.setdefault(voter, []).append(feature)
    votes = {voter: labels[int(said[features].mean(axis=0).argmax())] for voter, features in by_voter.items()}
    return Judgement(labels[int(decisions.chosen[row])], min(1.0, float(decisions.confidence[row])), votes)


class Evidence:
    """Sources in the calibration's order.

    Args:
        sources: those that the calibration names, in any order.
        calibration: how to weigh them.
        types: the pool's, in its order.
        adaptive: settle clear spans before all sources are asked; False asks every source about every span.
        mix: of the stream whose spans are judged; None: nobody follows it.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        calibration: Calibration,
        types: Sequence[str],
        *,
        adaptive: bool = True,
        mix: StreamMix | None = None,
    ) -> None:
        by_name = {source.name: source for source in sources}
        self._steps: list[tuple[Source, Step]] = [(by_name[step.source], step) for step in calibration.steps]
        # What a member has read before decides in which passes it reads on, and so the last bits of its states. Where
        # all are asked about everything, it is in the order in which members that run apart are asked too.
        asked = {step.source for step in calibration.steps}
        self._in_order = [source for source in sources if source.name in asked]
        self._voters = [source.voter for source, _ in self._steps for _ in source.features]
        self._labels = [*types, NONE_TYPE]
        self._adaptive = adaptive
        self.calibration = calibration
        self.mix = mix
        fingerprint = f"{calibration.fingerprint}-{'adaptive' if adaptive else 'full'}"
        self.fingerprint = fingerprint if mix is None else mix.marked(fingerprint)

    @property
    def sources(self) -> tuple[Source, ...]:
        """In the calibration's order."""
        return tuple(source for source, _ in self._steps)

    @property
    def in_order(self) -> tuple[Source, ...]:
        """The same, in the order in which they were given."""
        return tuple(self._in_order)

    def judge(self, questions: Sequence[SentenceQuestion]) -> tuple[list[list[Judgement]], Usage]:
        """For each question its spans' judgements, in order."""
        if not self._adaptive:
            return self._judge_by_all(questions)
        judgements: list[list[Judgement | None]] = [[None] * len(question.spans) for question in questions]
        open_spans = [(q, s) for q, question in enumerate(questions) for s in range(len(question.spans))]
        said: dict[tuple[int, int], list[Floats]] = {place: [] for place in open_spans}
        usage = Usage()
        for source, step in self._steps:
            if not open_spans:
                break
            answers, used = self._ask(source, questions, open_spans)
            usage += used
            for place, answer in zip(open_spans, answers, strict=True):
                said[place].append(answer)
            together = np.stack([np.concatenate(said[place]) for place in open_spans])
            if source is self._steps[-1][0]:
                last_ones = judge_said(together, step.combination, self._voters, self._labels, self.mix)
                for (q, s), judgement in zip(open_spans, last_ones, strict=True):
                    judgements[q][s] = judgement
                break
            likely = step.combination.log_probabilities(together)
            decisions = step.combination.decide_by(likely if self.mix is None else self.mix.reweighted(likely))
            going_on, settled = [], []
            for row, (q, s) in enumerate(open_spans):
                if step.margin is not None and decisions.margin[row] >= step.margin:
                    settled.append(row)
                    judgements[q][s] = _judgement(decisions, row, together[row], self._voters, self._labels)
                else:
                    going_on.append((q, s))
            open_spans = going_on
            if self.mix is not None:
                self.mix.observe(likely[settled])
        return [[judgement for judgement in each if judgement is not None] for each in judgements], usage

    def _judge_by_all(self, questions: Sequence[SentenceQuestion]) -> tuple[list[list[Judgement]], Usage]:
        """Nothing is decided before every source has spoken."""
        places = [(q, s) for q, question in enumerate(questions) for s in range(len(question.spans))]
        if not places:
            return [[] for _ in questions], Usage()
        said: dict[str, Floats] = {}
        usage = Usage()
        for source in self._in_order:
            answers, used = self._ask(source, questions, places)
            said[source.name] = np.stack(answers)
            usage += used
        together = np.concatenate([said[source.name] for source, _ in self._steps], axis=1)
        combination = self._steps[-1][1].combination
        found = iter(judge_said(together, combination, self._voters, self._labels, self.mix))
        return [[next(found) for _ in question.spans] for question in questions], usage

    def _ask(
        self, source: Source, questions: Sequence[SentenceQuestion], places: Sequence[tuple[int, int]]
    ) -> tuple[list[Floats], Usage]:
        """The source's ``[features, types + none]`` about each place; questions without an open span are left out."""
        by_question: dict[int, list[int]] = {}
        for q, s in places:
            by_question.setdefault(q, []).append(s)
        asked = [
            SentenceQuestion(
                questions[q].text,
                tuple(questions[q].spans[s] for s in places_of),
                questions[q].demonstrations,
                tuple(questions[q].boundaries[s] for s in places_of) if questions[q].boundaries else (),
            )
            for q, places_of in by_question.items()
        ]
        answers, usage = source.answer(asked)
        return [row for answer in answers for row in answer], usage
