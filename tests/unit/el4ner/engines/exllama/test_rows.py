"""Where rows are written, which rows are read, and how much is tried at a time."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.engines.exllama.backend import PAGE
from el4ner.engines.exllama.guard import Guard, Room
from el4ner.engines.exllama.questions import paths_of
from el4ner.engines.exllama.rows import lay_out, pages_of, rows_that_fit, scratch_pages
from el4ner.engines.packing import ROOT, Question, plant
from el4ner.errors import EngineAwayError, EngineError

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


tokens = st.lists(st.integers(1, 4), max_size=6).map(tuple)
questions = st.lists(
    st.builds(Question, tokens, st.lists(tokens, max_size=4).map(tuple)),
    max_size=6,
)


@given(questions=questions, long=st.booleans())
def test_every_target_is_read_where_its_path_leads(questions: list[Question], long: bool) -> None:
    if long:
        questions = [Question((9,) * (2 * PAGE) + one.tail, one.candidates) for one in questions]
    prefix = (7, 8)
    trees, planted = plant(questions, 1 << 30)
    tree = trees[0]
    targets = sorted({target for one in planted for candidate in one.targets for target in candidate})
    found = {}
    for path in paths_of(prefix, tree, targets):
        assert len(path.tokens) < PAGE
        for place, target in zip(path.places, path.targets, strict=True):
            assert target not in found, "once"
            found[target] = (*path.prefix, *path.tokens[:place])
    assert sorted(found) == targets
    for node, token in targets:
        expected = []
        at = node
        while at != ROOT:
            expected.append(tree.tokens[at])
            at = tree.parents[at]
        assert found[node, token] == (*prefix, *reversed(expected))


def test_what_nobody_asks_is_not_read() -> None:
    trees, planted = plant([Question((1, 2, 3), ((4,), (5,)))], 100)
    targets = sorted({target for candidate in planted[0].targets for target in candidate})
    (path,) = paths_of((0,), trees[0], targets)
    assert path.tokens == (1, 2, 3)
    assert path.places == (3, 3)


class TestRoom:
    def test_is_halved_down_to_one_and_widened_again_after_a_while(self) -> None:
        room = Room(5, patience=3)
        assert room.halve()
        assert room.now == 2
        assert room.halve()
        assert room.now == 1
        assert not room.halve()
        seen = []
        for _ in range(12):
            room.passed()
            seen.append(room.now)
        assert seen == [1, 1, 2, 2, 2, 4, 4, 4, 5, 5, 5, 5]


class TestGuard:
    def test_lets_a_call_pass_until_its_deadline(self) -> None:
        now = [10.0]
        guard = Guard("m", 5.0, threading.Event(), lambda: now[0])
        now[0] = 14.9
        guard.check()
        now[0] = 15.0
        with pytest.raises(EngineError, match=r"^m: no answer within 5 seconds"):
            guard.check()

    def test_an_interruption_comes_first(self) -> None:
        interrupted = threading.Event()
        guard = Guard("m", 0.0, interrupted, lambda: 0.0)
        interrupted.set()
        with pytest.raises(EngineAwayError):
            guard.check()
