"""Where things stand in the report's plots: numbers only, in the units of an SVG's view box; the template draws."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from el4ner.evaluation.reliability import Reliability
from el4ner.evaluation.stats import Interval

__all__ = [
    "Curve",
    "CurveField",
    "DrawnCurve",
    "Place",
    "Plot",
    "Point",
    "Tick",
    "Whisker",
    "curve_fields",
    "hue_of",
    "reliability",
    "whisker",
]

SIDE = 240.0
"""Width and height of the reliability plot's field."""
HISTOGRAM = 60.0
SENTENCES = "labelled sentences"
"""What sizes are of a learning curve."""
CURVE_WIDTH = 270.0
CURVE_HEIGHT = 200.0
"""Of a field with learning curves."""


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


@dataclass(frozen=True, slots=True)
class Place:
    """A figure in [0, 1] at a size of the pool, and its interval."""

    size: int
    figure: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Curve:
    """What a learning curve is called, and its places by ascending size."""

    label: str
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class DrawnCurve:
    """``line`` and ``band`` are an SVG's ``points``; ``dots`` are their places with what to say of each."""

    label: str
    line: str
    band: str
    dots: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True, slots=True)
class CurveField:
    """Curves of one data set: sizes, in ``unit``, grow to the right on a logarithmic axis, figures upwards from 0."""

    title: str
    unit: str
    width: float
    height: float
    sizes: tuple[Tick, ...]
    figures: tuple[Tick, ...]
    curves: tuple[DrawnCurve, ...]


def curve_fields(
    by_title: Sequence[tuple[str, Sequence[Curve]]], *, unit: str = SENTENCES, ticks: Sequence[int] | None = None
) -> list[CurveField]:
    """A field for each title. All have the same axis of figures, so that they can be compared by eye.

    Args:
        by_title: each field's curves.
        unit: of sizes.
        ticks: sizes that are labelled, as far as they are within a field's; None: all that occur.
    """
    highest = max(place.interval[1] for _, curves in by_title for curve in curves for place in curve.places)
    tenths = min(10, max(1, math.ceil(highest * 10)))
    figures = tuple(Tick(round((1 - each / tenths) * CURVE_HEIGHT, 2), str(each * 10)) for each in range(tenths + 1))
    return [_field(title, curves, tenths / 10, figures, unit, ticks) for title, curves in by_title]


def _field(
    title: str,
    curves: Sequence[Curve],
    top: float,
    figures: tuple[Tick, ...],
    unit: str,
    ticks: Sequence[int] | None,
) -> CurveField:
    sizes = sorted({place.size for curve in curves for place in curve.places})
    first, last = math.log(sizes[0]), math.log(sizes[-1])

    def x(size: int) -> float:
        return round((math.log(size) - first) / (last - first) * CURVE_WIDTH if last > first else CURVE_WIDTH / 2, 2)

    def y(figure: float) -> float:
        return round((1 - figure / top) * CURVE_HEIGHT, 2)

    def points(places: Sequence[tuple[int, float]]) -> str:
        return " ".join(f"{x(size)},{y(figure)}" for size, figure in places)

    drawn = [
        DrawnCurve(
            label=curve.label,
            line=points([(place.size, place.figure) for place in curve.places]),
            band=points(
                [
                    *((place.size, place.interval[1]) for place in curve.places),
                    *((place.size, place.interval[0]) for place in reversed(curve.places)),
                ]
            ),
            dots=tuple(
                (
                    x(place.size),
                    y(place.figure),
                    f"{curve.label}, {place.size} {unit}: F1 {place.figure * 100:.1f} "
                    f"({place.interval[0] * 100:.1f}–{place.interval[1] * 100:.1f})",
                )
                for place in curve.places
            ),
        )
        for curve in curves
    ]
    labelled = sizes if ticks is None else [tick for tick in ticks if sizes[0] <= tick <= sizes[-1]]
    shown = tuple(Tick(x(size), str(size)) for size in labelled)
    return CurveField(title, unit, CURVE_WIDTH, CURVE_HEIGHT, shown, figures, tuple(drawn))


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
