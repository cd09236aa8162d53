"""Recorded work without a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Replays:
    """Keeps a CUDA graph's contract on the processor: a replay reads what the recorded tensors hold now, and writes to
    the tensor that recording gave. ``spoil`` changes what it writes."""

    def __init__(self, spoil: Callable[[torch.Tensor], torch.Tensor] = lambda result: result) -> None:
        self.recorded = 0
        self.replayed = 0
        self._spoil = spoil

    def record(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        self.recorded += 1
        result = torch.full_like(work(), float("nan"))

        def replay() -> None:
            self.replayed += 1
            result.copy_(self._spoil(work()))

        return replay, result
