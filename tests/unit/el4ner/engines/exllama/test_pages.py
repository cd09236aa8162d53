"""Where rows are written, and how many of them fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.engines.exllama.pages import PAGE, lay_out, pages_of, rows_that_fit, scratch_pages
from el4ner.errors import EngineError

lengths = st.integers(0, 3 * PAGE)
widths = st.integers(1, PAGE)


@given(rows=st.integers(1, 1024), pages=st.integers(4, 4096))
def test_rows_get_at_least_two_pages_and_at_most_half_of_the_cache(rows: int, pages: int) -> None:
    scratch = scratch_pages(rows, pages)
    assert 2 <= scratch <= max(2, pages // 2)
    assert pages - scratch >= pages // 2


@given(prompts=st.lists(lengths, min_size=1, max_size=8), width=widths)
def test_every_row_writes_to_pages_that_nobody_else_has(prompts: list[int], width: int) -> None:
    scratch = range(1000, 1000 + sum(pages_of(length, width) for length in prompts))
    shared = [list(range(100 * number, 100 * number + length // PAGE + 1)) for number, length in enumerate(prompts)]
    layout = lay_out(list(zip(prompts, shared, strict=True)), width, scratch)
    assert layout.lengths == prompts
    written = []
    for length, pages, table in zip(prompts, shared, layout.tables, strict=True):
        full = length // PAGE
        assert table[:full] == pages[:full], "full pages of the prompt are shared"
        assert len(table) * PAGE >= length + width
        written += table[full:]
    assert len(set(written)) == len(written)
    assert set(written) <= set(scratch)
    for (source, copy), length in zip(layout.copies, [length for length in prompts if length % PAGE], strict=True):
        assert source % 100 == length // PAGE, "the page that is not full is copied"
        assert copy in written


@given(
    rows=st.lists(st.tuples(lengths, widths), min_size=1, max_size=20),
    max_rows=st.integers(1, 16),
    max_tokens=st.integers(PAGE, 4 * PAGE),
    pages=st.integers(2, 12),
)
def test_as_many_rows_are_read_as_fit_and_not_one_more(
    rows: list[tuple[int, int]], max_rows: int, max_tokens: int, pages: int
) -> None:
    def fits(count: int) -> bool:
        widest = max(width for _, width in rows[:count])
        needed = sum(pages_of(length, widest) for length, _ in rows[:count])
        return count <= max_rows and count * widest <= max_tokens and needed <= pages

    count = rows_that_fit(rows, max_rows=max_rows, max_tokens=max_tokens, pages=pages)
    assert fits(count)
    assert count == len(rows) or not fits(count + 1)


def test_a_row_that_never_fits_is_an_error() -> None:
    with pytest.raises(EngineError, match="300 tokens behind a prompt do not fit 256 tokens"):
        rows_that_fit([(10, 300)], max_rows=4, max_tokens=256, pages=4)
