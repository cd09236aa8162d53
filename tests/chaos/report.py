"""The suite's report: a table for people, a file for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from tests.chaos.tally import Record

__all__ = ["RESULTS", "table", "write"]

RESULTS = pytest.StashKey[list[tuple[Record, list[str]]]]()
"""Records, each with what was wrong, in the order in which scenarios were played."""


def table(records: Sequence[tuple[Record, Sequence[str]]]) -> list[str]:
    """Lines; the first one is the head. A scenario with problems ends with the first of them."""
    rows = [("scenario", "in", "out", "lost", "duplicated", "recovery s", "seed", "")]
    rows += [
        (
            record.scenario,
            str(record.documents_in),
            str(record.documents_out),
            str(record.lost),
            str(record.duplicated),
            "–" if record.recovery_seconds is None else f"{record.recovery_seconds:.1f}",
            str(record.seed),
            f"FAILED: {problems[0]}" if problems else "ok",
        )
        for record, problems in records
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True))]
        )
        + (f"  {row[-1]}" if row[-1] else "")
        for row in rows
    ]


def write(path: Path, records: Sequence[Record]) -> None:
    """The list of records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps([record.to_json() for record in records], option=orjson.OPT_INDENT_2) + b"\n")
