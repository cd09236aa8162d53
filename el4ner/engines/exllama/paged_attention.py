"""What attends over the pages of ExLlamaV2's cache: flash-attn, torch's own kernel, or plain torch.

ExLlamaV2 0.3.2 without flash-attn has no paged mode (one answer at a time, one remembered prompt), and its other way
reads prompts without a causal mask (``_attn_torch``). A function here takes flash-attn's place in it, so that there is
one way through the library, paged and masked. It looks up what attends for the model whose pass it is: models of one
process may differ, and each is called by a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
import torch.nn.functional as functional

from el4ner.engines.exllama.passes import Pass

__all__ = ["Attend", "Attention", "Shape", "attending", "attention_with_cache", "choose", "pass_of", "plain_attention"]

Attention = Literal["flash", "varlen", "torch"]
Attend = Callable[..., torch.Tensor]
"""A function with the signature, and the contract, of ``flash_attn_with_kvcache``: :func:`attention_with_cache`."""


@dataclass(frozen=True, slots=True)
class Shape:
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


_FLAGS: Final = (
    "has_flash_attn",
    "has_flash_attn_with_paged",
    "has_flash_attn_with_window",
    "has_flash_attn_with_softcap",
)
_ORIGINALS: Final[dict[str, Any]] = {}
_CURRENT: Final = _Current()


def choose(kind: Attention, shape: Shape, device: torch.device) -> Attend:
    """What attends, for a model of ExLlamaV2, which has been imported. From now on the library asks :func:`attending`.

    Raises:
        ImportError: this kind is not there, or cannot do what the model needs; in one line, why.
    """
    import exllamav2.attn as library
    import exllamav2.model as model

    if not _ORIGINALS:
        names = ("flash_attn_func", "flash_attn_with_kvcache", *_FLAGS)
        _ORIGINALS.update({name: getattr(library, name, None) for name in names})
        for name in _FLAGS:
            setattr(library, name, True)
        library.flash_attn_with_kvcache = _attend_for_this_pass
        library.flash_attn_func = _ORIGINALS["flash_attn_func"] or plain_attention
        model.has_flash_attn = True
    if kind == "flash":
        return _flash(shape)
    if kind == "varlen":
        from el4ner.engines.exllama import varlen

        return varlen.choose(shape, device)
    return attention_with_cache


def _flash(shape: Shape) -> Attend:
    """The library only warns where flash-attn would leave out what a model needs."""
    if not _ORIGINALS["has_flash_attn_with_paged"]:
        raise ImportError("flash-attn 2.5.7 or newer is not installed")
    if shape.softcap and not _ORIGINALS["has_flash_attn_with_softcap"]:
        raise ImportError("this flash-attn cannot cap scores, as the model needs it")
    if shape.windows and not _ORIGINALS["has_flash_attn_with_window"]:
        raise ImportError("this flash-attn has no windows, as the model needs them")
    attend: Attend = _ORIGINALS["flash_attn_with_kvcache"]
    return attend


@contextmanager
def attending(attend: Attend, numbers: Pass) -> Iterator[None]:
    """In this thread the library's attention is ``attend``, for a pass with ``numbers``."""
    _CURRENT.attend, _CURRENT.numbers = attend, numbers
    try:
        yield
    finally:
        _CURRENT.attend = _CURRENT.numbers = None


def _attend_for_this_pass(*given: Any, **named: Any) -> torch.Tensor:
    return (_CURRENT.attend or attention_with_cache)(*given, **named)


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
    current = _CURRENT.numbers
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
