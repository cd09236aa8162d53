"""Attention over pages by the kernel that torch brings: FlashAttention 2, for rows of different lengths.

It is what ``torch.nn.attention.varlen.varlen_attn`` calls. That function wraps it in an operation of its own, which
costs the host some 25 µs and a launch, for each layer; so the kernel is called as it is, with what ``varlen_attn``
gives it. Since torch 2.12 it takes a table of pages. Before, the keys of all rows are gathered row after row, without
padding, and without a mask.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

import torch

from el4ner.engines.exllama.pages import PAGE
from el4ner.engines.exllama.torch_attention import Attend, HeadShape, attention_with_cache, pass_of, write

__all__ = ["Varlen", "choose", "flash_forward"]

_LARGEST_HEAD: Final = 256
_APART: Final = 0.02
"""How far the kernel may be from plain torch, on normally distributed numbers in half precision."""


def flash_forward(*given: Any, **named: Any) -> torch.Tensor:
    """torch's kernel: queries, keys, values, where each row's queries and keys end, the most of each, dropout, causal,
    debugging; by name ``scale``, ``window_size_left``, ``window_size_right``, and with pages ``seqused_k`` and
    ``block_table``. The first of its results, ``[queries, heads, dim]``, in the kernel's own order of memory."""
    results: tuple[torch.Tensor, ...] = torch.ops.aten._flash_attention_forward(*given, **named)
    return results[0]


def takes_pages() -> bool:
    """Whether this torch's kernel has a table of pages among its arguments."""
    schema = torch.ops.aten._flash_attention_forward.default._schema
    return {"seqused_k", "block_table"} <= {argument.name for argument in schema.arguments}


def choose(shape: HeadShape, device: torch.device) -> Attend:
    """The kernel in the form that works here, tried on a few numbers: over pages, or over gathered keys.

    Raises:
        ImportError: it cannot do what the model needs, or does not work with this torch and GPU.
    """
    if shape.softcap:
        raise ImportError("torch's kernel cannot cap scores, as the model needs it")
    if shape.dim > _LARGEST_HEAD or shape.dim % 8:
        raise ImportError(f"torch's kernel takes heads of up to {_LARGEST_HEAD} numbers, in eights, not {shape.dim}")
    reasons = []
    for paged in (True, False) if takes_pages() else (False,):
        attend = Varlen(paged=paged)
        reason = _why_not(attend, shape, device)
        if reason is None:
            return attend
        reasons.append(reason)
    raise ImportError(f"torch {torch.__version__}'s kernel does not work here: {'; '.join(reasons)}")


class Varlen:
    """``flash_attn_with_kvcache`` by torch's kernel. ``paged``: it reads the pages itself."""

    def __init__(self, *, paged: bool) -> None:
        self.paged = paged

    def __call__(
        self,
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
        """As :func:`~.torch_attention.attention_with_cache`, without ``softcap``; always causal."""
        if softcap or not causal:
            raise ValueError("torch's kernel is used without softcap and with a causal mask alone")
        numbers = pass_of(q, k_cache, cache_seqlens, block_table, read=k is None)
        if k is not None and v is not None:
            write(k_cache, numbers, k)
            write(v_cache, numbers, v)
        more: dict[str, Any] = {}
        keys, values = k_cache, v_cache
        if self.paged:
            more = {"seqused_k": numbers.after, "block_table": numbers.table}
        else:
            slots = numbers.key_slots()
            keys = keys.view(-1, *keys.shape[2:]).index_select(0, slots)
            values = values.view(-1, *values.shape[2:]).index_select(0, slots)
        window = window_size[0]
        attended = flash_forward(
            q.reshape(-1, *q.shape[2:]),
            keys,
            values,
            numbers.query_ends,
            numbers.key_ends,
            numbers.width,
            numbers.longest,
            0.0,
            window < 0,  # a window to the left that ends at the query is causal by itself
            return_debug_mask=False,
            scale=softmax_scale,
            window_size_left=window,
            # -1 where the mask is causal anyway: only then, when one token of each row is read, does the kernel read a
            # key head once for all its query heads, and share long rows among multiprocessors.
            window_size_right=-1 if window < 0 else 0,
            **more,
        )
        return attended.reshape(q.shape).contiguous()


def _why_not(attend: Attend, shape: HeadShape, device: torch.device) -> str | None:
    """Rows behind a page and within one, on pages in no order, against plain torch: some tokens of each, and one, which
    the kernel reads in a way of its own."""
    random = torch.Generator().manual_seed(0)

    def tensor(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=random).to(device, torch.float16)

    cache = [tensor(5, PAGE, shape.kv_heads, shape.dim) for _ in range(2)]
    table = torch.tensor([[3, 1], [4, 0]], dtype=torch.int32, device=device)
    lengths = torch.tensor([PAGE + 44, 17], dtype=torch.int32, device=device)
    for width, window in itertools.product((5, 1), (-1, 64) if shape.windows else (-1,)):
        q = tensor(2, width, shape.heads, shape.dim)
        k, v = (tensor(2, width, shape.kv_heads, shape.dim) for _ in range(2))
        named: dict[str, Any] = {"cache_seqlens": lengths, "block_table": table, "causal": True}
        named["window_size"] = (window, window)
        expected = attention_with_cache(q, cache[0].clone(), cache[1].clone(), k, v, **named)
        try:
            apart = (attend(q, cache[0].clone(), cache[1].clone(), k, v, **named) - expected).abs().max().item()
        except (RuntimeError, TypeError) as error:  # what torch raises for a GPU or arguments that it does not take
            return (str(error) or type(error).__name__).splitlines()[0]
        if not apart <= _APART:
            return f"it is {apart:.3g} away from plain torch"
    return None
