"""Attention over a paged cache in plain torch, for where flash-attn is not installed.

ExLlamaV2 0.3.2 without flash-attn has no paged mode (one answer at a time, one remembered prompt), and its other way
reads prompts without a causal mask (``_attn_torch``). These functions have the signatures of flash-attn's own and take
their place in the library, so that there is one way through it, paged and masked, whether flash-attn is there or not.
torch's scaled dot product picks a fused kernel where it has one for the mask.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import torch
import torch.nn.functional as functional

__all__ = ["Attention", "attention_with_cache", "install", "plain_attention"]

Attention = Literal["flash", "torch"]
_ORIGINALS: Final[dict[str, Any]] = {}
_NAMES: Final = ("flash_attn_func", "flash_attn_with_kvcache")
_FLAGS: Final = (
    "has_flash_attn",
    "has_flash_attn_with_paged",
    "has_flash_attn_with_window",
    "has_flash_attn_with_softcap",
)


def install(kind: Attention) -> None:
    """Make ExLlamaV2, which has been imported, attend by flash-attn or by this module.

    Raises:
        ImportError: ``flash``, and flash-attn is not there or too old for pages.
    """
    import exllamav2.attn as library
    import exllamav2.model as model

    if not _ORIGINALS:
        _ORIGINALS.update({name: getattr(library, name, None) for name in (*_NAMES, *_FLAGS)})
    if kind == "flash":
        if not _ORIGINALS["has_flash_attn_with_paged"]:
            raise ImportError("flash-attn 2.5.7 or newer is not installed")
        chosen = dict(_ORIGINALS)
    else:
        chosen = dict.fromkeys(_FLAGS, True)
        chosen["flash_attn_func"] = plain_attention
        chosen["flash_attn_with_kvcache"] = attention_with_cache
    for name, value in chosen.items():
        setattr(library, name, value)
    model.has_flash_attn = chosen["has_flash_attn"]


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
    lengths = torch.full((q.shape[0],), k.shape[1], device=q.device, dtype=torch.int32)
    return _attend(q, k, v, lengths, softmax_scale, causal=causal, window=window_size[0], softcap=softcap)


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
    """As ``flash_attn_with_kvcache``.

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
    page = k_cache.shape[1]
    queries = q.shape[1]
    lengths = cache_seqlens
    if k is not None and v is not None:
        places = cache_seqlens.long()[:, None] + torch.arange(queries, device=q.device)
        pages = torch.gather(block_table.long(), 1, places // page)
        k_cache[pages, places % page] = k
        v_cache[pages, places % page] = v
        lengths = cache_seqlens + queries
    # Reading the longest length off the device waits for it, once a layer; the table's width is a bound that is known.
    table = block_table.long()
    keys = k_cache[table].flatten(1, 2)
    values = v_cache[table].flatten(1, 2)
    return _attend(q, keys, values, lengths, softmax_scale, causal=causal, window=window_size[0], softcap=softcap)


def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: torch.Tensor,
    scale: float | None,
    *,
    causal: bool,
    window: int,
    softcap: float,
) -> torch.Tensor:
    """Keys from ``lengths`` on are nobody's. Kernels return memory in orders of their own, and the library's modules
    may hand over views: nothing here takes a view of either, and the result is contiguous."""
    queries, keys = q.shape[1], k.shape[1]
    position = torch.arange(keys, device=q.device)
    own = lengths.long()[:, None] - queries + torch.arange(queries, device=q.device)  # [batch, queries]
    seen = position < lengths.long()[:, None, None]
    if causal:
        seen = seen & (position <= own[:, :, None])
    if window >= 0:
        seen = seen & (position >= own[:, :, None] - window)
    # The query heads of one key head become further queries: nothing is copied for each head, and the fused kernels
    # that take a mask but no grouped heads can be used.
    batch, _, heads, dim = q.shape
    kv_heads = k.shape[2]
    group = heads // kv_heads
    grouped = q.reshape(batch, queries, kv_heads, group, dim).permute(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, dim)
    mask = seen.expand(-1, queries, -1).repeat(1, group, 1)[:, None]
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    if softcap:
        weights = (grouped @ k.transpose(-1, -2)).float() * (scale if scale is not None else dim**-0.5)
        weights = torch.tanh(weights / softcap) * softcap
        found = weights.masked_fill(~mask, float("-inf")).softmax(dim=-1).to(v.dtype) @ v
    else:
        found = functional.scaled_dot_product_attention(grouped, k, v, attn_mask=mask, scale=scale)
    found = found.reshape(batch, kv_heads, group, queries, dim).permute(0, 3, 1, 2, 4)
    return found.reshape(batch, queries, heads, dim).contiguous()
