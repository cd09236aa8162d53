"""How the rows of one forward pass attend: row by row, or one token of each row of a group.

:class:`RowsPlan` asks the device once or twice for every row and layer. That wastes no arithmetic and is right for a
processor. On a GPU each of these calls costs more than what it computes: there
:mod:`el4ner.engines.torch.joint_attention` attends all rows together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch.nn import functional
from typing_extensions import override

from el4ner.engines.packing import TokenTree

__all__ = ["AttentionPlan", "DecodingPlan", "PassSegment", "RowsPlan", "additive"]


@dataclass(slots=True)
class PassSegment:
    """What one row adds to a forward pass.

    ``group`` ``[layers, 2, rows, heads, capacity, head_dim]`` has key-value states of rows; this one's, at ``slot``,
    are ``past`` tokens and room for the new ones, which the pass writes behind them: first the chain, then the tree's
    nodes in their order. ``to_middle``: the tree is read as far as the middle layer; later layers' states of it stay
    unwritten.
    """

    group: torch.Tensor
    slot: int
    past: int
    chain: Sequence[int]
    tree: TokenTree = field(default_factory=TokenTree)
    to_middle: bool = False

    @property
    def new(self) -> int:
        """Tokens that the pass reads for this row."""
        return len(self.chain) + len(self.tree)

    @property
    def states(self) -> torch.Tensor:
        """The row's own states, ``[layers, 2, heads, capacity, head_dim]``."""
        return self.group[:, :, self.slot]


class AttentionPlan(Protocol):
    """How the rows of one pass attend; masks are built once and serve all layers."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
    ) -> torch.Tensor:
        """``query`` [1, heads, tokens, head_dim], over each row's own states; [1, tokens, heads, head_dim].

        ``key`` and ``value`` [1, key-value heads, tokens, head_dim] are the new tokens'; they are added to the states.
        """


class RowsPlan(AttentionPlan):
    """Segments: rows of any length, attended one by one.

    Args:
        segments: in the order of their tokens in the pass.
        dtype: of masks.
        device: of masks.
        windows: filled with every layer's attention window, if given.
    """

    def __init__(
        self,
        segments: Sequence[PassSegment],
        dtype: torch.dtype,
        device: torch.device,
        windows: dict[int, int | None] | None = None,
    ) -> None:
        self._segments = segments
        self._states = [segment.states for segment in segments]
        self._windows = windows
        self._dtype = dtype
        self._device = device
        self._masks: dict[tuple[int, bool, int | None], torch.Tensor] = {}

    @override
    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
    ) -> torch.Tensor:
        if self._windows is not None:
            self._windows[layer] = window
        _, heads, total, head_dim = query.shape
        kv_heads = key.shape[1]
        # Query heads that share a key-value head: a batch dimension of its own, so that keys are never repeated.
        grouped = query[0].view(kv_heads, heads // kv_heads, total, head_dim)
        out = query.new_empty(1, total, heads, head_dim)
        out_grouped = out[0].permute(1, 0, 2).view(kv_heads, heads // kv_heads, total, head_dim)
        start = 0
        for row, (segment, states) in enumerate(zip(self._segments, self._states, strict=True)):
            end = start + segment.new
            held = segment.past + segment.new
            keys, values = states[layer, 0], states[layer, 1]
            keys[:, segment.past : held] = key[0, :, start:end]
            values[:, segment.past : held] = value[0, :, start:end]
            split = start + len(segment.chain)
            for is_tree, first, last, seen in (
                (False, start, split, segment.past + len(segment.chain)),
                (True, split, end, held),
            ):
                if first == last:
                    continue
                low, mask, causal = self._mask(row, segment, is_tree, window)
                shape = (kv_heads, heads // kv_heads, seen - low, head_dim)
                out_grouped[:, :, first:last] = functional.scaled_dot_product_attention(
                    grouped[:, :, first:last],
                    keys[:, None, low:seen].expand(shape),
                    values[:, None, low:seen].expand(shape),
                    attn_mask=mask,
                    is_causal=causal,
                    scale=scaling,
                )
            start = end
        return out

    def _mask(
        self, row: int, segment: PassSegment, is_tree: bool, window: int | None
    ) -> tuple[int, torch.Tensor | None, bool]:
        """(first key that anyone sees, additive mask or None, whether plain causal does)."""
        length = len(segment.chain)
        base = segment.past + length
        if not is_tree:
            low = 0 if window is None else max(0, segment.past + 1 - window)
            if length == 1:
                return low, None, False
            if segment.past == 0 and (window is None or length <= window):
                return low, None, True
        else:
            low = 0 if window is None else max(0, base + 1 - window)
        name = (row, is_tree, window)
        mask = self._masks.get(name)
        if mask is None:
            mask = self._build(segment, is_tree, window, low)
            self._masks[name] = mask
        return low, mask, False

    def _build(self, segment: PassSegment, is_tree: bool, window: int | None, low: int) -> torch.Tensor:
        base = segment.past + len(segment.chain)
        if is_tree:
            ask = torch.tensor(segment.tree.depths) + (base - 1)
            seen = torch.cat([torch.arange(low, base), ask])
            visible = torch.ones(len(ask), len(seen), dtype=torch.bool)
            visible[:, base - low :] = torch.from_numpy(segment.tree.sees())
        else:
            ask = torch.arange(segment.past, base)
            seen = torch.arange(low, base)
            visible = seen[None, :] <= ask[:, None]
        if window is not None:
            visible &= seen[None, :] > ask[:, None] - window
        return additive(visible, self._dtype).to(self._device)[None, None]


class DecodingPlan(AttentionPlan):
    """One new token for each of the first rows of a group.

    Args:
        group: ``[layers, 2, rows, heads, capacity, head_dim]``.
        lengths: ``[rows that decode]``, int64 on the group's device: tokens of each row before this one.
        end: keys from here on are seen by nobody: more than the longest row's tokens.
        dtype: of masks.
        first: keys before this are within nobody's window: the shortest row's tokens.
    """

    def __init__(
        self, group: torch.Tensor, lengths: torch.Tensor, end: int, dtype: torch.dtype, *, first: int = 0
    ) -> None:
        self._group = group
        self._rows = torch.arange(len(lengths), device=group.device)
        self._lengths = lengths
        self._first = first
        self._end = end
        self._dtype = dtype
        self._masks: dict[int | None, tuple[int, torch.Tensor]] = {}

    @override
    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
    ) -> torch.Tensor:
        _, heads, rows, head_dim = query.shape
        kv_heads = key.shape[1]
        keys, values = self._group[layer, 0], self._group[layer, 1]
        keys[self._rows, :, self._lengths] = key[0].transpose(0, 1)
        values[self._rows, :, self._lengths] = value[0].transpose(0, 1)
        low, mask = self._mask(window)
        # The query heads of a key-value head all see the same: they stand where queries of one head stand otherwise.
        grouped = query[0].transpose(0, 1).reshape(rows, kv_heads, heads // kv_heads, head_dim)
        attended = functional.scaled_dot_product_attention(
            grouped, keys[:rows, :, low : self._end], values[:rows, :, low : self._end], attn_mask=mask, scale=scaling
        )
        return attended.reshape(1, rows, heads, head_dim)

    def _mask(self, window: int | None) -> tuple[int, torch.Tensor]:
        if window not in self._masks:
            low = 0 if window is None else max(0, self._first + 1 - window)
            seen = torch.arange(low, self._end, device=self._group.device)
            visible = seen[None, :] <= self._lengths[:, None]
            if window is not None:
                visible &= seen[None, :] > self._lengths[:, None] - window
            self._masks[window] = low, additive(visible, self._dtype)[:, None, None]
        return self._masks[window]


def additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where ``visible``, -inf elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, float("-inf"))
