"""Prompts through the model: what was read before is not read again, and the rest goes in passes of the right size."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch

from el4ner.engines.packing import TokenTree
from el4ner.engines.torch.attention_plans import PassSegment
from el4ner.engines.torch.packed_model import PackedModel
from el4ner.engines.torch.past_states import PastStates, beginning, copy_states, total
from el4ner.engines.torch.prefix_cache import PrefixCache, common_length

__all__ = ["Part", "PromptReader", "PromptRow"]

log = logging.getLogger(__name__)

WORTH_A_PASS: Final = 128
"""Tokens that a shared beginning must save before it is read in a pass of its own: about what a short pass costs."""


@dataclass(slots=True, eq=False)
class PromptRow:
    """A prompt to be read, and the trees that hang behind it (each read with its own pass, or together with others).

    ``known``: key-value states of its first tokens, which were read before; ``cached`` counts tokens that were not read
    for this row. The others' are those of ``slot`` in ``group`` (:class:`PassSegment`): made when its reading begins
    if it is None, and dropped when it ends if ``keep`` is False. A group that is made for rows that attend together, or
    that is there before, has those of all tokens: what is known is copied to it. ``to_middle``: the trees are read as
    far as the middle layer.
    """

    tokens: tuple[int, ...]
    trees: Sequence[TokenTree] = ()
    keep: bool = False
    to_middle: bool = False
    group: torch.Tensor | None = field(default=None, repr=False)
    slot: int = 0
    past: int = 0
    cached: int = 0
    trees_read: int = 0
    known: tuple[PastStates, ...] = field(default=(), repr=False)

    @property
    def read_states(self) -> tuple[PastStates, ...]:
        """Of all tokens that were read, as soon as its reading has begun."""
        assert self.group is not None
        return (*self.known, PastStates(self.group[:, :, self.slot], self.past - total(self.known)))

    def begins(self, known: tuple[PastStates, ...]) -> None:
        """Its first tokens were read before. The last one is always read: its hidden state is what answers."""
        self.known = beginning(known, len(self.tokens) - 1)
        self.past = self.cached = total(self.known)

    def copies_known(self) -> None:
        """What is known, to its group, which has room for all tokens."""
        assert self.group is not None
        copy_states(self.known, self.group[:, :, self.slot])
        self.known = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What one pass read of a row: the hidden state of the prompt's last token is at ``last`` (if ``ends``: the prompt
    is complete), tree ``tree``'s node n is at ``last + 1 + n``."""

    row: PromptRow
    last: int
    ends: bool
    tree: int | None


Take = Callable[[list[Part], torch.Tensor], None]


LONGEST_PIECE: Final = 4096
"""The most tokens of one prompt in a pass: what attends it needs memory that grows with the square."""


class PromptReader:
    """Reads rows, at most ``max_tokens`` a pass (a larger tree goes alone), with the help of a prefix cache. Logs call
    it by the member's ``name``."""

    def __init__(self, name: str, model: PackedModel, cache: PrefixCache, max_tokens: int) -> None:
        self._name = name
        self._model = model
        self._cache = cache
        self._max_tokens = max_tokens
        self._piece = min(max_tokens, LONGEST_PIECE)
        self._has_told = False

    def read(self, rows: Sequence[PromptRow], take: Take, *, with_middle: bool = False) -> None:
        """Read all rows, and call ``take`` after every pass with what it read and the pass's hidden states (see
        :meth:`PackedModel.forward` for ``with_middle``)."""
        self._tell_once(max((len(row.tokens) for row in rows), default=0))
        for row in rows:
            self._look_up(row)
        self._read_shared_beginnings(rows)
        self._read_each(rows, take, with_middle=with_middle)

    def _look_up(self, row: PromptRow) -> None:
        row.begins(self._cache.longest(row.tokens))

    def _read_shared_beginnings(self, rows: Sequence[PromptRow]) -> None:
        """Rows that begin alike beyond what the cache has: their common beginning is read once, before them.

        In the order of their tokens the rows that share most stand side by side; a group grows while that saves more.
        """
        if len(rows) < 2:
            return
        ordered = sorted(rows, key=lambda row: row.tokens)
        arrays = [np.asarray(row.tokens, dtype=np.int32) for row in ordered]
        first = 0
        while first < len(ordered):
            stem, end = 0, first + 1
            while end < len(ordered):
                shared = common_length(arrays[end - 1], arrays[end])
                grown = min(stem, shared) if end > first + 1 else shared
                if grown * (end - first) < stem * (end - first - 1):
                    break
                stem, end = grown, end + 1
            group = ordered[first:end]
            known = min(row.past for row in group)
            if (stem - known) * (len(group) - 1) >= WORTH_A_PASS:
                self._read_beginning(group, stem)
            first = end

    def _read_beginning(self, group: Sequence[PromptRow], length: int) -> None:
        stem = PromptRow(group[0].tokens[:length], keep=True)
        self._look_up(stem)
        self._read_each([stem], lambda parts, hidden: None)
        known = self._cache.longest(stem.tokens)
        if total(known) < length:
            known = stem.read_states
        for row in group:
            if min(length, len(row.tokens) - 1) > row.past:
                row.begins(known)
        group[0].cached = min(group[0].cached, stem.cached)  # somebody has to have read it

    def _tell_once(self, tokens: int) -> None:
        """If a prompt of so many tokens has no room, say that what prompts have in common (a long list of types, say)
        is read anew for each batch, or some of it."""
        needed = tokens * self._model.bytes_per_token
        if self._has_told or not 0 < self._cache.max_bytes < needed:
            return
        self._has_told = True
        log.warning(
            "prefix-not-kept",
            extra={
                "engine": self._name,
                "tokens": tokens,
                "needs_mb": -(-needed >> 20),
                "prefix_cache_mb": self._cache.max_bytes >> 20,
            },
        )

    def _read_each(self, rows: Sequence[PromptRow], take: Take, *, with_middle: bool = False) -> None:
        if self._model.attend == "together":  # rows of like length stand side by side
            rows = sorted(rows, key=lambda row: row.past - len(row.tokens))
        for row in rows:
            if row.group is not None:
                row.copies_known()
        waiting = deque(rows)
        while waiting:
            parts: list[Part] = []
            segments: list[PassSegment] = []
            used = 0
            while waiting:
                segment, part = self._next(waiting[0], used)
                if segments and used + segment.new > self._max_tokens:
                    break
                waiting.popleft()
                segments.append(segment)
                parts.append(part)
                used += segment.new
            self._give_room([part.row for part in parts if part.row.group is None])
            for segment, part in zip(segments, parts, strict=True):
                assert part.row.group is not None
                segment.group, segment.slot, segment.behind = part.row.group, part.row.slot, part.row.known
            hidden = self._model.forward(segments, with_middle=with_middle)
            unfinished = []
            for part, segment in zip(parts, segments, strict=True):
                row = part.row
                row.past = segment.past + len(segment.chain)
                if part.ends and row.trees_read == 0:
                    self._cache.put(row.tokens, row.read_states)
                if part.tree is not None:
                    row.trees_read += 1
                if not part.ends or row.trees_read < len(row.trees):
                    unfinished.append(row)
            take(parts, hidden)
            waiting.extendleft(reversed(unfinished))
            for part in parts:
                if not part.row.keep and part.row not in unfinished:
                    part.row.group, part.row.known = None, ()

    def _give_room(self, rows: Sequence[PromptRow]) -> None:
        """States for rows whose reading begins: one group for all where they attend together."""
        rooms = [len(row.tokens) + max(map(len, row.trees), default=0) for row in rows]
        if self._model.attend == "together" and rows:
            group = self._model.new_group(len(rows), max(rooms))
            for slot, row in enumerate(rows):
                row.group, row.slot = group, slot
                row.copies_known()
        else:
            for row, room in zip(rows, rooms, strict=True):
                own = len(row.tokens) - row.past
                row.group = self._model.new_room(own) if row.known else self._model.new_group(1, room)
                row.slot = 0

    def _next(self, row: PromptRow, before: int) -> tuple[PassSegment, Part]:
        """The row's next piece, to stand behind ``before`` tokens in its pass."""
        past = min(row.past, len(row.tokens) - 1)  # a second tree needs the last token's hidden state once more
        chain = row.tokens[past : past + self._piece]
        ends = past + len(chain) == len(row.tokens)
        tree: int | None = row.trees_read if ends and row.trees else None
        too_large = tree == 0 and len(chain) + len(row.trees[0]) > self._max_tokens
        if too_large and len(chain) > 1:  # the prompt but for its last token; then that token with the tree
            chain, ends, tree = chain[:-1], False, None
        nodes = row.trees[tree] if tree is not None else TokenTree()
        segment = PassSegment(_NOWHERE, 0, past, chain, nodes, row.to_middle)
        return segment, Part(row, before + len(chain) - 1, ends, tree)


_NOWHERE: Final = torch.empty(0)
"""The group of a segment whose row has no room yet."""
