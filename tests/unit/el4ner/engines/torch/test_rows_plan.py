"""Rows that stand behind states which others share attend as rows that have all states of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.engines.torch.attention_plans import PassSegment, RowsPlan
from el4ner.engines.torch.past_states import PastStates, beginning, total
from tests.support.examples import examples
from tests.support.token_trees import tree_of

HEADS, HEAD_DIM = 2, 8
CAPACITY = 192

RowShape = tuple[int, int, int, int, int, list[list[int]]]
"""Which shared beginning, how much of it, tokens of a second one behind it, of its own, length of the chain, paths."""


@st.composite
def passes(draw: st.DrawFn) -> list[RowShape]:
    paths = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), max_size=5)
    shared = st.sampled_from([0, 1, 30, 63, 70])
    row = st.tuples(st.integers(0, 1), shared, st.sampled_from([0, 5]), st.integers(0, 3), st.integers(1, 40), paths)
    return draw(st.lists(row, min_size=1, max_size=6))


def segments_of(rows: Sequence[RowShape], dtype: torch.dtype) -> tuple[list[PassSegment], list[PassSegment]]:
    """Each row twice: behind shared states, and with all in a group of its own."""
    generator = torch.Generator().manual_seed(7)

    def random(tokens: int) -> torch.Tensor:
        return torch.randn(2, 2, HEADS, tokens, HEAD_DIM, generator=generator).to(dtype)

    firsts, seconds = [random(70) for _ in range(2)], [random(5) for _ in range(2)]
    behind, whole = [], []
    for which, of_first, of_second, own, length, paths in rows:
        shared = beginning([PastStates(firsts[which], of_first)], of_first)
        if of_second:
            shared = (*shared, PastStates(seconds[which], of_second))
        if not shared:
            own = 0
        past = total(shared) + own
        chain, tree = [1] * length, tree_of(paths)
        room = torch.full((2, 2, 1, HEADS, CAPACITY, HEAD_DIM), float("nan")).to(dtype)
        mine = torch.full((2, 2, 1, HEADS, own + length, HEAD_DIM), float("nan")).to(dtype)
        before = random(own)
        mine[:, :, 0, :, :own] = before
        parts = [each.states[:, :, :, : each.tokens] for each in shared]
        room[:, :, 0, :, :past] = torch.cat([*parts, before], dim=3)
        whole.append(PassSegment(room, 0, past, chain, tree))
        behind.append(PassSegment(mine, 0, past, chain, tree, behind=shared) if shared else whole[-1])
    return behind, whole


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@given(rows=passes(), per_key=st.sampled_from([1, 3]), window=st.sampled_from([None, 1, 5, 64]))
@settings(max_examples=examples(80), deadline=None)
def test_attends_as_with_states_of_its_own(
    dtype: torch.dtype, rows: list[RowShape], per_key: int, window: int | None
) -> None:
    behind, whole = segments_of(rows, dtype)
    tokens = sum(segment.new for segment in behind)
    generator = torch.Generator().manual_seed(len(rows))
    query = torch.randn(1, HEADS * per_key, tokens, HEAD_DIM, generator=generator).to(dtype)
    key, value = (torch.randn(1, HEADS, tokens, HEAD_DIM, generator=generator).to(dtype) for _ in range(2))
    shared = [(states.states, states.states.clone()) for segment in behind for states in segment.behind]
    plans = [RowsPlan(segments, dtype, torch.device("cpu")) for segments in (behind, whole)]
    for layer in (0, 1):
        result, expected = (plan.attend(layer, query, key, value, None, window) for plan in plans)
        torch.testing.assert_close(result, expected, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=1e-2)
    for left, right in zip(behind, whole, strict=True):
        there, chain = total(left.behind), slice(left.past, left.past + len(left.chain))
        assert torch.equal(
            left.states[:, :, :, chain.start - there : chain.stop - there], right.states[:, :, :, chain]
        ), "the chain's states are kept"
    assert all(torch.equal(now, before) for now, before in shared), "and what others share is never written"


def test_a_beginning_that_rows_share_is_copied_once_a_layer() -> None:
    behind, _ = segments_of([(0, 70, 0, 0, 3, [[1, 2]])] * 5, torch.float32)
    one = behind[0].behind[0]
    # Equal, not the same object: each row has looked it up by itself.
    behind = [replace(segment, behind=(PastStates(one.states, 70),)) for segment in behind]
    copies = [len(row.copied) for row in RowsPlan(behind, torch.float32, torch.device("cpu"))._rows]
    assert copies == [1, 0, 0, 0, 0]


def test_of_more_of_a_beginning_only_what_is_not_there_is_copied() -> None:
    behind, _ = segments_of([(0, shared, 0, 0, 3, []) for shared in (63, 70, 30, 30, 70)], torch.float32)
    rows = RowsPlan(behind, torch.float32, torch.device("cpu"))._rows
    assert [sum(part.tokens - first for part, first, _ in row.copied) for row in rows] == [63, 7, 0, 0, 40]


@pytest.mark.parametrize("shared", [0, 30], ids=["on its own", "behind shared states"])
def test_what_is_not_a_number_in_one_row_stays_in_it(shared: int) -> None:
    """In half precision keys are rounded up: behind a row's lies what the row before has left on the desk."""
    segments, _ = segments_of([(0, shared, 0, 0, length, []) for length in (60, 40)], torch.bfloat16)
    query, key, value = (torch.randn(1, HEADS, 100, HEAD_DIM).to(torch.bfloat16) for _ in range(3))
    for broken in (query, key, value):
        broken[:, :, :60] = torch.nan
    result = RowsPlan(segments, torch.bfloat16, torch.device("cpu")).attend(0, query, key, value, None, None)
    assert result[0, :60].isnan().all()
    assert result[0, 60:].isfinite().all()
