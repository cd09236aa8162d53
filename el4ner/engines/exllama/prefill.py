"""Prompts of many jobs read together, in the page table of ExLlamaV2's generator.

The library reads one job's prompt at a time: for a small model each pass costs the host more than the device. Here the
rest of every prompt is a row of one pass. What the prompts share is read once: a prompt that begins as another one,
further than the cache knows, waits until that one has been read, and finds its pages. The entries of the page table
are kept as the library's own ``prefill`` keeps them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from el4ner.engines.exllama.pages import PAGE

__all__ = ["CopyTokens", "ReadRows", "read_prompts"]

_SHARED: Final = 64
"""Tokens that two prompts have to share, unread, for one of them to wait for the other: less is read twice."""
_SHORTEST: Final = 0.5
"""Of the longest row of a pass: shorter ones would be padding more than prompt."""

ReadRows = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
"""Reads ids ``[rows, width]`` behind lengths ``[rows]`` in the pages of a table ``[rows, blocks]`` (int32, on the
processor), given as (ids, table, lengths), and stores their states."""
CopyTokens = Callable[[NDArray[np.int64], NDArray[np.int64]], None]
"""Copies states of tokens within the cache, (from, to), counted from the cache's beginning."""


@dataclass(slots=True)
class _UnreadPrompt:
    """The unread part of a job's prompt. ``tokens``: all but the last one, which is read with the answer. ``like``: a
    page that begins as the next one of this prompt, for ``alike`` tokens."""

    job: Any
    tokens: NDArray[np.int64]
    like: Any = None
    alike: int = 0

    @property
    def sequence(self) -> Any:
        return self.job.sequences[0]

    @property
    def start(self) -> int:
        return int(self.sequence.kv_position)

    @property
    def left(self) -> int:
        return len(self.tokens) - self.start

    def end(self, most: int) -> int:
        """Where the next pass over it ends, of at most ``most`` tokens: its own end, or that of a page, as in the
        library. Pages behind the first unread one may be there: they are not read again."""
        allocated = self.sequence.allocated_pages
        end = len(self.tokens) if self.left <= most else (self.start + most) // PAGE * PAGE
        for block in range(self.start // PAGE + 1, end // PAGE):
            if allocated[block].kv_position == PAGE:
                return block * PAGE
        return end


def read_prompts(
    jobs: Sequence[Any],
    pages: Sequence[Any],
    *,
    read: ReadRows,
    copy: CopyTokens,
    chunk_tokens: int,
    scratch: int,
) -> int:
    """Read what is unread of the prompts of jobs that have pages.

    Args:
        jobs: of the library's generator, active.
        pages: its table.
        read: a pass.
        copy: of states.
        chunk_tokens: the most tokens of a pass, a multiple of a page.
        scratch: a page that nobody reads, where padding goes.

    Returns:
        How many tokens were read, without padding.
    """
    count = 0
    waiting = []
    for job in jobs:
        job.time_first_prefill = job.time_first_prefill or time.time()
        sequence = job.sequences[0]
        ids = sequence.sequence_ids.torch_slice(0, len(sequence.sequence_ids) - 1)
        waiting.append(_UnreadPrompt(job, ids[0].numpy()))
    while waiting:
        for prompt in waiting:
            _skip_full_pages(prompt)
        _find_beginnings(waiting, pages)
        now, later = _apart([prompt for prompt in waiting if prompt.left > 0])
        _copy_beginnings(now, copy)
        for rows in _passes(now, chunk_tokens):
            count += _read(rows, read, scratch)
        waiting = [*(prompt for prompt in now if prompt.left > 0), *later]
    for job in jobs:
        job.sequences[0].prefill_complete = True
        # The library takes the time at the first token, and waits for the device before it does.
        job.time_first_token = time.time()
    return count


def _skip_full_pages(prompt: _UnreadPrompt) -> None:
    """Pages that another job, or an earlier one, has filled."""
    sequence = prompt.sequence
    while prompt.start % PAGE == 0 and prompt.left >= PAGE:
        page = sequence.allocated_pages[prompt.start // PAGE]
        if page.kv_position != PAGE:
            return
        sequence.kv_position += PAGE
        prompt.job.cached_pages += 1
        page.can_revert = False


def _find_beginnings(prompts: Sequence[_UnreadPrompt], pages: Sequence[Any]) -> None:
    """Where a prompt's next page begins as one that is known behind the same pages."""
    known: dict[bytes | None, list[Any]] = {}
    for page in pages:
        if page.kv_position > 1:
            known.setdefault(page.prev_hash, []).append(page)
    for prompt in prompts:
        prompt.like, prompt.alike = None, 0
        if prompt.start % PAGE or not prompt.left:
            continue
        block = prompt.start // PAGE
        rest = prompt.tokens[prompt.start : prompt.start + PAGE]
        for page in known.get(_hash_before(prompt.sequence, block), ()):
            if page is not prompt.sequence.allocated_pages[block]:
                length = _common(page.sequence[0, : page.kv_position].numpy(), rest)
                if length > max(1, prompt.alike):
                    prompt.like, prompt.alike = page, length


def _apart(prompts: list[_UnreadPrompt]) -> tuple[list[_UnreadPrompt], list[_UnreadPrompt]]:
    """Prompts to read now, and those that begin as one of these, further than is known."""
    now: list[_UnreadPrompt] = []
    later: list[_UnreadPrompt] = []
    begun: dict[int, set[bytes]] = {prompt.start + prompt.alike + _SHARED: set() for prompt in prompts}
    for prompt in prompts:
        end = prompt.start + prompt.alike + _SHARED
        if len(prompt.tokens) >= end and prompt.tokens[:end].tobytes() in begun[end]:
            later.append(prompt)
            continue
        now.append(prompt)
        for length, beginnings in begun.items():
            if len(prompt.tokens) >= length:
                beginnings.add(prompt.tokens[:length].tobytes())
    return now, later


def _common(left: NDArray[np.int64], right: NDArray[np.int64]) -> int:
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length


def _copy_beginnings(prompts: Sequence[_UnreadPrompt], copy: CopyTokens) -> None:
    """Copy what :func:`_find_beginnings` has found, of all prompts at once."""
    sources, targets = [], []
    for prompt in prompts:
        if prompt.like is None:
            continue
        start = prompt.start
        target = prompt.sequence.allocated_pages[start // PAGE].page_index
        sources.append(prompt.like.page_index * PAGE + np.arange(prompt.alike))
        targets.append(target * PAGE + np.arange(prompt.alike))
        prompt.sequence.kv_position += prompt.alike
        prompt.job.cached_tokens += prompt.alike
        _fill(prompt, start, start + prompt.alike)
    if sources:
        copy(np.concatenate(sources), np.concatenate(targets))


def _passes(prompts: Sequence[_UnreadPrompt], chunk_tokens: int) -> list[list[tuple[_UnreadPrompt, int]]]:
    """Rows of each pass, (prompt, where its row ends): of about the same length, and no more than fit."""
    ends = [(prompt, prompt.end(chunk_tokens)) for prompt in prompts if prompt.left > 0]
    passes: list[list[tuple[_UnreadPrompt, int]]] = []
    width = 0
    for prompt, end in sorted(ends, key=lambda row: row[0].start - row[1]):
        length = end - prompt.start
        if passes and (len(passes[-1]) + 1) * width <= chunk_tokens and length >= width * _SHORTEST:
            passes[-1].append((prompt, end))
        else:
            passes.append([(prompt, end)])
            width = length
    return passes


def _read(rows: Sequence[tuple[_UnreadPrompt, int]], read: ReadRows, scratch: int) -> int:
    """One pass; how many tokens of prompts it read."""
    width = max(end - prompt.start for prompt, end in rows)
    blocks = max(-(-(prompt.start + width) // PAGE) for prompt, _ in rows)
    ids = np.zeros((len(rows), width), dtype=np.int64)
    # A row's padding stands behind its tokens: on the rest of its last page, which is its own, and in scratch.
    table = np.full((len(rows), blocks), scratch, dtype=np.int32)
    for row, (prompt, end) in enumerate(rows):
        ids[row, : end - prompt.start] = prompt.tokens[prompt.start : end]
        own = [page.page_index for page in prompt.sequence.allocated_pages[: -(-end // PAGE)]]
        table[row, : len(own)] = own
    lengths = np.array([prompt.start for prompt, _ in rows], dtype=np.int32)
    read(torch.from_numpy(ids), torch.from_numpy(table), torch.from_numpy(lengths))
    count = 0
    for prompt, end in rows:
        start, prompt.sequence.kv_position = prompt.start, end
        _fill(prompt, start, end)
        count += end - start
    return count


def _fill(prompt: _UnreadPrompt, start: int, end: int) -> None:
    """Note in the page table that the tokens from ``start`` to ``end`` are in the cache."""
    allocated = prompt.sequence.allocated_pages
    for block in range(start // PAGE, min(end // PAGE + 1, len(allocated))):
        page = allocated[block]
        first, last = block * PAGE, min(end, (block + 1) * PAGE)
        if first == end and page.kv_position:
            break  # it was there before
        page.kv_position = last - first
        page.prev_hash = _hash_before(prompt.sequence, block)
        begin = max(first, start)
        page.sequence[0, begin - first : last - first] = torch.from_numpy(prompt.tokens[begin:last])
        page.can_revert = False


def _hash_before(sequence: Any, block: int) -> bytes | None:
    return None if block == 0 else sequence.allocated_pages[block - 1].phash
