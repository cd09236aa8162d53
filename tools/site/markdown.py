"""Markdown of values that were written for other places: docstrings, and texts that go into a table's cell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["cell", "from_docstring", "table"]

_ROLE = re.compile(r":\w+:`~?\.?([^`]+)`")


def from_docstring(text: str) -> str:
    """A docstring in one line: reStructuredText's roles and double backticks become code."""
    plain = re.sub(r"\s+", " ", _ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2]}`", text))
    return plain.replace("``", "`").strip()


def cell(text: str) -> str:
    """A text that stays in its cell, and in which nothing is an HTML tag."""
    escaped = text.replace("|", "\\|").replace("\n", " ")
    # In code, which is shown as it is, an entity would be too.
    return "".join(
        part if index % 2 else part.replace("<", "&lt;") for index, part in enumerate(re.split(r"(`[^`]*`)", escaped))
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; no rows, no table."""
    lines = [f"| {' | '.join(map(cell, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines, ""]) if lines else ""
