"""The table: on a terminal, as Markdown for the docs, as JSON, and as a page with a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import jinja2
from rich.table import Table

from ablation.rows import REFERENCE

__all__ = ["Results", "html", "line", "markdown", "mean_of", "shown"]

Results = list[dict[str, Any]]
"""One dictionary a row: ``key``, ``group``, ``label``, ``cost``, ``overrides``; ``results``, the figures by data set;
``notes``, why there are none, by data set; ``mean``, over the data sets, None where one is missing."""

MISSING: Final = "–"
HEADER: Final = ("F1 (95 %)", "difference", "p", "span F1", "ECE", "s/sentence", "cand. recall", "sentences")
LEFT, WIDTH, STEP, TOP = 330.0, 420.0, 20.0, 34.0
"""Of the plot, in the units of its view box: the field's left edge and width, a row's height, the room for the axis."""


def mean_of(figures: Sequence[dict[str, Any]], datasets: int) -> dict[str, float] | None:
    """Of F1 and of its difference to the reference; None unless there are figures of every data set."""
    if not figures or len(figures) < datasets:
        return None
    return {name: sum(one[name] for one in figures) / len(figures) for name in ("f1", "difference")}


def line(label: str, dataset: str, figures: dict[str, Any]) -> str:
    """A row on one data set, as it is measured."""
    f1, difference, p, span, ece, seconds, recall, sentences = _cells(figures)
    ratio = f", paper takes {figures['seconds_ratio']:.1f} times as long" if "seconds_ratio" in figures else ""
    return (
        f"{label} | {dataset}, {sentences} sentences: F1 {f1}, {difference} (p {p}), span F1 {span}, ECE {ece}, "
        f"{seconds} s/sentence, candidate recall {recall}{ratio}"
    )


def shown(rows: Results, datasets: Sequence[str]) -> Table:
    """All figures; a cell has four lines."""
    table = Table(title="strict F1, difference to the reference on the same sentences", title_justify="left")
    table.add_column("row", overflow="fold")
    for name in (*datasets, "mean"):
        table.add_column(name, overflow="fold")
    group = None
    for row in rows:
        if row["group"] != group:
            table.add_section()
            group = row["group"]
        cells = [_cell(row["results"].get(name), row["notes"].get(name)) for name in datasets]
        table.add_row(f"{row['label']}\n[{row['key']}]", *cells, _mean_cell(row["mean"]))
    return table


def markdown(rows: Results, datasets: Sequence[str]) -> str:
    """A table of F1 and differences over all data sets, and one with every figure for each."""
    parts = ["| row | " + " | ".join(f"{_md(name)} F1 | Δ (p)" for name in datasets) + " | mean F1 | mean Δ |"]
    parts.append("|---|" + "---:|" * (2 * len(datasets) + 2))
    for row in rows:
        cells = []
        for name in datasets:
            figures = row["results"].get(name)
            if figures is None:
                cells += [MISSING, MISSING]
            else:
                f1, difference, p, *_ = _cells(figures)
                cells += [f1, MISSING if row["key"] == REFERENCE else f"{difference} ({p})"]
        mean = row["mean"]
        cells += [MISSING, MISSING] if mean is None else [f"{mean['f1'] * 100:.1f}", _signed(mean["difference"])]
        parts.append(f"| {_md(row['label'])} | " + " | ".join(cells) + " |")
    for name in datasets:
        parts += ["", f"**{_md(name)}**", "", "| row | " + " | ".join(HEADER) + " |", "|---|" + "---:|" * len(HEADER)]
        for row in rows:
            figures = row["results"].get(name)
            if figures is not None:
                parts.append(f"| {_md(row['label'])} | " + " | ".join(_cells(figures)) + " |")
    notes = [f"- {_md(row['label'])}, {_md(name)}: {_md(note)}" for row in rows for name, note in row["notes"].items()]
    notes += [
        f"- {_md(row['label'])}, {_md(name)}: {figures['seconds_per_sentence']:.2f} seconds a sentence, "
        f"{figures['seconds_ratio']:.1f} times as long as the reference, which took "
        f"{figures['reference_seconds_per_sentence']:.3f} on the same sentences, by turns"
        for row in rows
        for name, figures in row["results"].items()
        if "seconds_ratio" in figures
    ]
    return "\n".join([*parts, *(["", *notes] if notes else [])]) + "\n"


def html(rows: Results, datasets: Sequence[str]) -> str:
    """One page that needs nothing else. Everything in it is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = (Path(__file__).parent / "page.html.jinja").read_text(encoding="utf-8")
    found = environment.from_string(source).render(
        rows=rows,
        header=HEADER,
        plots=[_plot(rows, name) for name in datasets],
        cells={
            name: [(row["label"], _cells(row["results"][name])) for row in rows if name in row["results"]]
            for name in datasets
        },
        left=LEFT,
        width=WIDTH,
    )
    return found.strip() + "\n"


def _plot(rows: Results, name: str) -> dict[str, Any]:
    own = [(row, row["results"][name]) for row in rows if name in row["results"]]
    ends = [end for _, figures in own for end in (*figures["f1_ci"], figures["reference_f1"])] or [0.0, 1.0]
    low, high = int(min(ends) * 10) / 10, min(1.0, (int(max(ends) * 10) + 1) / 10)

    def x(share: float) -> float:
        return round(LEFT + (share - low) / (high - low) * WIDTH, 2)

    marks = []
    y, group = TOP, None
    for row, figures in own:
        heading = row["group"] if row["group"] != group else None
        group = row["group"]
        y += STEP * (1.9 if heading else 1.0)
        marks.append(
            {
                "y": round(y, 2),
                "heading": heading,
                "label": row["label"],
                "low": x(figures["f1_ci"][0]),
                "high": x(figures["f1_ci"][1]),
                "at": x(figures["f1"]),
                "reference": x(figures["reference_f1"]),
                "figure": _cells(figures)[0],
                "title": line(row["label"], name, figures),
            }
        )
    tenths = range(round(low * 10), round(high * 10) + 1)
    ticks = [{"x": x(tenth / 10), "label": str(tenth * 10)} for tenth in tenths]
    return {"name": name, "height": round(y + STEP, 2), "top": TOP, "marks": marks, "ticks": ticks}


def _cells(figures: dict[str, Any]) -> list[str]:
    low, high = figures["f1_ci"]
    ece, recall = figures["ece"], figures["candidate_recall"]
    return [
        f"{figures['f1'] * 100:.1f} ({low * 100:.1f}–{high * 100:.1f})",
        _signed(figures["difference"]),
        _p(figures["p_value"]),
        f"{figures['span_f1'] * 100:.1f}",
        MISSING if ece is None else f"{ece:.3f}",
        f"{figures['seconds_per_sentence']:.3f}",
        MISSING if recall is None else f"{recall * 100:.1f}",
        str(figures["sentences"]),
    ]


def _cell(figures: dict[str, Any] | None, note: str | None) -> str:
    if figures is None:
        return note or MISSING
    f1, difference, p, span, ece, seconds, recall, sentences = _cells(figures)
    lines = [f1, f"{difference}, p {p}", f"span {span}, ECE {ece}", f"{seconds} s, recall {recall}, n {sentences}"]
    if "seconds_ratio" in figures:
        lines.append(
            f"{figures['seconds_ratio']:.1f} times the reference's {figures['reference_seconds_per_sentence']:.3f} s"
        )
    return "\n".join(lines)


def _mean_cell(mean: dict[str, float] | None) -> str:
    return MISSING if mean is None else f"{mean['f1'] * 100:.1f}\n{_signed(mean['difference'])}"


def _signed(difference: float) -> str:
    return f"{difference * 100:+.1f}".replace("-", "−")


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _md(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
