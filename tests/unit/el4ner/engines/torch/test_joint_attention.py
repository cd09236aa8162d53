"""Rows that attend together attend as they do one by one, with the same number of calls however many they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from el4ner.engines.packing import TokenTree
from el4ner.engines.torch import joint_attention
from el4ner.engines.torch.attention_plans import PassSegment, RowsPlan
from el4ner.engines.torch.joint_attention import JointPlan
from tests.support.examples import examples
from tests.support.token_trees import tree_of

HEAD_DIM = 8
CAPACITY = 64

RowShape = tuple[int, int, int, list[list[int]]]
"""(group, tokens held before, length of the chain, paths of the tree)."""


@st.composite
def passes(draw: st.DrawFn) -> list[RowShape]:
    paths = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), max_size=5)
    row = st.tuples(st.integers(0, 1), st.integers(0, 20), st.integers(1, 20), paths)
    return draw(st.lists(row, min_size=1, max_size=6))


def segments_of(rows: Sequence[RowShape], kv_heads: int, order: Sequence[int]) -> list[PassSegment]:
    """In groups with a row more than is read, in an order of their own."""
    generator = torch.Generator().manual_seed(7)
    groups = [
        torch.randn(2, 2, sum(row[0] == group for row in rows) + 1, kv_heads, CAPACITY, HEAD_DIM, generator=generator)
        for group in (0, 1)
    ]
    slots = [0, 0]
    segments = []
    for group, past, length, paths in rows:
        segments.append(PassSegment(groups[group], slots[group], past, [1] * length, tree_of(paths)))
        slots[group] += 1
    return [segments[index] for index in order]


def copied(segments: Sequence[PassSegment]) -> list[PassSegment]:
    groups: dict[int, torch.Tensor] = {}
    for segment in segments:
        groups.setdefault(id(segment.group), segment.group.clone())
    return [PassSegment(groups[id(one.group)], one.slot, one.past, one.chain, one.tree) for one in segments]


@given(
    rows=passes(),
    kv_heads=st.sampled_from([1, 2, 3]),
    per_key=st.sampled_from([1, 3, 4, 8]),
    window=st.sampled_from([None, 1, 5, 64]),
    data=st.data(),
)
@settings(max_examples=examples(150), deadline=None)
def test_attends_as_row_by_row(
    rows: list[RowShape],
    kv_heads: int,
    per_key: int,
    window: int | None,
    data: st.DataObject,
) -> None:
    order = data.draw(st.permutations(range(len(rows))))
    together = segments_of(rows, kv_heads, order)
    apart = copied(together)
    total = sum(segment.new for segment in together)
    generator = torch.Generator().manual_seed(len(rows))
    # The layout in which transformers gives them: heads are a transposed view.
    query = torch.randn(1, total, kv_heads * per_key, HEAD_DIM, generator=generator).transpose(1, 2)
    key, value = (torch.randn(1, total, kv_heads, HEAD_DIM, generator=generator).transpose(1, 2) for _ in range(2))
    joint = JointPlan(together, kv_heads, torch.float32)
    one_by_one = RowsPlan(apart, torch.float32, torch.device("cpu"))
    for layer in (0, 1):
        expected = one_by_one.attend(layer, query, key, value, None, window)
        result = joint.attend(layer, query, key, value, None, window)
        assert result.shape == expected.shape
        assert result.is_contiguous()
        torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-4)
    for left, right in zip(together, apart, strict=True):
        assert torch.equal(left.group, right.group), "the same states are written, and no others"


def calls_a_layer(monkeypatch: pytest.MonkeyPatch, rows: int) -> int:
    calls = []
    attention = functional.scaled_dot_product_attention

    def counted(*args: object, **named: object) -> torch.Tensor:
        calls.append(1)
        return attention(*args, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(joint_attention.functional, "scaled_dot_product_attention", counted)
        group = torch.zeros(1, 2, rows, 1, CAPACITY, HEAD_DIM)
        paths = [[1, 2, 3], [1, 4], [5]]
        segments = [PassSegment(group, row, 20, [1] * (10 + row % 3), tree_of(paths)) for row in range(rows)]
        total = sum(segment.new for segment in segments)
        new = torch.zeros(1, 1, total, HEAD_DIM)
        JointPlan(segments, 1, torch.float32).attend(0, new, new, new, None, None)
    return len(calls)


def test_as_many_calls_for_fifty_rows_as_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls_a_layer(monkeypatch, 1) == calls_a_layer(monkeypatch, 50) == 2


@pytest.mark.parametrize("lengths", [(100, 100), (100, 97, 90)], ids=["alike", "different"])
def test_prompts_without_a_mask_have_as_many_keys_as_queries(
    monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, ...]
) -> None:
    """Else torch does not take FlashAttention (check_flash_causal_non_square_seqlens of its sdp_utils.cpp)."""
    shapes: list[tuple[int, int]] = []
    attention = functional.scaled_dot_product_attention

    def seen(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **named: Any) -> torch.Tensor:
        assert named["is_causal"]
        shapes.append((query.shape[2], key.shape[2]))
        return attention(query, key, value, **named)

    monkeypatch.setattr(joint_attention.functional, "scaled_dot_product_attention", seen)
    group = torch.zeros(1, 2, len(lengths), 1, 112, HEAD_DIM)
    segments = [PassSegment(group, row, 0, [1] * length) for row, length in enumerate(lengths)]
    new = torch.zeros(1, 1, sum(lengths), HEAD_DIM)
    JointPlan(segments, 1, torch.float32).attend(0, new, new, new, None, None)
    assert shapes == [(100, 100)]


def test_rows_of_very_different_length_do_not_pad_each_other() -> None:
    """One prompt of 2,000 tokens among many of ten: padding all to 2,000 would take a hundred times the memory."""
    group = torch.zeros(1, 2, 101, 1, 2048, HEAD_DIM)
    segments = [PassSegment(group, 0, 0, [1] * 2000), *(PassSegment(group, row, 0, [1] * 10) for row in range(1, 101))]
    plan = JointPlan(segments, 1, torch.float32)
    padded = sum(call.rows * call.width for call in plan._calls)
    assert padded <= 1.25 * 3000 + 256
    assert len(plan._calls) == 2


def test_a_long_piece_behind_a_cached_beginning_is_masked_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint_attention, "_MASK", 1024 * 3072)
    group = torch.zeros(1, 2, 1, 1, 4096, HEAD_DIM)
    plan = JointPlan([PassSegment(group, 0, 16, [1] * 3000)], 1, torch.float32)
    assert [call.rows * call.width for call in plan._calls] == [1024, 1024, 952]


def test_an_empty_tree_relates_nothing() -> None:
    nodes, ancestors = TokenTree().related()
    assert len(nodes) == len(ancestors) == 0
