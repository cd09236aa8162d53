"""The suite's report: a table for people, a file for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson
import pytest

from tests.chaos.tally import Record

__all__ = ["NOT_RUN", "RESULTS", "table", "verdict", "write"]

NOT_RUN: Final = 6
"""The exit status where nothing failed and not everything was run; pytest's own go up to 5."""

RESULTS = pytest.StashKey[list[tuple[Record, list[str]]]]()
"""Records, each with what was wrong, in the order in which scenarios were played."""


def table(records: Sequence[tuple[Record, Sequence[str]]]) -> list[str]:
    """Lines; the first one is the head. A scenario that failed ends with the first of its problems, one that was not
    run with the reason."""
    rows = [("scenario", "in", "out", "lost", "duplicated", "recovery s", "seed", "")]
    rows += [
        (
            record.scenario,
            *(
                "–" if count is None else str(count)
                for count in (record.documents_in, record.documents_out, record.lost, record.duplicated)
            ),
            "–" if record.recovery_seconds is None else f"{record.recovery_seconds:.1f}",
            str(record.seed),
            record.status if record.status == "ok" else f"{record.status.upper()}: {problems[0]}",
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


def verdict(records: Sequence[Record]) -> str:
    """What can be said of the whole."""
    counts = Counter(record.status for record in records)
    if counts["failed"]:
        return f"FAILED: {counts['failed']} of {len(records)} scenarios failed, {counts['not run']} were not run"
    if counts["not run"]:
        return f"NOT PASSED: nothing failed, but {counts['not run']} of {len(records)} scenarios were not run"
    return f"passed: {len(records)} scenarios"


def write(path: Path, records: Sequence[Record]) -> None:
    """The list of records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps([record.to_json() for record in records], option=orjson.OPT_INDENT_2) + b"\n")
