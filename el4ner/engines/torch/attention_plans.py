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
from el4ner.engines.torch.past_states import PastStates, total

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

    ``behind``: where rows attend one by one, the first of the ``past`` tokens may stand elsewhere, in memory that many
    rows share. ``group`` then has what stands behind them and room for the chain; nothing is kept of the tree.
    """

    group: torch.Tensor
    slot: int
    past: int
    chain: Sequence[int]
    tree: TokenTree = field(default_factory=TokenTree)
    to_middle: bool = False
    behind: tuple[PastStates, ...] = ()

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

    first: int
    last: int
    wide: int
    low: int
    end: int
    mask: torch.Tensor | None
    causal: bool


@dataclass(frozen=True, slots=True)
class _PlannedRow:
    """A segment, its first token's place in the pass, the tokens that it has room for, and those that are in its group.

    ``copied``: the parts of what it stands behind that are to be copied to the desk for it, each from which of its
    tokens on, and where the part begins.
    """

    segment: PassSegment
    start: int
    capacity: int
    own: int
    copied: Sequence[tuple[PastStates, int, int]]


class RowsPlan(AttentionPlan):
    """Segments: rows of any length, attended one by one.

    A row that stands ``behind`` shared states is attended on a *desk*, room for one layer's keys and values of one row:
    what it has in common with the row before is there already, its own states come behind that. So a beginning that
    fifty rows share is copied once in each layer, to memory that stays in the processor's cache.

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
        self._windows = windows
        self._dtype = dtype
        self._device = device
        self._rounds = device.type == "cpu" and dtype.itemsize == 2
        self._calls: dict[int | None, list[list[_Attending]]] = {}
        self._desk = self._new_desk(segments)
        self._rows = list(self._arranged(segments))
        for segment in segments:
            if not segment.behind:
                held = segment.past + segment.new
                end = self._end(held, segment.group.shape[4])
                segment.states[:, :, :, held:end] = 0  # masked, so they must not be NaN

    def _new_desk(self, segments: Sequence[PassSegment]) -> torch.Tensor | None:
        """``[2, heads, capacity, head_dim]``, if a row needs it."""
        there = [segment for segment in segments if segment.behind]
        if not there:
            return None
        capacity = -(-max(segment.past + segment.new for segment in there) // KEYS) * KEYS
        _, _, _, heads, _, head_dim = there[0].group.shape
        return there[0].group.new_zeros(2, heads, capacity, head_dim)

    def _arranged(self, segments: Sequence[PassSegment]) -> Iterator[_PlannedRow]:
        start = 0
        on_desk: tuple[PastStates, ...] = ()
        for segment in segments:
            capacity, own = segment.group.shape[4], segment.past
            copied: list[tuple[PastStates, int, int]] = []
            if segment.behind:
                assert self._desk is not None
                capacity, own = self._desk.shape[2], segment.past - total(segment.behind)
                at, alike = 0, True
                for place, part in enumerate((*segment.behind, PastStates(segment.states, own))):
                    before = on_desk[place] if alike and place < len(on_desk) else _NOTHING
                    there = before.tokens if before.states is part.states else 0
                    if part.tokens > there:
                        copied.append((part, there, at))
                    alike = there == part.tokens
                    at += part.tokens
                on_desk = segment.behind
            yield _PlannedRow(segment, start, capacity, own, copied)
            start += segment.new

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
        _, heads, tokens, head_dim = query.shape
        kv_heads = key.shape[1]
        # Query heads that share a key-value head: a batch dimension of its own, so that keys are never repeated.
        grouped = query[0].view(kv_heads, heads // kv_heads, tokens, head_dim)
        out = query.new_empty(1, tokens, heads, head_dim)
        out_grouped = out[0].permute(1, 0, 2).view(kv_heads, heads // kv_heads, tokens, head_dim)
        if window not in self._calls:
            self._calls[window] = [list(self._calls_of(row, window)) for row in self._rows]
        for row, calls in zip(self._rows, self._calls[window], strict=True):
            states = self._written(row, layer, key[0], value[0])
            for call in calls:
                keys, values = states[:, :, None, call.low : call.end]
                shape = (kv_heads, heads // kv_heads, call.end - call.low, head_dim)
                queries = grouped[:, :, call.first : call.wide]
                if call.wide > tokens:
                    queries = functional.pad(queries, (0, 0, 0, call.wide - tokens))
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

    def _written(self, row: _PlannedRow, layer: int, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """The layer's states of a row, ``[2, heads, capacity, head_dim]``, with its new ones."""
        segment, start = row.segment, row.start
        past, end, chain = segment.past, start + segment.new, len(segment.chain)
        states = segment.states[layer]
        if segment.behind:
            assert self._desk is not None
            states[0, :, row.own : row.own + chain] = key[:, start : start + chain]
            states[1, :, row.own : row.own + chain] = value[:, start : start + chain]
            for part, first, at in row.copied:
                self._desk[:, :, at + first : at + part.tokens] = part.states[layer, :, :, first : part.tokens]
            states = self._desk
            held = past + segment.new
            states[:, :, held : self._end(held, row.capacity)] = 0  # the row's before; masked, so they must not be NaN
        states[0, :, past : past + segment.new] = key[:, start:end]
        states[1, :, past : past + segment.new] = value[:, start:end]
        return states

    def _calls_of(self, row: _PlannedRow, window: int | None) -> Iterator[_Attending]:
        if row.segment.chain:
            yield self._chain(row, window)
        if len(row.segment.tree):
            yield self._tree(row, window)

    def _chain(self, row: _PlannedRow, window: int | None) -> _Attending:
        segment, first = row.segment, row.start
        length = len(segment.chain)
        seen, last = segment.past + length, first + length
        low = 0 if window is None else max(0, segment.past + 1 - window)
        if length == 1:
            return _Attending(first, last, last, low, seen, None, causal=False)
        wide, low, end = self._rounded(row, first, last, low, seen)
        if segment.past == 0 and (window is None or length <= window):  # plain causal does, if both end alike
            end = wide - first if self._rounds else seen
            if end <= row.capacity:
                return _Attending(first, last, wide, 0, end, None, causal=True)
            return _Attending(first, last, last, 0, seen, None, causal=True)
        ask, keys = torch.arange(segment.past, seen), torch.arange(low, end)
        visible = keys[None, :] <= ask[:, None]
        return _Attending(first, last, wide, low, end, self._mask(visible, ask, keys, wide - first, window), False)

    def _tree(self, row: _PlannedRow, window: int | None) -> _Attending:
        segment, first = row.segment, row.start + len(row.segment.chain)
        base, last = segment.past + len(segment.chain), first + len(segment.tree)
        low = 0 if window is None else max(0, base + 1 - window)
        held = base + len(segment.tree)
        wide, low, end = self._rounded(row, first, last, low, held)
        ask = torch.tensor(segment.tree.depths) + (base - 1)
        beyond = torch.full((end - held,), -1)
        keys = torch.cat([torch.arange(low, base), ask, beyond])
        visible = torch.zeros(len(ask), len(keys), dtype=torch.bool)
        visible[:, : base - low] = True
        visible[:, base - low : held - low] = torch.from_numpy(segment.tree.sees())
        return _Attending(first, last, wide, low, end, self._mask(visible, ask, keys, wide - first, window), False)

    def _rounded(self, row: _PlannedRow, first: int, last: int, low: int, seen: int) -> tuple[int, int, int]:
        """(end of the queries, first and end of the keys): as they are, or so that few sizes come about."""
        if not self._rounds or last - first <= QUERIES:
            return last, low, seen
        return first + -(-(last - first) // QUERIES) * QUERIES, low // KEYS * KEYS, self._end(seen, row.capacity)

    def _end(self, seen: int, capacity: int) -> int:
        """Where keys end, as far as there is room: what a row has is rounded up as well."""
        return min(-(-seen // KEYS) * KEYS, capacity) if self._rounds else seen

    def _mask(
        self, visible: torch.Tensor, ask: torch.Tensor, keys: torch.Tensor, rows: int, window: int | None
    ) -> torch.Tensor:
        """``visible`` ``[queries, keys]``, of which a query at ``ask`` sees those within the window; additive, with
        ``rows`` rows, the last of which see everything."""
        if window is not None:
            visible &= keys[None, :] > ask[:, None] - window
        visible = functional.pad(visible, (0, 0, 0, rows - len(visible)), value=True)
        return additive(visible, self._dtype).to(self._device)[None, None]


_NOTHING: Final = PastStates(torch.empty(0), 0)


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
