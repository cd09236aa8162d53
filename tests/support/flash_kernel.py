"""A stand-in for torch's FlashAttention kernel, which exists on GPUs alone: its contract to the letter, slowly.

What the kernel does not take it refuses, and what it returns lies in an order of memory of its own.
"""

from __future__ import annotations

from typing import Any

import torch

from el4ner.engines.exllama import varlen

PAGE = 256


def install(patch: Any, *, pages: bool = True, dtypes: tuple[torch.dtype, ...] = (torch.float16,)) -> None:
    """``pages``: the kernel knows tables of pages, as since torch 2.12. ``dtypes``: what it computes in; the real one
    takes half precision alone. ``patch``: pytest's monkeypatch."""

    def forward(*given: Any, **named: Any) -> torch.Tensor:
        return flash_forward(*given, pages=pages, dtypes=dtypes, **named)

    patch.setattr(varlen, "flash_forward", forward)
    patch.setattr(varlen, "takes_pages", lambda: pages)


def flash_forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cum_seq_q: torch.Tensor,
    cum_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    *,
    return_debug_mask: bool,
    scale: float | None = None,
    window_size_left: int = -1,
    window_size_right: int = -1,
    seqused_k: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    pages: bool = True,
    dtypes: tuple[torch.dtype, ...] = (torch.float16,),
) -> torch.Tensor:
    """``torch.ops.aten._flash_attention_forward`` for rows of different lengths: its first result."""
    if query.dtype not in dtypes or not query.dtype == key.dtype == value.dtype:
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
    if query.dim() != 3:
        raise RuntimeError("q must have shape (total_q, num_heads, head_size)")
    heads, dim = query.shape[1:]
    kv_heads = key.shape[-2]
    if dim > 256 or dim % 8 or heads % kv_heads:
        raise RuntimeError("FlashAttention forward only supports head dimension at most 256")
    for states in (query, key, value):
        if states.stride(-1) != 1:
            raise RuntimeError("Input tensor must have contiguous last dimension")
    rows = len(cum_seq_q) - 1
    for numbers, length in ((cum_seq_q, rows + 1), (cum_seq_k, rows + 1), (seqused_k, rows)):
        if numbers is not None and (
            numbers.dtype != torch.int32 or numbers.shape != (length,) or not numbers.is_contiguous()
        ):
            raise RuntimeError("cu_seqlens_q, cu_seqlens_k and seqused_k must be contiguous, int32, (batch_size + 1)")
    if block_table is not None:
        if not pages:
            raise TypeError("_flash_attention_forward() got an unexpected keyword argument 'block_table'")
        if key.dim() != 4 or key.shape[1] % PAGE or key.shape != value.shape or seqused_k is None:
            raise RuntimeError("Paged KV cache block size must be divisible by 256")
        if block_table.dtype != torch.int32 or block_table.dim() != 2 or block_table.stride(-1) != 1:
            raise RuntimeError("block_table must have dtype torch.int32")
        if len(block_table) != rows:
            raise RuntimeError("block_table must have shape (batch_size, max_num_blocks_per_seq)")
    elif key.dim() != 3:
        raise RuntimeError("k must have shape (total_k, num_heads_k, head_size)")
    if dropout_p or return_debug_mask:
        raise RuntimeError("dropout and its mask are for training")
    begins, key_begins = cum_seq_q.tolist(), cum_seq_k.tolist()
    out = torch.empty(heads, query.shape[0], dim, dtype=query.dtype)  # heads first: no order that a view may rely on
    for row in range(rows):
        mine = query[begins[row] : begins[row + 1]]
        if block_table is not None and seqused_k is not None:
            used = int(seqused_k[row])
            table = block_table[row, : -(-used // key.shape[1])].long()
            keys, values = (states[table].flatten(0, 1)[:used] for states in (key, value))
        else:
            keys, values = (states[key_begins[row] : key_begins[row + 1]] for states in (key, value))
        if len(mine) > max_q or len(keys) > max_k:
            raise RuntimeError("max_q and max_k are the most of any row")
        own = len(keys) - len(mine) + torch.arange(len(mine))[:, None]  # queries stand at the keys' end
        place = torch.arange(len(keys))
        seen = torch.ones(len(mine), len(keys), dtype=torch.bool)
        right = 0 if is_causal else window_size_right
        if right >= 0:
            seen &= place <= own + right
        if window_size_left >= 0:
            seen &= place >= own - window_size_left
        group = heads // kv_heads
        scores = torch.einsum("qhd,khd->hqk", mine.float(), keys.float().repeat_interleave(group, 1))
        scores = scores * (dim**-0.5 if scale is None else scale)
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        attended = torch.einsum("hqk,khd->hqd", weights, values.float().repeat_interleave(group, 1))
        out[:, begins[row] : begins[row + 1]] = attended.to(query.dtype)
    return out.transpose(0, 1)
