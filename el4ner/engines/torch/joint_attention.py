"""Attention of all rows of a pass together: as many calls a layer for fifty rows as for one.

Row by row a pass over fifty prompts asks a GPU for some hundred small attentions in every layer, and the host takes
longer to ask than the card to answer. Here the queries of rows of like length are padded into one tensor and attended
by one call. Masks and indices are made on the device, once a pass; nothing inside a layer waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch.nn import functional
from typing_extensions import override

from el4ner.engines.device_copies import upload
from el4ner.engines.torch.attention_plans import AttentionPlan, PassSegment, additive

__all__ = ["JointPlan"]

_KEYS: Final = 16
"""The number of keys is a multiple of this: else torch pads the mask anew in every layer."""
_QUERIES: Final = 1024
"""The most queries of one row in a call that needs a mask."""
_MASK: Final = 1 << 27
"""The most numbers in one call's mask: 256 MB in half precision."""
_WASTE: Final = 1.25
"""Padded queries in a call, at most, for each one that is asked, and ``_FREE`` more."""
_FREE: Final = 256


@dataclass(frozen=True, slots=True)
class _Run:
    """Queries of one row that stand side by side in the pass: a piece of its chain, or its tree.

    ``token``: the first query's place in the pass; ``seen``: keys of the row up to the last query; ``position`` of the
    first query (of a chain).
    """

    segment: PassSegment
    is_tree: bool
    token: int
    length: int
    position: int
    seen: int


@dataclass(slots=True)
class _AttentionCall:
    """Runs that are attended by one call, each padded at its end to ``width`` queries.

    ``queries`` ``[rows · width]``: the token of each padded place. ``mask`` makes the additive mask
    ``[rows, width, keys]`` for a window. ``causal``: as long as no window cuts a row, none is needed.
    """

    group: torch.Tensor
    slots: slice | torch.Tensor
    rows: int
    width: int
    keys: int
    queries: torch.Tensor
    causal: bool
    mask: Callable[[int | None], torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Write:
    """Where the new tokens of one group's rows go: ``tokens`` of the pass, None: all, to ``places`` of ``slots``."""

    group: torch.Tensor
    tokens: torch.Tensor | None
    slots: torch.Tensor
    places: torch.Tensor


class JointPlan(AttentionPlan):
    """See :class:`el4ner.engines.torch.attention_plans.AttentionPlan`.

    Args:
        segments: in the order of their tokens in the pass; every number in their groups is finite.
        kv_heads: of the model.
        dtype: of masks.
        windows: filled with every layer's attention window, if given.
    """

    def __init__(
        self,
        segments: Sequence[PassSegment],
        kv_heads: int,
        dtype: torch.dtype,
        windows: dict[int, int | None] | None = None,
    ) -> None:
        self._kv_heads = kv_heads
        self._dtype = dtype
        self._windows = windows
        self._device = segments[0].group.device
        self._masks: dict[tuple[int, int | None], torch.Tensor] = {}
        arrays: list[np.ndarray] = []
        makers: list[Callable[[list[torch.Tensor]], None]] = []
        self._writes: list[_Write] = []
        self._calls: list[_AttentionCall] = []
        total = sum(segment.new for segment in segments)
        place_of_token = np.zeros(total, dtype=np.int64)
        padded = 0
        for members in _by_group(segments):
            self._plan_write(members, total, arrays, makers)
            for runs in self._calls_of(members):
                width = max(run.length for run in runs)
                for row, run in enumerate(runs):
                    begin = padded + row * width
                    place_of_token[run.token : run.token + run.length] = np.arange(begin, begin + run.length)
                padded += len(runs) * width
                self._plan_call(runs, width, arrays, makers)
        arrays.append(place_of_token)
        tensors = upload(arrays, self._device)
        for make in makers:
            make(tensors)
        self._place_of_token = tensors[-1]

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
        _, heads, _, head_dim = query.shape
        kv_heads = key.shape[1]
        for write in self._writes:
            for states, new in ((write.group[layer, 0], key[0]), (write.group[layer, 1], value[0])):
                rows = new.transpose(0, 1)
                states[write.slots, :, write.places] = rows if write.tokens is None else rows[write.tokens]
        attended = []
        for number, call in enumerate(self._calls):
            causal = call.causal and (window is None or call.width <= window)
            # FlashAttention takes a causal mask only over as many keys as queries, and nobody sees more.
            end = call.width if causal else call.keys
            # A row's key-value head is a batch dimension, the query heads that share it are its heads: keys are read
            # where they are, whichever kernel torch chooses, and never repeated.
            queries = query[0].index_select(1, call.queries).view(kv_heads, -1, call.rows, call.width, head_dim)
            queries = queries.permute(2, 0, 1, 3, 4).reshape(call.rows * kv_heads, -1, call.width, head_dim)
            keys, values = (
                states[call.slots, :, :end].flatten(0, 1)[:, None].expand(-1, heads // kv_heads, -1, -1)
                for states in (call.group[layer, 0], call.group[layer, 1])
            )
            result = functional.scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=None if causal else self._mask(number, call, window),
                is_causal=causal,
                scale=scaling,
            )
            result = result.reshape(call.rows, heads, call.width, head_dim).transpose(1, 2)
            attended.append(result.reshape(-1, heads, head_dim))
        together = attended[0] if len(attended) == 1 else torch.cat(attended)
        return together.index_select(0, self._place_of_token)[None]

    def _mask(self, number: int, call: _AttentionCall, window: int | None) -> torch.Tensor:
        """``[rows · key-value heads, 1, width, keys]``."""
        name = (number, window)
        mask = self._masks.get(name)
        if mask is None:
            mask = call.mask(window).repeat_interleave(self._kv_heads, dim=0)[:, None]
            self._masks[name] = mask
        return mask

    def _plan_write(
        self,
        members: Sequence[tuple[int, PassSegment]],
        total: int,
        arrays: list[np.ndarray],
        makers: list[Callable[[list[torch.Tensor]], None]],
    ) -> None:
        tokens = np.concatenate([np.arange(start, start + segment.new) for start, segment in members])
        slots = np.repeat([segment.slot for _, segment in members], [segment.new for _, segment in members])
        places = np.concatenate([np.arange(segment.past, segment.past + segment.new) for _, segment in members])
        at = len(arrays)
        arrays += [slots, places] if len(tokens) == total else [slots, places, tokens]
        group = members[0][1].group

        def make(tensors: list[torch.Tensor]) -> None:
            given = None if len(tokens) == total else tensors[at + 2]
            self._writes.append(_Write(group, given, tensors[at], tensors[at + 1]))

        makers.append(make)

    def _calls_of(self, members: Sequence[tuple[int, PassSegment]]) -> Iterable[list[_Run]]:
        """Runs of like length, side by side."""
        for is_tree in (False, True):
            runs = [run for start, segment in members for run in _runs(start, segment, is_tree=is_tree)]
            runs.sort(key=lambda run: (run.position > 0, -run.length))
            call: list[_Run] = []
            asked = seen = 0
            for run in runs:
                asked, seen = asked + run.length, max(seen, run.seen)
                if call and not self._joins(call, run, asked, seen):
                    yield call
                    call, asked, seen = [], run.length, run.seen
                call.append(run)
            if call:
                yield call

    def _joins(self, call: Sequence[_Run], run: _Run, asked: int, seen: int) -> bool:
        """Whether ``run`` may be attended with ``call``; together they have ``asked`` queries and see ``seen`` keys."""
        if not run.is_tree and (call[0].position > 0) != (run.position > 0):
            return False  # one of them needs a mask, the other does not
        padded = (len(call) + 1) * call[0].length
        return padded <= _WASTE * asked + _FREE and padded * _rounded(seen) * self._kv_heads <= _MASK

    def _plan_call(
        self,
        runs: Sequence[_Run],
        width: int,
        arrays: list[np.ndarray],
        makers: list[Callable[[list[torch.Tensor]], None]],
    ) -> None:
        group = runs[0].segment.group
        keys = min(_rounded(max(run.seen for run in runs)), group.shape[4])
        slots = [run.segment.slot for run in runs]
        side_by_side = slots == list(range(slots[0], slots[0] + len(slots)))
        queries = np.stack([run.token + np.minimum(np.arange(width), run.length - 1) for run in runs])
        at = len(arrays)
        arrays += [queries, np.asarray([] if side_by_side else slots, dtype=np.int64)]
        mask_arrays = _tree_arrays(runs, width) if runs[0].is_tree else [np.asarray([run.position for run in runs])]
        mask_at = len(arrays)
        arrays += mask_arrays

        def make(tensors: list[torch.Tensor]) -> None:
            mask_tensors = tensors[mask_at : mask_at + len(mask_arrays)]
            build = _tree_mask if runs[0].is_tree else _chain_mask

            def mask(window: int | None) -> torch.Tensor:
                return additive(build(mask_tensors, len(runs), width, keys, window), self._dtype)

            self._calls.append(
                _AttentionCall(
                    group=group,
                    slots=slice(slots[0], slots[0] + len(slots)) if side_by_side else tensors[at + 1],
                    rows=len(runs),
                    width=width,
                    keys=keys,
                    queries=tensors[at],
                    causal=not runs[0].is_tree and all(run.position == 0 for run in runs),
                    mask=mask,
                )
            )

        makers.append(make)


def _by_group(segments: Sequence[PassSegment]) -> Iterable[list[tuple[int, PassSegment]]]:
    """(the first token's place in the pass, segment) of the rows of each group."""
    groups: dict[int, list[tuple[int, PassSegment]]] = {}
    start = 0
    for segment in segments:
        groups.setdefault(id(segment.group), []).append((start, segment))
        start += segment.new
    return groups.values()


def _runs(start: int, segment: PassSegment, *, is_tree: bool) -> Iterable[_Run]:
    length, past = len(segment.chain), segment.past
    if is_tree:
        if len(segment.tree):
            yield _Run(segment, True, start + length, len(segment.tree), past + length, past + segment.new)
        return
    piece = length if past == 0 else _QUERIES
    for first in range(0, length, piece):
        count = min(piece, length - first)
        yield _Run(segment, False, start + first, count, past + first, past + first + count)


def _rounded(keys: int) -> int:
    return -(-keys // _KEYS) * _KEYS


def _chain_mask(mask_tensors: list[torch.Tensor], rows: int, width: int, keys: int, window: int | None) -> torch.Tensor:
    """``[rows, width, keys]``: a query sees the keys up to its own position."""
    (positions,) = mask_tensors
    device = positions.device
    query = positions[:, None, None] + torch.arange(width, device=device)[None, :, None]
    key = torch.arange(keys, device=device)
    visible = key <= query
    if window is not None:
        visible &= key > query - window
    return visible


def _tree_arrays(runs: Sequence[_Run], width: int) -> list[np.ndarray]:
    """Tokens before each tree; depths ``[rows · width]``, 0 for padding; nodes of each; (row, node, ancestor) as
    places in ``[rows, width, width]``."""
    depths = np.zeros((len(runs), width), dtype=np.int64)
    related = []
    for row, run in enumerate(runs):
        tree = run.segment.tree
        depths[row, : len(tree)] = tree.depths
        nodes, ancestors = tree.related()
        related.append((row * width + nodes) * width + ancestors)
    return [
        np.asarray([run.position for run in runs]),
        depths,
        np.asarray([run.length for run in runs]),
        np.concatenate(related),
    ]


def _tree_mask(mask_tensors: list[torch.Tensor], rows: int, width: int, keys: int, window: int | None) -> torch.Tensor:
    """``[rows, width, keys]``: a node sees the keys before the tree, its ancestors and itself."""
    before, depths, nodes, related = mask_tensors
    depths = depths.view(rows, width)
    sees = torch.zeros(rows * width * width, dtype=torch.bool, device=before.device)
    sees.index_fill_(0, related, True)
    key = torch.arange(keys, device=before.device)
    node = key - before[:, None]  # [rows, keys]
    is_node = (node >= 0) & (node < nodes[:, None])
    node = node.clamp(0, width - 1)
    of_tree = sees.view(rows, width, width).gather(2, node[:, None].expand(-1, width, -1)) & is_node[:, None]
    visible = of_tree | (key < before[:, None])[:, None]
    if window is not None:
        position = torch.where(is_node, before[:, None] - 1 + depths.gather(1, node), key)
        visible &= position[:, None] > (before[:, None] - 1 + depths)[:, :, None] - window
    return visible
