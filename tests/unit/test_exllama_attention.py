"""Attention over pages against attention written out, on random tensors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.engines.exllama.attention import attention_with_cache, plain_attention

PAGE = 8


def by_hand(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, window: int = -1, softcap: float = 0.0
) -> torch.Tensor:
    """One sequence, one query after the other: ``q`` ``[queries, heads, dim]`` at the end of ``k`` and ``v``."""
    queries, heads, dim = q.shape
    group = heads // k.shape[1]
    out = torch.zeros_like(q)
    for index in range(queries):
        own = k.shape[0] - queries + index
        first = max(0, own - window) if window >= 0 else 0
        for head in range(heads):
            keys, values = k[first : own + 1, head // group], v[first : own + 1, head // group]
            weights = keys @ q[index, head] / math.sqrt(dim)
            if softcap:
                weights = torch.tanh(weights / softcap) * softcap
            out[index, head] = weights.softmax(dim=0) @ values
    return out


@settings(max_examples=40, deadline=None)
@given(
    pasts=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    queries=st.integers(1, 11),
    group=st.integers(1, 3),
    window=st.sampled_from([-1, 0, 3, 12]),
    softcap=st.sampled_from([0.0, 5.0]),
    written=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_reads_each_sequence_from_its_own_pages(
    pasts: list[int], queries: int, group: int, window: int, softcap: float, written: bool, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    dim, kv_heads, batch = 4, 2, len(pasts)
    blocks = -(-(max(pasts) + queries) // PAGE)
    pages = batch * blocks + 1
    k_cache = torch.randn(pages, PAGE, kv_heads, dim, generator=random)
    v_cache = torch.randn(pages, PAGE, kv_heads, dim, generator=random)
    table = torch.randperm(pages, generator=random)[: batch * blocks].view(batch, blocks).int()
    q = torch.randn(batch, queries, kv_heads * group, dim, generator=random)
    k = torch.randn(batch, queries, kv_heads, dim, generator=random)
    v = torch.randn(batch, queries, kv_heads, dim, generator=random)
    lengths = torch.tensor(pasts, dtype=torch.int32)
    expected = []
    for index, past in enumerate(pasts):
        keys = torch.cat([k_cache[table[index].long()].flatten(0, 1)[:past], k[index]])
        values = torch.cat([v_cache[table[index].long()].flatten(0, 1)[:past], v[index]])
        expected.append(by_hand(q[index], keys, values, window=window, softcap=softcap))
        if written:  # as the library does for one sequence whose pages follow each other
            for offset in range(queries):
                page = int(table[index, (past + offset) // PAGE])
                k_cache[page, (past + offset) % PAGE] = k[index, offset]
                v_cache[page, (past + offset) % PAGE] = v[index, offset]
    found = attention_with_cache(
        q,
        k_cache,
        v_cache,
        None if written else k,
        None if written else v,
        cache_seqlens=lengths + queries if written else lengths,
        block_table=table,
        causal=True,
        window_size=(window, window),
        softcap=softcap,
    )
    assert torch.allclose(found, torch.stack(expected), atol=1e-5)
    for index, past in enumerate(pasts):
        stored = k_cache[table[index].long()].flatten(0, 1)[past : past + queries]
        assert torch.equal(stored, k[index]), "what was read is in the cache"


@pytest.mark.parametrize("keys", [5, 9])
def test_without_a_cache_queries_stand_at_the_end_of_the_keys(keys: int) -> None:
    random = torch.Generator().manual_seed(keys)
    q = torch.randn(2, 5, 4, 8, generator=random)
    k, v = (torch.randn(2, keys, 2, 8, generator=random) for _ in range(2))
    expected = torch.stack([by_hand(q[index], k[index], v[index]) for index in range(2)])
    assert torch.allclose(plain_attention(q, k, v, causal=True), expected, atol=1e-5)


def test_the_future_is_not_seen() -> None:
    random = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 6, 2, 8, generator=random) for _ in range(3))
    before = plain_attention(q, k, v, causal=True)
    k[:, 4:], v[:, 4:] = 7.0, 7.0
    after = plain_attention(q, k, v, causal=True)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])
