"""Where things stand in the report's plots: numbers only, in the units of an SVG's view box; the template draws."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from el4ner.evaluation.reliability import Reliability
from el4ner.evaluation.stats import Interval

__all__ = ["Plot", "Point", "Whisker", "hue_of", "reliability", "whisker"]

SIDE = 240.0
"""Width and height of the reliability plot's field."""
HISTOGRAM = 60.0


@dataclass(frozen=True, slots=True)
class Point:
    """One bin: its bar's left edge and width, the accuracy's height, the dot's place, the count's height."""

    left: float
    width: float
    top: float
    x: float
    y: float
    count_height: float
    count: int


@dataclass(frozen=True, slots=True)
class Plot:
    """The reliability plot; bins without an entity are left out. ``most`` is the largest count."""

    side: float
    histogram: float
    points: tuple[Point, ...]
    most: int


@dataclass(frozen=True, slots=True)
class Whisker:
    """A figure in [0, 1] and its interval, on a line of the length 100."""

    low: float
    high: float
    at: float


def reliability(calibration: Reliability) -> Plot:
    """The field's origin is its upper left corner; accuracy grows upwards."""
    most = max((each.count for each in calibration.bins), default=0)
    points = [
        Point(
            left=round(each.low * SIDE, 2),
            width=round((each.high - each.low) * SIDE, 2),
            top=round((1 - each.accuracy) * SIDE, 2),
            x=round(each.confidence * SIDE, 2),
            y=round((1 - each.accuracy) * SIDE, 2),
            count_height=round(each.count / most * HISTOGRAM, 2),
            count=each.count,
        )
        for each in calibration.bins
        if each.count
    ]
    return Plot(SIDE, HISTOGRAM, tuple(points), most)


def whisker(figure: float, interval: Interval) -> Whisker:
    """See :class:`Whisker`."""
    low, high = interval
    return Whisker(round(low * 100, 2), round(high * 100, 2), round(figure * 100, 2))


def hue_of(label: str) -> int:
    """The colour of an entity type, in degrees: always the same one, and well spread over the circle."""
    return zlib.crc32(label.lower().encode("utf-8", "replace")) % 24 * 15
