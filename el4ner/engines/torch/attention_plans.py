"""How the rows of one forward pass attend: row by row, or one token of each row of a group.

:class:`RowsPlan` asks the device once or twice for every row and layer. That wastes no arithmetic and is right for a
processor. On a GPU each of these calls costs more than what it computes: there
:mod:`el4ner.engines.torch.joint_attention` attends all rows together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import torch
from torch.nn import functional
from typing_extensions import override

from el4ner.engines.packing import TokenTree

__all__ = ["KEYS", "AttentionPlan", "DecodingPlan", "PassSegment", "RowsPlan", "additive"]

KEYS: Final = 64
"""Row by row in half precision on a processor, the first key and the end of the keys are multiples of this."""
QUERIES: Final = 32
"""So is the number of queries of this, unless it is smaller."""


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


@dataclass(frozen=True, slots=True)
class _Attending:
    """What one call attends: the queries ``first`` to ``last`` of the pass, which are a row's chain or its tree, to the
    row's keys ``low`` to ``end``. The call takes queries up to ``wide``; what it says of the last ones is not used."""

    row: int
    first: int
    last: int
    wide: int
    low: int
    end: int
    mask: torch.Tensor | None
    causal: bool


class RowsPlan(AttentionPlan):
    """Segments: rows of any length, attended one by one.

    On a processor, torch makes a kernel for each number of queries and of keys in half precision, and keeps it for ever
    (a quarter of a megabyte for each thread). So there numbers are rounded up: what is too much is masked, or not used.
    Rounded up, calls are faster, too: 0.6 to 0.75 times the time for rows of 20 to 130 queries (measured, AMX).

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
        self._rounds = device.type == "cpu" and dtype.itemsize == 2
        self._calls: dict[int | None, list[_Attending]] = {}
        for segment, states in zip(segments, self._states, strict=True):
            held = segment.past + segment.new
            states[:, :, :, held : self._end(segment, held)] = 0  # masked, so they must not be NaN

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
        for segment, states in zip(self._segments, self._states, strict=True):
            held, end = segment.past + segment.new, start + segment.new
            states[layer, 0, :, segment.past : held] = key[0, :, start:end]
            states[layer, 1, :, segment.past : held] = value[0, :, start:end]
            start = end
        if window not in self._calls:
            self._calls[window] = list(self._all_calls(window))
        for call in self._calls[window]:
            keys, values = self._states[call.row][layer, :, :, None, call.low : call.end]
            shape = (kv_heads, heads // kv_heads, call.end - call.low, head_dim)
            queries = grouped[:, :, call.first : call.wide]
            if call.wide > total:
                queries = functional.pad(queries, (0, 0, 0, call.wide - total))
            attended = functional.scaled_dot_product_attention(
                queries,
                keys.expand(shape),
                values.expand(shape),
                attn_mask=call.mask,
                is_causal=call.causal,
                scale=scaling,
            )
            out_grouped[:, :, call.first : call.last] = attended[:, :, : call.last - call.first]
        return out

    def _all_calls(self, window: int | None) -> Iterator[_Attending]:
        start = 0
        for row, segment in enumerate(self._segments):
            split, end = start + len(segment.chain), start + segment.new
            if segment.chain:
                yield self._chain(row, segment, start, window)
            if split < end:
                yield self._tree(row, segment, split, window)
            start = end

    def _chain(self, row: int, segment: PassSegment, first: int, window: int | None) -> _Attending:
        length = len(segment.chain)
        seen, last = segment.past + length, first + length
        low = 0 if window is None else max(0, segment.past + 1 - window)
        if length == 1:
            return _Attending(row, first, last, last, low, seen, None, causal=False)
        wide, low, end = self._rounded(segment, first, last, low, seen)
        if segment.past == 0 and (window is None or length <= window):  # plain causal does, if both end alike
            end = wide - first if self._rounds else seen
            if end <= segment.states.shape[3]:
                return _Attending(row, first, last, wide, 0, end, None, causal=True)
            return _Attending(row, first, last, last, 0, seen, None, causal=True)
        ask, keys = torch.arange(segment.past, seen), torch.arange(low, end)
        visible = keys[None, :] <= ask[:, None]
        return _Attending(row, first, last, wide, low, end, self._mask(visible, ask, keys, wide - first, window), False)

    def _tree(self, row: int, segment: PassSegment, first: int, window: int | None) -> _Attending:
        base, last = segment.past + len(segment.chain), first + len(segment.tree)
        low = 0 if window is None else max(0, base + 1 - window)
        held = base + len(segment.tree)
        wide, low, end = self._rounded(segment, first, last, low, held)
        ask = torch.tensor(segment.tree.depths) + (base - 1)
        beyond = torch.full((end - held,), -1)
        keys = torch.cat([torch.arange(low, base), ask, beyond])
        visible = torch.zeros(len(ask), len(keys), dtype=torch.bool)
        visible[:, : base - low] = True
        visible[:, base - low : held - low] = torch.from_numpy(segment.tree.sees())
        return _Attending(row, first, last, wide, low, end, self._mask(visible, ask, keys, wide - first, window), False)

    def _rounded(self, segment: PassSegment, first: int, last: int, low: int, seen: int) -> tuple[int, int, int]:
        """(end of the queries, first and end of the keys): as they are, or so that few sizes come about."""
        if not self._rounds or last - first <= QUERIES:
            return last, low, seen
        return first + -(-(last - first) // QUERIES) * QUERIES, low // KEYS * KEYS, self._end(segment, seen)

    def _end(self, segment: PassSegment, seen: int) -> int:
        """Where keys end, as far as there is room: what a row has is rounded up as well."""
        return min(-(-seen // KEYS) * KEYS, segment.states.shape[3]) if self._rounds else seen

    def _mask(
        self, visible: torch.Tensor, ask: torch.Tensor, keys: torch.Tensor, rows: int, window: int | None
    ) -> torch.Tensor:
        """``visible`` ``[queries, keys]``, of which a query at ``ask`` sees those within the window; additive, with
        ``rows`` rows, the last of which see everything."""
        if window is not None:
            visible &= keys[None, :] > ask[:, None] - window
        visible = functional.pad(visible, (0, 0, 0, rows - len(visible)), value=True)
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
