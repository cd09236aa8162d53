"""Learning curves as a picture, and one as a page: neither needs anything else, as :mod:`el4ner.evaluation.report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import jinja2

from el4ner.evaluation.learning_curve import LearningCurve
from el4ner.evaluation.plots import SENTENCES, Curve, Place, curve_fields
from el4ner.evaluation.sentence_records import EvaluationError

__all__ = ["EXPLAINED", "PICTURE", "as_curve", "render_curves", "write_curve_report"]

PICTURE: Final = ".svg"
COLOURS: Final = (
    ("#0072b2", "#56b4e9", "none"),
    ("#b85c00", "#f0a050", "7 3"),
    ("#007a5a", "#4fd1a5", "2 3"),
    ("#8a4fbf", "#c9a2f2", "9 3 2 3"),
    ("#5f6b7a", "#aab4c2", "4 4"),
)
"""Of the curves, in order: on light paper, on dark paper, and the dashes that tell them apart without colours."""
EXPLAINED: Final = (
    "Means over the draws of pool sentences; intervals are 95 % bootstrap intervals over sentences and draws. F1 is "
    "over all gold entities: a type without any labelled span is known by its name and description only."
)


def as_curve(curve: LearningCurve, label: str) -> Curve:
    """What a plot shows of it."""
    return Curve(label, tuple(Place(point.size, *point.f1) for point in curve.points))


def render_curves(
    by_title: Sequence[tuple[str, Sequence[Curve]]], *, unit: str = SENTENCES, ticks: Sequence[int] | None = None
) -> str:
    """An SVG with a field for each title, side by side. Curves of one place in these lists have one colour, and the
    name of the first field's. ``unit`` and ``ticks``: as :func:`~el4ner.evaluation.plots.curve_fields` takes them.

    Raises:
        ValueError: more curves than colours.
    """
    return _environment().get_template("learning_curve.svg.jinja").render(**_picture(by_title, unit, ticks))


def write_curve_report(path: Path, curve: LearningCurve) -> None:
    """The page, or the picture alone where ``path`` ends with :data:`PICTURE`.

    Raises:
        EvaluationError: the file cannot be written.
    """
    fields = [(f"{curve.dataset.name}, {curve.dataset.split} split: F1", [as_curve(curve, "F1, 95 % interval")])]
    if path.suffix.lower() == PICTURE:
        text = render_curves(fields)
    else:
        page = _environment().get_template("learning_curve.html.jinja")
        text = page.render(curve=curve, explained=EXPLAINED, **_picture(fields)) + "\n"
    try:
        path.write_bytes(text.encode("utf-8", "replace"))
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written: {error.strerror}") from error


def _picture(
    by_title: Sequence[tuple[str, Sequence[Curve]]], unit: str = SENTENCES, ticks: Sequence[int] | None = None
) -> dict[str, object]:
    if max(len(curves) for _, curves in by_title) > len(COLOURS):
        raise ValueError(f"there are colours for {len(COLOURS)} curves")
    fields = curve_fields(by_title, unit=unit, ticks=ticks)
    labels = [curve.label for curve in by_title[0][1]]
    width = sum(field.width + 50 for field in fields) + 10
    in_a_row = max(1, int(width // 260))
    legend = fields[0].height + 34 + 58
    rows = -(-len(labels) // in_a_row)
    return {
        "colours": COLOURS,
        "fields": fields,
        "described": f"F1 by {unit}",
        "labels": labels,
        "width": width,
        "height": legend + (rows - 1) * 18 + 12,
        "legend": legend,
        "in_a_row": in_a_row,
    }


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("el4ner", "evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": lambda share: f"{share * 100:.1f}", "ends": _ends}
    return environment


def _ends(ends: tuple[float, float]) -> str:
    return f"{ends[0] * 100:.1f}–{ends[1] * 100:.1f}"
