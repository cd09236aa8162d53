"""What both libraries have in common: a generator with a table of pages, and passes over rows behind its prompts.

ExLlamaV3 descends from ExLlamaV2, and the names of what is used here are the same in both. It is more than their
documented interface: the two halves of a generator's step, the pages of a job, and pages at the cache's end that the
generator is not told of. There the rows are written; a prompt's pages are shared by all rows behind it.
"""

from __future__ import annotations

import abc
import threading
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import torch
from typing_extensions import override

from el4ner.config import ExllamaSettings
from el4ner.engines.base import LAYERS, States
from el4ner.engines.constraint import TokenMask
from el4ner.engines.device_copies import to_device
from el4ner.engines.exllama.backend import Backend, DecodeJob, HeldPrompt, JobProgress, SuffixRow
from el4ner.engines.exllama.pages import PAGE, lay_out, rows_that_fit, scratch_pages
from el4ner.engines.exllama.timing import Stopwatch
from el4ner.errors import EngineError

__all__ = ["LockedMask", "PagedBackend"]

_LOGITS: Final = 1 << 26
"""The most float32 logits at a time: 256 MB."""
_STATES: Final = 1 << 24
"""The most float32 numbers of hidden states at a time: 64 MB."""


class PagedBackend(Backend, abc.ABC):
    """A backend over a paged cache; a subclass loads the model and calls :meth:`restart`.

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
        self._stopwatch = Stopwatch(("prefill", "decode", "rows"), self._device)
        self.tokens = 0
        self.hidden_size = 0
        self.vocabulary = 0
        self.identity = ""
        self._lock = threading.Lock()
        self._jobs: dict[int, Any] = {}
        self._generator: Any = None

    @property
    @override
    def seconds(self) -> dict[str, float]:
        return self._stopwatch.seconds()

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
    def _copy_pages(self, sources: Sequence[int], targets: Sequence[int], tokens: Sequence[int]) -> None:
        """Copy pages within the cache, or at least the first ``tokens`` of each."""

    @abc.abstractmethod
    def _norm(self, hidden: torch.Tensor) -> torch.Tensor:
        """The model's last norm, of ``[places, hidden]``."""

    @abc.abstractmethod
    def _logits(self, normed: torch.Tensor) -> torch.Tensor:
        """``[places, vocabulary]``, float32, of ``[places, hidden]``."""

    def _prefill(self, jobs: Sequence[Any], results: list[dict[str, Any]]) -> None:
        """Read what is unread of jobs' prompts, or some of each."""
        for job in jobs:
            job.prefill(results)

    @override
    def enqueue(self, job: DecodeJob) -> None:
        library_job = self._make_job(job.tokens, job.max_new_tokens, job.number, sorted(job.end_tokens), job.mask)
        self._generator.enqueue(library_job)
        self._jobs[job.number] = library_job

    @torch.inference_mode()
    @override
    def step(self) -> list[JobProgress]:
        generator = self._generator
        results: list[dict[str, Any]] = []
        with self._stopwatch.measure("prefill"):
            generator.iterate_start_jobs(results)
            waiting = [job for job in generator.active_jobs if not job.is_prefill_done()]
            before = _read_of(waiting)
            self._prefill(waiting, results)
            self.tokens += _read_of(waiting) - before
        with self._stopwatch.measure("decode"):
            self.tokens += sum(job.is_prefill_done() for job in generator.active_jobs)
            generator.iterate_gen(results)
        for result in results:
            if result["stage"] == "error":  # of ExLlamaV3, which goes on with the other jobs
                raise result["error"]
        return [self._progress(result) for result in results if result["stage"] == "streaming"]

    @override
    def cancel(self, number: int) -> int:
        job = self._jobs.pop(number)
        self._generator.cancel(job)
        return _found(job)

    @torch.inference_mode()
    @override
    def hold(self, prompts: Sequence[tuple[int, ...]]) -> list[HeldPrompt]:
        jobs: list[Any] = []
        with self._stopwatch.measure("prefill"):
            for tokens in prompts[: self.max_jobs]:
                if len(tokens) >= self.cache_tokens:
                    raise EngineError(f"a prompt of {len(tokens)} tokens does not fit a cache of {self.cache_tokens}")
                job = self._make_job(tokens, 1)
                self._generator.enqueue(job)
                self._generator.iterate_start_jobs([])
                if job in self._generator.pending_jobs:
                    self._generator.cancel(job)
                    break
                jobs.append(job)
            while waiting := [job for job in jobs if not job.is_prefill_done()]:
                self._prefill(waiting, [])
        held = [
            HeldPrompt(tokens, min(_found(job), len(tokens) - 1), job)
            for tokens, job in zip(prompts, jobs, strict=False)
        ]
        self.tokens += sum(len(prompt.tokens) - 1 - prompt.cached_tokens for prompt in held)
        if prompts and not held:
            raise EngineError(f"a prompt of {len(prompts[0])} tokens finds no room in a cache that is in use")
        return held

    @override
    def release(self, held: Sequence[HeldPrompt]) -> None:
        for prompt in held:
            self._generator.cancel(prompt.handle)

    @override
    def fitting(self, rows: Sequence[SuffixRow]) -> int:
        return rows_that_fit(
            [(len(row.held.tokens) - 1, 1 + len(row.tokens)) for row in rows],
            max_rows=self.max_rows,
            max_tokens=self._chunk_tokens,
            pages=len(self._scratch),
        )

    @torch.inference_mode()
    @override
    def score(self, rows: Sequence[SuffixRow]) -> list[list[float]]:
        places = sorted({(index, place) for index, row in enumerate(rows) for place, _ in row.targets})
        number = {place: index for index, place in enumerate(places)}
        asked = sorted(  # by place, so that what is asked of one piece of the logits stands together
            (number[index, place], token, index, target)
            for index, row in enumerate(rows)
            for target, (place, token) in enumerate(row.targets)
        )
        results = [[0.0] * len(row.targets) for row in rows]
        if not asked:
            return results
        with self._stopwatch.measure("rows"):
            _, hidden = self._read(rows)
            width = hidden.shape[1]
            at = np.array([place for place, *_ in asked])
            numbers = np.concatenate(
                [[row * width + place for row, place in places], at, [token for _, token, *_ in asked]]
            )
            where, which, tokens = torch.split(
                to_device(numbers.astype(np.int64), self._device), [len(places), len(asked), len(asked)]
            )
            hidden = hidden.flatten(0, 1)
            most = max(1, _LOGITS // self.vocabulary)
            parts = []
            for start in range(0, len(places), most):
                logits = self._logits(self._norm(hidden.index_select(0, where[start : start + most])))
                first, last = np.searchsorted(at, [start, start + most]).tolist()
                mine = which[first:last] - start if start else which[first:last]
                parts.append(logits[mine, tokens[first:last]] - logits.logsumexp(dim=-1)[mine])
            values = torch.cat(parts).tolist()
        for (_, _, index, target), value in zip(asked, values, strict=True):
            results[index][target] = value
        return results

    @torch.inference_mode()
    @override
    def states(self, rows: Sequence[SuffixRow]) -> list[States]:
        with self._stopwatch.measure("rows"):
            middle, end = (layer.flatten(0, 1) for layer in self._read(rows))
            width = 1 + max(len(row.tokens) for row in rows)
            places = [index * width + place for index, row in enumerate(rows) for place in row.places]
            where = to_device(np.array(places, dtype=np.int64), self._device)
            most = max(1, _STATES // (LAYERS * self.hidden_size))
            parts = []
            for start in range(0, len(places), most):
                here = where[start : start + most]
                layers = (middle.index_select(0, here), end.index_select(0, here))
                both = torch.stack([layers[0].float(), self._norm(layers[1]).float()], dim=1)
                parts.append(both.cpu().numpy().astype(np.float32, copy=False))
        states = np.concatenate(parts) if parts else np.zeros((0, LAYERS, self.hidden_size), dtype=np.float32)
        return np.split(states, np.cumsum([len(row.places) for row in rows])[:-1])

    def _read(self, rows: Sequence[SuffixRow]) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`_pass` over the rows; place 0 is the prompt's last token. Padding stands behind a row's own tokens,
        which do not see it."""
        width = 1 + max(len(row.tokens) for row in rows)
        prompts = [
            (len(row.held.tokens) - 1, [page.page_index for page in row.held.handle.sequences[0].allocated_pages])
            for row in rows
        ]
        layout = lay_out(prompts, width, self._scratch)
        if layout.copies:
            used = [length % PAGE for length in layout.lengths if length % PAGE]
            sources, targets = zip(*layout.copies, strict=True)
            self._copy_pages(sources, targets, used)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        table = np.zeros((len(rows), max(map(len, layout.tables))), dtype=np.int32)
        for index, (row, pages) in enumerate(zip(rows, layout.tables, strict=True)):
            ids[index, : 1 + len(row.tokens)] = (row.held.tokens[-1], *row.tokens)
            table[index, : len(pages)] = pages
        self.tokens += len(rows) * width
        lengths = np.array(layout.lengths, dtype=np.int32)
        return self._pass(torch.from_numpy(ids), torch.from_numpy(table), torch.from_numpy(lengths))

    def _progress(self, result: dict[str, Any]) -> JobProgress:
        tokens: list[int] = []
        for part in (result, result.get("held", {})):
            if part.get("token_ids") is not None:
                tokens += part["token_ids"].flatten().tolist()
        if not result["eos"]:
            return JobProgress(result["identifier"], tuple(tokens))
        reason = result["eos_reason"]
        finished: Literal["end", "length"] = "length" if reason == "max_new_tokens" else "end"
        if reason == "stop_token":
            tokens = tokens[:-1]
        cached = min(int(result["cached_tokens"]), int(result["prompt_tokens"]) - 1)
        self._jobs.pop(result["identifier"], None)
        return JobProgress(result["identifier"], tuple(tokens), finished, cached)


class LockedMask:
    """A mask that the libraries may ask in threads of their own: masks of one model share what they know."""

    def __init__(self, mask: TokenMask, lock: threading.Lock) -> None:
        self._mask = mask
        self._lock = lock

    def allowed(self) -> list[int]:
        """The tokens that may be next, ascending."""
        with self._lock:
            tokens: list[int] = self._mask.allowed().tolist()
        return tokens

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
