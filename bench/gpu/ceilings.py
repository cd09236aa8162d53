"""What the same card does at best: matrix products of large and of the model's own sizes, and copying memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

from gpu.record import Record
from gpu.shapes import Shape

__all__ = ["measure"]

TOKENS: Final = 2048
"""Rows of the products of a model's sizes: what one pass over prompts reads."""
REPEATS: Final = 12


def measure(record: Record, shapes: dict[str, Shape], *, cpu: bool) -> None:
    """``products`` in TFLOP/s (median of timed runs, spread), ``gigabytes_per_second`` of a copy, read and written."""
    import torch

    device = "cpu" if cpu else "cuda"
    side = 512 if cpu else 8192
    types = (torch.float32,) if cpu else (torch.bfloat16, torch.float16)
    for dtype in types:
        kind = str(dtype).removeprefix("torch.")
        record.doing(f"{kind} products")
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        out = torch.empty(side, side, device=device, dtype=dtype)
        _put(record, f"{side}³", kind, 2 * side**3, lambda a=left, b=right, c=out: torch.mm(a, b, out=c), cpu=cpu)
        for name, shape in shapes.items():
            made = [
                (
                    torch.randn(TOKENS if not cpu else 64, inputs, device=device, dtype=dtype),
                    torch.randn(outputs, inputs, device=device, dtype=dtype),
                )
                for _, inputs, outputs in shape.linears()
            ]
            rows = made[0][0].shape[0]
            flop = 2 * rows * shape.in_layers // shape.layers

            def layer(pairs: list[tuple[Any, Any]] = made) -> None:
                for rows_of, weight in pairs:
                    torch.nn.functional.linear(rows_of, weight)

            _put(record, f"{name}: a layer's matrices, {rows} tokens", kind, flop, layer, cpu=cpu, model=name)
    record.doing("memory")
    size = (1 << 24) if cpu else (1 << 32)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = _timed(lambda: target.copy_(source), cpu=cpu)
    record.put(gigabytes_per_second=2 * size / statistics.median(seconds) / 1e9, copied_bytes=size)
    record.doing(None)


def _put(
    record: Record, what: str, kind: str, flop: int, work: Callable[[], Any], *, cpu: bool, model: str | None = None
) -> None:
    rates = [flop / seconds / 1e12 for seconds in _timed(work, cpu=cpu)]
    record.row(
        "products",
        what=what,
        kind=kind,
        model=model,
        tflops=statistics.median(rates),
        least=min(rates),
        most=max(rates),
    )


def _timed(work: Callable[[], Any], *, cpu: bool) -> list[float]:
    """Seconds of each run, after warming up."""
    import torch

    for _ in range(3):
        work()
    if cpu:
        seconds = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - began)
        return seconds
    torch.cuda.synchronize()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(REPEATS + 1)]
    marks[0].record()
    for mark in marks[1:]:
        work()
        mark.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) / 1000 for before, after in pairwise(marks)]
