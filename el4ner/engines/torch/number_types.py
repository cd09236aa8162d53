"""What a model computes in on its device, where the settings leave it open.

Bfloat16 is nearest to float32 and takes half of its memory, but a processor that has it need not be fast at it: on a
Xeon with AVX512-BF16 and no AMX torch multiplied it at little more than half of float32's speed, on one with AMX at 2.5
times that speed. So both are timed, once on a machine.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import orjson
import torch
from torch import nn

from el4ner.engines.torch.int8_linear import multiplies_int8
from el4ner.engines.torch.row_blocks import block_rows
from el4ner.errors import ModelError
from el4ner.models.files import write_atomically
from el4ner.models.locking import exclusive
from el4ner.models.self_checks import check_key, processor

__all__ = ["FASTER", "TIMED", "Precision", "choose_precision", "has_bfloat16", "layer_seconds"]

Precision = Literal["bfloat16", "float32", "int8"]
"""What a model computes in. ``int8``: its linear layers multiply 8-bit integers, everything else is float32."""
FASTER: Final = 1.25
"""Times float32's speed that bfloat16's products must have: less than that gains no more than int8 does anywhere."""
TIMED: Final = "number-types.json"
"""In the cache folder: how fast bfloat16 was on this machine."""
_ROWS: Final = 256
_WIDTHS: Final = (640, 2048)
"""Of the timed layers: those of Gemma 3 270M, in and out."""
_TURNS: Final = 5
_MOST: Final = 20
"""Kept results: those of other versions of torch are of no use any more."""
log: Final = logging.getLogger(__name__)


def choose_precision(
    name: str,
    wanted: Literal["auto", "bfloat16", "float32", "int8"],
    place: torch.device,
    cache_dir: Path,
) -> Precision:
    """What the model ``name`` computes in at ``place``; ``auto``: bfloat16 on a GPU, and on a processor that has it and
    multiplies it at least :data:`FASTER` times as fast as float32; else int8, or float32 where that does not go.

    Raises:
        ModelError: int8 is wanted where it does not go.
    """
    if wanted == "int8" and place.type != "cpu":
        raise ModelError(f"{name}: int8 is for processors: set models.{name}.dtype to bfloat16, or to auto")
    if wanted == "int8" and not multiplies_int8():
        raise ModelError(f"{name}: no int8 on this processor with this torch: set models.{name}.dtype to auto")
    if wanted != "auto":
        return wanted
    if place.type == "cuda" or (has_bfloat16() and _multiplies_bfloat16_faster(cache_dir)):
        return "bfloat16"
    return "int8" if multiplies_int8() else "float32"


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware. Elsewhere it is emulated, and slower.

    What torch was told to make do with counts, too (``ATEN_CPU_CAPABILITY``): so a machine that has bfloat16 shows how
    fast one without it is.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check)() for check in checks if hasattr(torch.cpu, check))


def layer_seconds() -> dict[str, float]:
    """Seconds of one core that 256 rows take through two linear layers as the engine has them, in ``bfloat16`` and in
    ``float32``.

    By turns, on one thread, in its own processor time, and the fastest of each: what else the machine does meanwhile
    makes a turn slower, never faster.
    """
    best: dict[str, float] = {}
    with torch.inference_mode(), _one_thread():
        layers, inputs = {}, {}
        for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
            few, many = _WIDTHS
            made = nn.Sequential(_linear(few, many, dtype), _linear(many, few, dtype))
            if dtype == torch.bfloat16:
                block_rows(made)
            layers[name] = made
            inputs[name] = torch.linspace(-1, 1, _ROWS * few).view(_ROWS, few).to(dtype)
            made(inputs[name])  # kernels are made
        for _ in range(_TURNS):
            for name, made in layers.items():
                began = time.thread_time()
                made(inputs[name])
                took = time.thread_time() - began
                best[name] = min(took, best.get(name, took))
    return best


def _linear(inputs: int, outputs: int, dtype: torch.dtype) -> nn.Linear:
    """Without drawing weights by chance: others may have set torch's seed."""
    linear = nn.Linear(inputs, outputs, bias=False, device="meta")
    # Not by `to_empty`, which imports SymPy.
    linear.weight = nn.Parameter(torch.full((outputs, inputs), 0.01, dtype=dtype), requires_grad=False)
    return linear


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _multiplies_bfloat16_faster(cache_dir: Path) -> bool:
    """As it was timed on this machine before, or is now. One process times while others wait for it, so that all of
    them compute in the same type; a folder that cannot be written costs each a quarter of a second."""
    key = check_key(processor(), torch.__version__)
    times = _timed(cache_dir).get(key)
    if times is None:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                stack.enter_context(exclusive(cache_dir / f"{TIMED}.lock"))
            times = _timed(cache_dir).get(key) or _time_now(key, cache_dir)
    return times >= FASTER


def _time_now(key: str, cache_dir: Path) -> float:
    seconds = layer_seconds()
    times = seconds["float32"] / seconds["bfloat16"]
    log.info(
        "bfloat16 multiplies at %.2f times the speed of float32 here: dtype = auto %s it",
        times,
        "takes" if times >= FASTER else "does not take",
    )
    results = {**_timed(cache_dir), key: times}
    with contextlib.suppress(OSError):
        write_atomically(cache_dir / TIMED, orjson.dumps(dict(list(results.items())[-_MOST:])))
    return times


def _timed(cache_dir: Path) -> dict[str, float]:
    """How many times float32's speed bfloat16 has, by key; what cannot be read is timed again."""
    try:
        return {key: float(times) for key, times in orjson.loads((cache_dir / TIMED).read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
