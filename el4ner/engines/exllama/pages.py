"""Pages of the key-value cache: how many of them rows take, and where the rows of one pass are written.

Each row gets further pages, behind the pages of the prompt that it shares with others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from el4ner.errors import EngineError

__all__ = ["PAGE", "RowLayout", "lay_out", "pages_of", "rows_that_fit", "scratch_pages"]

PAGE: Final = 256
"""Tokens in a page of the cache, in both libraries."""


@dataclass(frozen=True, slots=True)
class RowLayout:
    """``tables[row]``: the row's pages in order. ``copies``: (page, its copy): a prompt's last page that is not full is
    copied for every row, since rows write behind it. ``lengths[row]``: tokens in the cache before the row."""

    tables: list[list[int]]
    copies: list[tuple[int, int]]
    lengths: list[int]


def scratch_pages(rows: int, pages: int) -> int:
    """Pages of a cache of ``pages`` that are kept for rows: about one each, and never more than half of all."""
    return max(2, min(rows + rows // 8 + 2, pages // 2))


def pages_of(length: int, width: int) -> int:
    """Pages of its own that a row of ``width`` tokens needs behind a prompt with ``length`` tokens in the cache."""
    return -(-(length + width) // PAGE) - length // PAGE


def rows_that_fit(rows: Sequence[tuple[int, int]], *, max_rows: int, max_tokens: int, pages: int) -> int:
    """How many of the first rows, each (tokens before it, its tokens), can be read in one pass, where each is as wide
    as the widest of them.

    Raises:
        EngineError: not even the first one.
    """
    widest = 0
    for count, (_, width) in enumerate(rows[:max_rows], start=1):
        widest = max(widest, width)
        needed = sum(pages_of(length, widest) for length, _ in rows[:count])
        if count * widest > max_tokens or needed > pages:
            if count == 1:
                raise EngineError(f"{width} tokens behind a prompt do not fit {max_tokens} tokens or {pages} pages")
            return count - 1
    return min(len(rows), max_rows)


def lay_out(prompts: Sequence[tuple[int, Sequence[int]]], width: int, scratch: Sequence[int]) -> RowLayout:
    """A layout for rows of ``width`` tokens, which have to fit (:func:`rows_that_fit`).

    Args:
        prompts: of each row's prompt: tokens in the cache, and its pages in order.
        width: tokens that every row writes, padding included.
        scratch: pages that rows may use.
    """
    free = iter(scratch)
    layout = RowLayout([], [], [])
    for length, pages in prompts:
        shared = length // PAGE
        own = list(islice(free, pages_of(length, width)))
        if length % PAGE:
            layout.copies.append((pages[shared], own[0]))
        layout.tables.append([*pages[:shared], *own])
        layout.lengths.append(length)
    return layout
