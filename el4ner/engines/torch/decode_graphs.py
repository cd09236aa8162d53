"""Decoding steps that are recorded once and replayed: one launch instead of a thousand.

A step of a small model is some thousand kernels of a few microseconds each; asking for them one by one takes the host
longer than the card needs to run them. A CUDA graph asks for all at once, but it always reads and writes the same
memory and has fixed shapes. So answers are decoded in states that stay where they are (:class:`DecodingStates`), rows
are filled up to a power of two, and keys to a multiple of 256.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch

from el4ner.engines.capturing import RECORDING, NoWaits
from el4ner.engines.device_copies import upload
from el4ner.engines.torch.attention_plans import AttentionPlan, DecodingPlan

__all__ = ["CudaRecorder", "DecodeGraphs", "DecodingStates", "Recorder"]

log = logging.getLogger(__name__)

KEYS: Final = 256
_WORTH: Final = 4
"""Steps of one shape before it is recorded: recording takes as long as three or four of them."""
_KEPT: Final = 48
"""Graphs; the least recently used goes first."""
_TOLERANCE: Final = {torch.float32: 1e-3}
_ROUGH: Final = 0.1
"""How far replayed logits may be from those that are computed without, as a part of their norm, in other types."""

Forward = Callable[[torch.Tensor, torch.Tensor, AttentionPlan], torch.Tensor]
"""(ids ``[1, rows]``, positions ``[1, rows]``, plan) → logits ``[rows, vocabulary]``."""


class Recorder(Protocol):
    """Records work on tensors that stay where they are."""

    def record(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        """(do the work again, the tensor that it writes its result to)."""


class CudaRecorder:
    """By CUDA graphs, which share one pool of memory.

    Args:
        device: where the work is. It need not be the thread's current one: a stream of another would record nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = None
        self._graphs: weakref.WeakSet[Any] = weakref.WeakSet()
        self._pool: Any = None

    def record(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        """See :class:`Recorder`. Raises RuntimeError if the work waits for the device, which cannot be recorded."""
        with torch.cuda.device(self._device), RECORDING:
            current = torch.cuda.current_stream()
            if self._stream is None:
                self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            if not len(self._graphs):  # a pool that no graph uses any more is refused as long as it has memory
                self._pool = torch.cuda.graph_pool_handle()
            self._stream.wait_stream(current)
            # Libraries allocate a workspace for each stream when it is first used: that must not be the pool's memory.
            with torch.cuda.stream(self._stream):
                work()
            current.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Another member's thread may allocate memory on the same card meanwhile: no error of this thread's.
            recording = torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local")
            try:
                with recording:
                    result = work()
            finally:
                torch.cuda.set_stream(current)  # not every torch goes back to it where recording fails
            self._graphs.add(graph)
        return graph.replay, result


class DecodingStates:
    """Key-value states that groups of rows borrow, one after the other: memory that stays where it is.

    Args:
        layers: of the model.
        kv_heads: of the model.
        head_dim: of the model.
        dtype: of the states.
        device: of the states.
    """

    def __init__(self, layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self._layers = layers
        self._shape = (kv_heads, head_dim)
        self._dtype = dtype
        self._device = device
        self._memory: torch.Tensor | None = None

    def group(self, rows: int, capacity: int) -> tuple[torch.Tensor, bool]:
        """``[layers, 2, rows, kv heads, capacity, head_dim]``, every number finite, and whether it lies where the last
        one of that shape lay. What an earlier group held is lost."""
        kv_heads, head_dim = self._shape
        size = rows * kv_heads * capacity * head_dim
        moved = self._memory is None or self._memory.shape[2] < size
        if self._memory is None or moved:
            self._memory = None  # given back before the larger one is asked for
            self._memory = torch.zeros((self._layers, 2, size), dtype=self._dtype, device=self._device)
        shape = (self._layers, 2, rows, kv_heads, capacity, head_dim)
        return self._memory[:, :, :size].view(shape), not moved

    def release(self) -> None:
        """Give the memory back."""
        self._memory = None


@dataclass(frozen=True, slots=True)
class _Recorded:
    inputs: torch.Tensor
    """``[2, rows]``: ids and lengths."""
    replay: Callable[[], None]
    logits: torch.Tensor


class DecodeGraphs:
    """Decoding steps of one model, recorded by shape.

    Args:
        forward: one step of the model.
        states: where its rows are.
        recorder: how a step is recorded.
        dtype: the model's.
        device: the model's.
    """

    def __init__(
        self, forward: Forward, states: DecodingStates, recorder: Recorder, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._forward = forward
        self._states = states
        self._recorder = recorder
        self._dtype = dtype
        self._device = device
        self._recorded: OrderedDict[tuple[int, int, int], _Recorded] = OrderedDict()
        self._steps: dict[tuple[int, int, int], int] = {}
        self._off = False

    def group(self, rows: int, capacity: int) -> torch.Tensor:
        """Room for ``rows`` rows of ``capacity`` tokens, rounded up to what graphs are recorded for."""
        group, stays = self._states.group(*_rounded(rows, capacity))
        if not stays:
            self.clear()
        return group

    @staticmethod
    def room(rows: int, capacity: int) -> int:
        """Tokens that :meth:`group` takes room for."""
        rows, capacity = _rounded(rows, capacity)
        return rows * capacity

    def step(self, group: torch.Tensor, tokens: Sequence[int], lengths: Sequence[int]) -> torch.Tensor | None:
        """Logits ``[rows, vocabulary]`` behind ``tokens[row]``, read behind the ``lengths[row]`` tokens of row ``row``;
        valid until the next step. None: this shape is not recorded (yet): do it without."""
        rows = min(_power_of_two(len(tokens)), group.shape[2])
        keys = min(-(-(max(lengths) + 1) // KEYS) * KEYS, group.shape[4])
        shape = (group.shape[4], rows, keys)
        recorded = self._recorded.get(shape)
        if recorded is None:
            self._steps[shape] = self._steps.get(shape, 0) + 1
            if self._off or self._steps[shape] < _WORTH:
                return None
            recorded = self._record(group, shape, tokens, lengths)
            if recorded is None:
                return None
        self._recorded.move_to_end(shape)
        recorded.inputs.copy_(self._inputs(rows, tokens, lengths), non_blocking=True)
        recorded.replay()
        return recorded.logits[: len(tokens)]

    def clear(self) -> None:
        """Forget what is recorded: the states moved."""
        self._recorded.clear()
        self._steps.clear()

    def release(self) -> None:
        """Forget everything, and give the memory back."""
        self.clear()
        self._states.release()

    def _inputs(self, rows: int, tokens: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
        """Rows beyond those that decode write to the first place of states that nobody uses."""
        inputs = np.zeros((2, rows), dtype=np.int64)
        inputs[0, : len(tokens)] = tokens
        inputs[1, : len(lengths)] = lengths
        return upload([inputs], self._device)[0].view(2, rows)

    def _record(
        self, group: torch.Tensor, shape: tuple[int, int, int], tokens: Sequence[int], lengths: Sequence[int]
    ) -> _Recorded | None:
        """Record a step, and compare it with one that is not."""
        _, rows, keys = shape
        inputs = self._inputs(rows, tokens, lengths).clone()

        def work() -> torch.Tensor:
            plan = DecodingPlan(group, inputs[1], keys, self._dtype)
            return self._forward(inputs[:1], inputs[1:], plan)

        try:
            # Before anything is recorded: a recording that fails cannot be taken back.
            with NoWaits():  # type: ignore[no-untyped-call]
                expected = work()[: len(tokens)].clone()
            replay, logits = self._recorder.record(work)
            logits.fill_(float("nan"))  # a recording of nothing leaves them as they are
            replay()
            apart = float(((logits[: len(tokens)] - expected).norm(dim=-1) / expected.norm(dim=-1)).max())
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            apart, reason = float("inf"), str(error)
        else:
            reason = f"replayed steps differ by {apart:.1%}"
        if not apart <= _TOLERANCE.get(self._dtype, _ROUGH):
            self._off = True
            self.clear()
            log.warning("decode-graphs-off", extra={"reason": reason})
            return None
        while len(self._recorded) >= _KEPT:
            self._recorded.popitem(last=False)
        recorded = _Recorded(inputs, replay, logits)
        self._recorded[shape] = recorded
        return recorded


def _rounded(rows: int, capacity: int) -> tuple[int, int]:
    """What graphs are recorded for."""
    return _power_of_two(rows), -(-capacity // KEYS) * KEYS


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
