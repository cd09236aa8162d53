"""Linear layers in blocks of rows, and rows that attend in rounded numbers: the same results by few kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from el4ner.engines.packing import TokenTree
from el4ner.engines.torch.attention_plans import PassSegment, RowsPlan
from el4ner.engines.torch.row_blocks import SIZES, RowBlocks, block_rows, blocks
from tests.support.token_trees import tree_of

ROWS = range(5000)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def test_blocks_have_few_sizes_and_every_row_is_in_one() -> None:
    sizes = set()
    for rows in ROWS:
        covered = 0
        for first, end in blocks(rows):
            assert 0 <= first <= covered < end
            covered = end
            sizes.add(end - first)
        assert covered == rows or rows <= covered <= 32
    assert sizes == set(SIZES)


def test_hardly_a_row_is_multiplied_twice() -> None:
    multiplied = sum(end - first for rows in ROWS for first, end in blocks(rows))
    assert multiplied < 1.02 * sum(ROWS)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 3, 31, 32, 33, 300, 511, 512, 700, 1407])
def test_blocks_come_to_what_the_layer_does(rows: int, bias: bool) -> None:
    torch.manual_seed(rows)
    linear = nn.Linear(48, 20, bias=bias).bfloat16()
    states = torch.randn(1, rows, 48).bfloat16()
    expected = functional.linear(states, linear.weight, linear.bias)
    torch.testing.assert_close(RowBlocks(linear)(states), expected)


def test_a_model_s_layers_keep_their_weights() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 4), nn.ReLU()))
    weights = list(model.parameters())
    names = list(model.state_dict())
    block_rows(model)
    assert isinstance(model[0], RowBlocks)
    assert list(model.state_dict()) == names
    assert all(new is old for new, old in zip(model.parameters(), weights, strict=True))


def _tree(nodes: int) -> TokenTree:
    return tree_of([[node % 3, node] for node in range(nodes)])


def _passes(lengths: list[tuple[int, int, int]], dtype: torch.dtype, window: int | None) -> torch.Tensor:
    """What rows of (past, chain, branches of a tree) attend, layer by layer."""
    torch.manual_seed(1)
    heads, kv_heads, head_dim = 4, 2, 16
    segments = []
    for past, chain, nodes in lengths:
        tree = _tree(nodes)
        room = -(-(past + chain + len(tree)) // 64) * 64
        group = torch.full((1, 2, 1, kv_heads, room, head_dim), float("nan"))
        group[..., :past, :] = torch.randn(1, 2, 1, kv_heads, past, head_dim)
        segments.append(PassSegment(group.to(dtype), 0, past, range(chain), tree))
    total = sum(segment.new for segment in segments)
    query = torch.randn(1, heads, total, head_dim).to(dtype)
    key, value = torch.randn(2, 1, kv_heads, total, head_dim).to(dtype)
    return RowsPlan(segments, dtype, torch.device("cpu")).attend(0, query, key, value, None, window)


LENGTHS = [(0, 40, 0), (0, 100, 7), (70, 1, 30), (300, 50, 0), (129, 33, 60), (5, 20, 2), (200, 150, 90)]


@pytest.mark.parametrize("window", [None, 30, 128, 1000])
def test_rounded_numbers_of_queries_and_keys_change_nothing(window: int | None) -> None:
    exact = _passes(LENGTHS, torch.float32, window)
    rounded = _passes(LENGTHS, torch.bfloat16, window).float()
    assert rounded.isfinite().all()
    # Inputs are rounded to eight bits. A key more or less would change an answer by a tenth and more.
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0.05)


def test_rows_of_any_length_attend_in_few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = set()
    original = functional.scaled_dot_product_attention

    def attend(query: torch.Tensor, key: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        if query.shape[2] >= 64 and key.shape[2] >= 64:  # of which torch keeps kernels
            sizes.add((query.shape[2] % 32, key.shape[2] % 64))
        return original(query, key, *args, **named)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attend)
    lengths = [(past, chain, nodes) for past in (0, 77, 500) for chain in range(1, 130, 7) for nodes in (0, 25, 41)]
    for window in (None, 200):
        _passes(lengths, torch.bfloat16, window)
    assert {queries for queries, _ in sizes} == {0}
    assert {keys for _, keys in sizes} <= {0, 32}
