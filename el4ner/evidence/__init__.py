"""Types by evidence: what a pool's labelled spans say of a new span, weighed by what leave-one-out on the pool found.

This is what el4ner adds to the paper, and the default way of classifying. :mod:`~el4ner.evidence.encoders` makes spans
comparable, :mod:`~el4ner.evidence.judges` compares them, :mod:`~el4ner.evidence.combination` weighs the judges,
:mod:`~el4ner.evidence.calibration` estimates the weights from the pool alone, and :mod:`~el4ner.evidence.evidence` does
it to a stream of sentences.
"""

from el4ner.evidence.calibration import Calibration, calibrate, even_calibration
from el4ner.evidence.evidence import Evidence, judge_said
from el4ner.evidence.sources import BOUNDARIES, BoundarySource, InContextSource, SentenceQuestion, Source, StateSource

__all__ = [
    "BOUNDARIES",
    "BoundarySource",
    "Calibration",
    "Evidence",
    "InContextSource",
    "SentenceQuestion",
    "Source",
    "StateSource",
    "calibrate",
    "even_calibration",
    "judge_said",
]
