"""A backend on the processor: what :class:`el4ner.engines.exllama.backend.Backend` asks, from a model of transformers.

With it the driver of the GPU engines runs, on real weights too, where there is no GPU: everything but the libraries
themselves. It is slow and simple, and it can be told to fail.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from el4ner.engines.base import States
from el4ner.engines.exllama.backend import DecodeJob, HeldPrompt, JobProgress, SuffixRow
from el4ner.errors import EngineError


class TorchBackend:
    """``cache_tokens``: of prompts that are held, and answers that are written, at the same time. ``causal`` False:
    every token of a pass sees all of it. ``faults`` are raised, one after another, by what uses the model."""

    def __init__(
        self,
        model: Any,
        *,
        cache_tokens: int = 2048,
        max_jobs: int = 8,
        max_rows: int = 16,
        memory: int = 8,
        causal: bool = True,
    ) -> None:
        config = model.config.get_text_config()
        self._model = model
        self._causal = causal
        self.context_length = min(int(config.max_position_embeddings), cache_tokens)
        self.cache_tokens = cache_tokens
        self.max_rows = max_rows
        self.max_jobs = max_jobs
        self.hidden_size = int(config.hidden_size)
        self.vocabulary = int(config.vocab_size)
        self.identity = "torch"
        self.seconds = {"prefill": 0.0, "decode": 0.0, "rows": 0.0}
        self.tokens = 0
        self.faults: list[BaseException] = []
        self.restarts = 0
        self.closed = False
        self.steps = 0
        self.widths: list[int] = []
        """Rows of every pass."""
        self.together: list[int] = []
        """Jobs of every step."""
        self._middle = int(config.num_hidden_layers) // 2 + 1
        self._memory = memory
        self._known: dict[tuple[int, ...], Any] = {}
        self._held: list[HeldPrompt] = []
        self._jobs: dict[int, _Job] = {}

    def enqueue(self, job: DecodeJob) -> None:
        self._jobs[job.number] = _Job(job)

    @torch.inference_mode()
    def step(self) -> list[JobProgress]:
        self._fail()
        self.steps += 1
        active = self._active()
        self.together.append(len(active))
        return [self._write(one) for one in active]

    def _active(self) -> list[_Job]:
        active: list[_Job] = []
        room = self.cache_tokens
        for one in list(self._jobs.values())[: self.max_jobs]:
            room -= len(one.job.tokens) + one.job.max_new_tokens
            if room < 0 and active:
                break
            active.append(one)
        return active

    def _write(self, one: _Job) -> JobProgress:
        job = one.job
        if one.states is None:
            one.cached, one.states = self._prompt(job.tokens)
            one.last = job.tokens[-1]
        hidden, _, one.states = self._read((one.last,), one.states)
        logits = self._logits(hidden[-1:])[0]
        if job.mask is not None:
            allowed = torch.from_numpy(job.mask.allowed().copy())
            token = int(allowed[logits[allowed].argmax()])
            job.mask.feed(token)
        else:
            token = int(logits.argmax())
        one.new += 1
        if token in job.end_tokens:
            del self._jobs[job.number]
            return JobProgress(job.number, (), "end", one.cached)
        one.last = token
        if one.new >= job.max_new_tokens:
            del self._jobs[job.number]
            return JobProgress(job.number, (token,), "length", one.cached)
        return JobProgress(job.number, (token,))

    def cancel(self, number: int) -> int:
        return self._jobs.pop(number).cached

    @torch.inference_mode()
    def hold(self, prompts: Sequence[tuple[int, ...]]) -> list[HeldPrompt]:
        assert not self._jobs
        self._fail()
        held: list[HeldPrompt] = []
        room = self.cache_tokens - sum(len(one.tokens) for one in self._held)
        for tokens in prompts[: self.max_jobs]:
            room -= len(tokens)
            if room < 0:
                break
            cached, states = self._prompt(tokens)
            held.append(HeldPrompt(tokens, cached, states))
        if prompts and not held:
            raise EngineError(f"a prompt of {len(prompts[0])} tokens does not fit")
        self._held += held
        return held

    def release(self, held: Sequence[HeldPrompt]) -> None:
        for one in held:
            self._held.remove(one)

    def fitting(self, rows: Sequence[SuffixRow]) -> int:
        return min(len(rows), self.max_rows)

    @torch.inference_mode()
    def score(self, rows: Sequence[SuffixRow]) -> list[list[float]]:
        self._fail()
        self.widths.append(len(rows))
        found = []
        for row in rows:
            hidden, _, _ = self._behind(row)
            logs = self._logits(hidden).log_softmax(dim=-1)
            found.append([float(logs[place, token]) for place, token in row.targets])
        return found

    @torch.inference_mode()
    def states(self, rows: Sequence[SuffixRow]) -> list[States]:
        self._fail()
        self.widths.append(len(rows))
        found = []
        for row in rows:
            hidden, middle, _ = self._behind(row)
            places = list(row.places)
            found.append(torch.stack([middle[places], hidden[places]], dim=1).float().numpy())
        return found

    def restart(self) -> None:
        self.restarts += 1
        self._jobs.clear()
        self._held.clear()
        self._known.clear()

    def forget(self) -> None:
        self._known.clear()

    def close(self) -> None:
        self.closed = True

    def _behind(self, row: SuffixRow) -> tuple[torch.Tensor, torch.Tensor, Any]:
        assert row.held in self._held
        return self._read((row.held.tokens[-1], *row.tokens), row.held.handle)

    def _prompt(self, tokens: tuple[int, ...]) -> tuple[int, Any]:
        """All but the last token: how many were known, and the states."""
        wanted = tokens[:-1]
        best: tuple[int, ...] = ()
        shared = 0
        for known in self._known:
            length = next((i for i, (a, b) in enumerate(zip(known, wanted, strict=False)) if a != b), None)
            length = min(len(known), len(wanted)) if length is None else length
            if length > shared:
                best, shared = known, length
        states = None
        if shared:
            states = copy.deepcopy(self._known[best])
            states.crop(shared)
        if wanted[shared:]:
            _, _, states = self._read(wanted[shared:], states)
        self._known[wanted] = states
        while len(self._known) > self._memory:
            del self._known[next(iter(self._known))]
        return shared, states

    def _read(self, tokens: Sequence[int], states: Any) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Last states after the norm and middle ones, ``[tokens, hidden]``, and the cache behind them, a new one."""
        states = copy.deepcopy(states)
        past = 0 if states is None else states.get_seq_length()
        mask = None
        if not self._causal:
            mask = torch.zeros(1, 1, len(tokens), past + len(tokens))
        output = self._model.model(
            input_ids=torch.tensor([list(tokens)]),
            past_key_values=states,
            attention_mask=mask,
            use_cache=True,
            output_hidden_states=True,
        )
        self.tokens += len(tokens)
        return output.last_hidden_state[0], output.hidden_states[self._middle][0], output.past_key_values

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model.lm_head(hidden).float()
        return logits

    def _fail(self) -> None:
        if self.faults:
            raise self.faults.pop(0)


class _Job:
    def __init__(self, job: DecodeJob) -> None:
        self.job = job
        self.states: Any = None
        self.cached = 0
        self.last = 0
        self.new = 0
