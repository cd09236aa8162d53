"""Attention over the pages of a key-value cache in plain torch, and the pass that a thread is in.

What is here has the signatures of flash-attn's functions, so that ExLlamaV2 calls either
(:mod:`.paged_attention` chooses).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as functional

from el4ner.engines.exllama.passes import Pass

__all__ = [
    "CURRENT",
    "Attend",
    "HeadShape",
    "attending",
    "attention_with_cache",
    "pass_of",
    "plain_attention",
    "write",
]

Attend = Callable[..., torch.Tensor]
"""A function with the signature, and the contract, of ``flash_attn_with_kvcache``: :func:`attention_with_cache`."""


@dataclass(frozen=True, slots=True)
class HeadShape:
    """What a model asks of attention. ``softcap``: of the scores, 0: none; ``windows``: some layers see only so far."""

    heads: int
    kv_heads: int
    dim: int
    softcap: float = 0.0
    windows: bool = False


class _Current(threading.local):
    """Of the pass that this thread is in."""

    attend: Attend | None = None
    numbers: Pass | None = None


CURRENT: Final = _Current()


@contextmanager
def attending(attend: Attend, numbers: Pass) -> Iterator[None]:
    """In this thread the library's attention is ``attend``, for a pass with ``numbers``."""
    CURRENT.attend, CURRENT.numbers = attend, numbers
    try:
        yield
    finally:
        CURRENT.attend = CURRENT.numbers = None


def pass_of(q: torch.Tensor, k_cache: torch.Tensor, lengths: torch.Tensor, table: torch.Tensor, *, read: bool) -> Pass:
    """The numbers of the pass that this call belongs to. Outside of :func:`attending` they are made for this call
    alone, and the device is waited for.

    Args:
        q: ``[rows, width, heads, dim]``.
        k_cache: ``[pages, page, kv heads, dim]``.
        lengths: as ``cache_seqlens`` of :func:`attention_with_cache`.
        table: as its ``block_table``.
        read: the tokens of the pass are in the cache, and ``lengths`` counts them.
    """
    current = CURRENT.numbers
    if current is not None and table is current.table and lengths is (current.after if read else current.before):
        return current
    width = q.shape[1]
    before = lengths.cpu() - width if read else lengths.cpu()
    return Pass(table.cpu(), before, width, page=k_cache.shape[1], device=q.device)


def attention_with_cache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: torch.Tensor | None = None,
    v: torch.Tensor | None = None,
    *,
    cache_seqlens: torch.Tensor,
    block_table: torch.Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
) -> torch.Tensor:
    """As ``flash_attn_with_kvcache``, in plain torch: pages in use are gathered, and torch's scaled dot product picks a
    fused kernel where it has one for the mask.

    Args:
        q: ``[batch, queries, heads, dim]``, the last positions of each sequence.
        k_cache: ``[pages, page, kv heads, dim]``.
        v_cache: the same.
        k: ``[batch, queries, kv heads, dim]`` to put into the cache behind ``cache_seqlens``; None: it is there, and
            ``cache_seqlens`` counts it.
        v: the same.
        cache_seqlens: ``[batch]``, tokens of each sequence that are in the cache.
        block_table: ``[batch, blocks]``, its pages in order.
        softmax_scale: None: 1 / √dim.
        causal: a query sees the keys up to its own position.
        window_size: how many positions back a query sees, at most; -1: all.
        softcap: 0: none.

    Returns:
        ``[batch, queries, heads, dim]``, of the queries' number type, contiguous: the library takes a view of it.
    """
    numbers = pass_of(q, k_cache, cache_seqlens, block_table, read=k is None)
    if k is not None and v is not None:
        write(k_cache, numbers, k)
        write(v_cache, numbers, v)
    repeats = q.shape[2] // k_cache.shape[2]
    mask = numbers.mask(q.dtype, causal=causal, window=window_size[0], repeats=repeats)
    pages = numbers.pages()
    return _attend(q, k_cache[pages].flatten(1, 2), v_cache[pages].flatten(1, 2), mask, softmax_scale, softcap)


def write(cache: torch.Tensor, numbers: Pass, states: torch.Tensor) -> None:
    """Put ``states`` ``[rows, width, kv heads, dim]`` into the pages of ``cache``, where the pass writes."""
    cache.view(-1, *cache.shape[2:]).index_copy_(0, numbers.slots, states.reshape(-1, *states.shape[2:]))


def plain_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
) -> torch.Tensor:
    """As ``flash_attn_func``: queries ``[batch, queries, heads, dim]`` stand at the end of keys and values
    ``[batch, keys, kv heads, dim]``; the result has the queries' shape and number type, and is contiguous."""
    batch, queries, heads, _ = q.shape
    keys = k.shape[1]
    one_page = torch.zeros((batch, 1), dtype=torch.int32)
    before = torch.full((batch,), keys - queries, dtype=torch.int32)
    numbers = Pass(one_page, before, queries, page=keys, device=q.device)
    mask = numbers.mask(q.dtype, causal=causal, window=window_size[0], repeats=heads // k.shape[2])
    return _attend(q, k, v, mask, softmax_scale, softcap)


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float | None, softcap: float
) -> torch.Tensor:
    """Kernels return memory in orders of their own, and the library's modules may hand over views: nothing here takes a
    view of either, and the result is contiguous."""
    # The query heads of one key head become further queries: nothing is copied for each head, and the fused kernels
    # that take a mask but no grouped heads can be used.
    batch, queries, heads, dim = q.shape
    kv_heads = k.shape[2]
    group = heads // kv_heads
    grouped = q.reshape(batch, queries, kv_heads, group, dim).permute(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, dim)
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    if softcap:
        scores = (grouped @ k.transpose(-1, -2)).float() * (scale if scale is not None else dim**-0.5)
        scores = torch.tanh(scores / softcap) * softcap
        attended = (scores + mask).softmax(dim=-1).to(v.dtype) @ v
    else:
        attended = functional.scaled_dot_product_attention(grouped, k, v, attn_mask=mask, scale=scale)
    attended = attended.reshape(batch, kv_heads, group, queries, dim).permute(0, 3, 1, 2, 4)
    return attended.reshape(batch, queries, heads, dim).contiguous()
