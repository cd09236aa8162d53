"""A run as one HTML file that needs nothing else: no script, no network, no font.

Texts, types and settings come from anywhere, so the template escapes everything, and the page forbids itself to load or
run anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

import jinja2

from el4ner.evaluation.analysis import OUTCOMES
from el4ner.evaluation.marking import LOST, worst
from el4ner.evaluation.plots import hue_of, reliability, whisker
from el4ner.evaluation.sentence_records import EvaluationError
from el4ner.evaluation.summary import EvaluationResult

__all__ = ["render_report", "write_report"]

WORST: Final = 20


def render_report(result: EvaluationResult) -> str:
    """The page, in UTF-8 when it is written."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": _percent, "interval": _interval, "hue": hue_of}
    source = (resources.files("el4ner") / "evaluation" / "report.html.jinja").read_text(encoding="utf-8")
    tokens = {stage: used.prompt_tokens + used.new_tokens for stage, used in result.tokens.items()}
    page = environment.from_string(source).render(
        result=result,
        settings=list(_flattened(result.settings)),
        outcomes=OUTCOMES,
        lost=LOST,
        plot=reliability(result.calibration),
        whiskers={
            label: whisker(scores.f1, result.type_intervals[label].f1)
            for label, scores in result.scores.per_type.items()
        },
        whisker_of_all=whisker(result.scores.strict.f1, result.intervals.f1),
        most_confused=max((count for row in result.confusion.counts for count in row), default=0),
        tokens=tokens,
        sentences=max(1, result.sentences),
        worst=worst(result.records, WORST),
    )
    return page.strip() + "\n"


def write_report(path: Path, result: EvaluationResult) -> None:
    """Write the page.

    Raises:
        EvaluationError: the file cannot be written.
    """
    try:
        path.write_bytes(render_report(result).encode("utf-8", "replace"))
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written: {error.strerror}") from error


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f}"


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0] * 100:.1f}–{ends[1] * 100:.1f}"


def _flattened(table: Mapping[str, Any], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """``method.mode`` and its value, for every setting."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, (*parents, str(key)))
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            yield ".".join((*parents, str(key))), shown
