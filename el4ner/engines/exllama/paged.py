"""What both libraries have in common: a generator with a table of pages, and passes over rows behind its prompts.

ExLlamaV3 descends from ExLlamaV2, and the names of what is used here are the same in both. It is more than their
documented interface: the two halves of a generator's step, the pages of a job, and pages at the cache's end that the
generator is not told of. There the rows are written; a prompt's pages are shared by all rows behind it.
"""

from __future__ import annotations

import abc
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import numpy as np
import torch

from el4ner.config import ExllamaSettings
from el4ner.engines.base import States
from el4ner.engines.constraint import TokenMask
from el4ner.engines.exllama.backend import PAGE, DecodeJob, Held, Progress, Row
from el4ner.engines.exllama.rows import lay_out, rows_that_fit, scratch_pages
from el4ner.errors import EngineError

__all__ = ["LockedMask", "PagedBackend"]

_LOGITS: Final = 1 << 26
"""The most float32 logits at a time: 256 MB."""


class PagedBackend(abc.ABC):
    """See :class:`el4ner.engines.exllama.backend.Backend`; a subclass loads the model and calls :meth:`restart`.

    Args:
        settings: sizes.
        device: the GPU's number.
        chunk_tokens: the most tokens of one forward pass, a multiple of a page.
    """

    def __init__(self, settings: ExllamaSettings, *, device: int, chunk_tokens: int) -> None:
        pages = settings.cache_tokens // PAGE
        scratch = scratch_pages(settings.score_rows, pages)
        self._prompt_pages = pages - scratch
        self._scratch = range(self._prompt_pages, pages)
        self._device = torch.device("cuda", device)
        self._chunk_tokens = chunk_tokens
        self.cache_tokens = self._prompt_pages * PAGE
        self.context_length = self.cache_tokens
        self.max_rows = settings.score_rows
        self.max_jobs = min(settings.max_batch_size, chunk_tokens)
        self.seconds = dict.fromkeys(("prefill", "decode", "rows"), 0.0)
        self.tokens = 0
        self.hidden_size = 0
        self.vocabulary = 0
        self.identity = ""
        self._lock = threading.Lock()
        self._jobs: dict[int, Any] = {}
        self._generator: Any = None

    @abc.abstractmethod
    def restart(self) -> None:
        """Put a new generator, without jobs or pages, into ``_generator``, and forget ``_jobs``."""

    @abc.abstractmethod
    def forget(self) -> None:
        """Drop the prompts read before."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give the memory back."""

    @abc.abstractmethod
    def _make_job(
        self,
        tokens: tuple[int, ...],
        max_new_tokens: int,
        number: int | None = None,
        end_tokens: Sequence[int] = (),
        mask: TokenMask | None = None,
    ) -> Any:
        """A greedy job of the library."""

    @abc.abstractmethod
    def _pass(self, ids: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Read ``ids`` ``[rows, width]`` behind ``lengths`` tokens in the pages of ``table`` ``[rows, blocks]`` (int32,
        on the processor). Two times ``[rows, width, hidden]``: behind the middle layer, and before the last norm."""

    @abc.abstractmethod
    def _copy_pages(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole pages within the cache."""

    @abc.abstractmethod
    def _norm(self, hidden: torch.Tensor) -> torch.Tensor:
        """The model's last norm, of ``[places, hidden]``."""

    @abc.abstractmethod
    def _logits(self, normed: torch.Tensor) -> torch.Tensor:
        """``[places, vocabulary]``, float32, of ``[places, hidden]``."""

    def enqueue(self, job: DecodeJob) -> None:
        """See :class:`~el4ner.engines.exllama.backend.Backend`."""
        made = self._make_job(job.tokens, job.max_new_tokens, job.number, sorted(job.end_tokens), job.mask)
        self._generator.enqueue(made)
        self._jobs[job.number] = made

    @torch.inference_mode()
    def step(self) -> list[Progress]:
        """See :class:`~el4ner.engines.exllama.backend.Backend`."""
        generator = self._generator
        results: list[dict[str, Any]] = []
        with self._timed("prefill"):
            generator.iterate_start_jobs(results)
            waiting = [job for job in generator.active_jobs if not job.is_prefill_done()]
            before = _read_of(waiting)
            for job in waiting:
                job.prefill(results)
            if waiting:
                torch.cuda.synchronize(self._device)
            self.tokens += _read_of(waiting) - before
        with self._timed("decode"):
            self.tokens += sum(job.is_prefill_done() for job in generator.active_jobs)
            generator.iterate_gen(results)
        for result in results:
            if result["stage"] == "error":  # of ExLlamaV3, which goes on with the other jobs
                raise result["error"]
        return [self._progress(result) for result in results if result["stage"] == "streaming"]

    def cancel(self, number: int) -> int:
        """See :class:`~el4ner.engines.exllama.backend.Backend`."""
        job = self._jobs.pop(number)
        self._generator.cancel(job)
        return _found(job)

    @torch.inference_mode()
    def hold(self, prompts: Sequence[tuple[int, ...]]) -> list[Held]:
        """See :class:`~el4ner.engines.exllama.backend.Backend`."""
        held: list[Held] = []
        with self._timed("prefill"):
            for tokens in prompts[: self.max_jobs]:
                if len(tokens) >= self.cache_tokens:
                    raise EngineError(f"a prompt of {len(tokens)} tokens does not fit a cache of {self.cache_tokens}")
                job = self._make_job(tokens, 1)
                self._generator.enqueue(job)
                self._generator.iterate_start_jobs([])
                if job in self._generator.pending_jobs:
                    self._generator.cancel(job)
                    break
                while not job.is_prefill_done():
                    job.prefill([])
                held.append(Held(tokens, min(_found(job), len(tokens) - 1), job))
                self.tokens += len(tokens) - 1 - held[-1].cached_tokens
            torch.cuda.synchronize(self._device)
        if prompts and not held:
            raise EngineError(f"a prompt of {len(prompts[0])} tokens finds no room in a cache that is in use")
        return held

    def release(self, held: Sequence[Held]) -> None:
        """See :class:`~el4ner.engines.exllama.backend.Backend`."""
        for one in held:
            self._generator.cancel(one.handle)

    def fitting(self, rows: Sequence[Row]) -> int:
        """See :class:`~el4ner.engines.exllama.backend.Backend`."""
        return rows_that_fit(
            [(len(row.held.tokens) - 1, 1 + len(row.tokens)) for row in rows],
            max_rows=self.max_rows,
            max_tokens=self._chunk_tokens,
            pages=len(self._scratch),
        )

    @torch.inference_mode()
    def score(self, rows: Sequence[Row]) -> list[list[float]]:
        """See :class:`~el4ner.engines.exllama.backend.Backend`."""
        with self._timed("rows"):
            _, hidden = self._read(rows)
            places: dict[tuple[int, int], int] = {}
            asked = [
                (places.setdefault((index, place), len(places)), token)
                for index, row in enumerate(rows)
                for place, token in row.targets
            ]
            found = [0.0] * len(asked)
            where = list(places)
            most = max(1, _LOGITS // self.vocabulary)
            for start in range(0, len(where), most):
                part = where[start : start + most]
                logits = self._logits(self._norm(hidden[[row for row, _ in part], [place for _, place in part]]))
                logits = logits - logits.logsumexp(dim=-1, keepdim=True)
                mine = [number for number, (place, _) in enumerate(asked) if start <= place < start + len(part)]
                values = logits[[asked[number][0] - start for number in mine], [asked[number][1] for number in mine]]
                for number, value in zip(mine, values.tolist(), strict=True):
                    found[number] = value
        results = iter(found)
        return [[next(results) for _ in row.targets] for row in rows]

    @torch.inference_mode()
    def states(self, rows: Sequence[Row]) -> States:
        """See :class:`~el4ner.engines.exllama.backend.Backend`."""
        with self._timed("rows"):
            middle, end = self._read(rows)
            row, place = list(range(len(rows))), [len(one.tokens) for one in rows]
            both = torch.stack([middle[row, place].float(), self._norm(end[row, place]).float()], dim=1)
            found: States = both.cpu().numpy().astype(np.float32, copy=False)
        return found

    def _read(self, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`_pass` over the rows; place 0 is the prompt's last token. Padding stands behind a row's own tokens,
        which do not see it."""
        width = 1 + max(len(row.tokens) for row in rows)
        prompts = [
            (len(row.held.tokens) - 1, [page.page_index for page in row.held.handle.sequences[0].allocated_pages])
            for row in rows
        ]
        layout = lay_out(prompts, width, self._scratch)
        if layout.copies:
            self._copy_pages(*zip(*layout.copies, strict=True))
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        table = torch.zeros((len(rows), max(map(len, layout.tables))), dtype=torch.int32)
        for index, (row, pages) in enumerate(zip(rows, layout.tables, strict=True)):
            ids[index, : 1 + len(row.tokens)] = torch.tensor((row.held.tokens[-1], *row.tokens))
            table[index, : len(pages)] = torch.tensor(pages, dtype=torch.int32)
        self.tokens += len(rows) * width
        return self._pass(ids, table, torch.tensor(layout.lengths, dtype=torch.int32))

    def _progress(self, result: dict[str, Any]) -> Progress:
        tokens: list[int] = []
        for part in (result, result.get("held", {})):
            if part.get("token_ids") is not None:
                tokens += part["token_ids"].flatten().tolist()
        if not result["eos"]:
            return Progress(result["identifier"], tuple(tokens))
        reason = result["eos_reason"]
        finished: Literal["end", "length"] = "length" if reason == "max_new_tokens" else "end"
        if reason == "stop_token":
            tokens = tokens[:-1]
        cached = min(int(result["cached_tokens"]), int(result["prompt_tokens"]) - 1)
        self._jobs.pop(result["identifier"], None)
        return Progress(result["identifier"], tuple(tokens), finished, cached)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - started


class LockedMask:
    """A mask that the libraries may ask in threads of their own: masks of one model share what they know."""

    def __init__(self, mask: TokenMask, lock: threading.Lock) -> None:
        self._mask = mask
        self._lock = lock

    def allowed(self) -> list[int]:
        """The tokens that may be next, ascending."""
        with self._lock:
            found: list[int] = self._mask.allowed().tolist()
        return found

    def feed(self, token: int) -> None:
        """Take in what was chosen."""
        with self._lock:
            self._mask.feed(token)


def _found(job: Any) -> int:
    """Tokens of a job's prompt that were in the cache."""
    return int(job.cached_pages * PAGE + job.cached_tokens)


def _read_of(jobs: Sequence[Any]) -> int:
    """Tokens of prompts that were read so far, and not found."""
    return sum(int(job.sequences[0].kv_position) - _found(job) for job in jobs)
