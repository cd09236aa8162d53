"""A pool's evidence, ready to judge spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from el4ner.evidence.calibration import Calibration, Step
from el4ner.evidence.judges import Floats
from el4ner.evidence.sources import Question, Source
from el4ner.types import NONE_TYPE, Usage

__all__ = ["Evidence", "Judgement"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A span's type (or none), the calibrated probability of that type, and the vote of every member that was asked."""

    type: str
    confidence: float
    votes: Mapping[str, str] = field(default_factory=dict)


class Evidence:
    """Sources in the calibration's order.

    Args:
        sources: those that the calibration names, in any order.
        calibration: how to weigh them.
        types: the pool's, in its order.
        adaptive: settle clear spans before all sources are asked; False asks every source about every span.
    """

    def __init__(
        self, sources: Sequence[Source], calibration: Calibration, types: Sequence[str], *, adaptive: bool = True
    ) -> None:
        by_name = {source.name: source for source in sources}
        self._steps: list[tuple[Source, Step]] = [(by_name[step.source], step) for step in calibration.steps]
        self._labels = [*types, NONE_TYPE]
        self._adaptive = adaptive
        self.calibration = calibration
        self.fingerprint = f"{calibration.fingerprint}-{'adaptive' if adaptive else 'full'}"

    @property
    def sources(self) -> tuple[Source, ...]:
        """In the calibration's order."""
        return tuple(source for source, _ in self._steps)

    def judge(self, questions: Sequence[Question]) -> tuple[list[list[Judgement]], Usage]:
        """For each question its spans' judgements, in order."""
        found: list[list[Judgement | None]] = [[None] * len(question.spans) for question in questions]
        gathered: dict[tuple[int, int], list[Floats]] = {}
        votes: dict[tuple[int, int], dict[str, list[Floats]]] = {}
        open_spans = [(q, s) for q, question in enumerate(questions) for s in range(len(question.spans))]
        usage = Usage()
        for source, step in self._steps:
            if not open_spans:
                break
            answers, used = self._ask(source, questions, open_spans)
            usage += used
            for place, answer in zip(open_spans, answers, strict=True):
                gathered.setdefault(place, []).append(answer)
                votes.setdefault(place, {}).setdefault(source.voter, []).append(answer)
            evidence = np.stack([np.concatenate(gathered[place]) for place in open_spans])
            decisions = step.combination.decide(evidence)
            last = step.margin is None or source is self._steps[-1][0]
            going_on = []
            for row, (q, s) in enumerate(open_spans):
                clear = self._adaptive and step.margin is not None and decisions.margin[row] >= step.margin
                if last or clear:
                    label = self._labels[int(decisions.chosen[row])]
                    confidence = min(1.0, float(decisions.confidence[row]))
                    found[q][s] = Judgement(label, confidence, self._votes(votes[q, s]))
                else:
                    going_on.append((q, s))
            open_spans = going_on
        return [[one for one in own if one is not None] for own in found], usage

    def _ask(
        self, source: Source, questions: Sequence[Question], places: Sequence[tuple[int, int]]
    ) -> tuple[list[Floats], Usage]:
        """The source's ``[features, types + none]`` about each place; questions without an open span are left out."""
        by_question: dict[int, list[int]] = {}
        for q, s in places:
            by_question.setdefault(q, []).append(s)
        asked = [
            Question(questions[q].text, tuple(questions[q].spans[s] for s in own), questions[q].demonstrations)
            for q, own in by_question.items()
        ]
        answers, usage = source.answer(asked)
        return [row for answer in answers for row in answer], usage

    def _votes(self, said: Mapping[str, Sequence[Floats]]) -> dict[str, str]:
        """Each member's own choice: by the mean of what it said, whatever the ensemble's weights are."""
        return {
            voter: self._labels[int(np.concatenate(answers).mean(axis=0).argmax())] for voter, answers in said.items()
        }
