"""A folder of safetensors as a model of transformers on its device, and its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from el4ner.engines.torch.lean_transformers import without_compiler
from el4ner.engines.torch.meta_init import SkipMetaInit
from el4ner.engines.torch.packed_model import IMPLEMENTATION
from el4ner.engines.torch.stored_tables import store_tables
from el4ner.errors import ModelError
from el4ner.models.tokenizers import load_tokenizer

__all__ = ["choose_device", "load_model"]


def load_model(path: Path, place: torch.device, dtype: str) -> tuple[Any, Any, torch.dtype]:
    """The model, ready to answer at ``place``, its tokenizer, and the type that it computes in. ``dtype``: ``auto``,
    ``bfloat16`` or ``float32``."""
    use_bfloat16 = dtype == "bfloat16" or (dtype == "auto" and (place.type == "cuda" or fast_bfloat16()))
    computes_in = torch.bfloat16 if use_bfloat16 else torch.float32
    with _no_progress_bars():
        tokenizer = load_tokenizer(path)
    with _no_progress_bars(), without_compiler(), SkipMetaInit():
        model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=computes_in,
            attn_implementation=IMPLEMENTATION,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        ).eval()
    if place.type == "cpu" and not use_bfloat16:
        store_tables(model)
    return model.to(place), tokenizer, computes_in


def choose_device(name: str, wanted: str) -> torch.device:
    """Where the model ``name`` goes. Raises ModelError if there is no such place."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        place = torch.device("cuda" if count else "cpu") if wanted == "auto" else torch.device(wanted)
    except RuntimeError as error:
        raise ModelError(f"{name}: there is no device {wanted!r}: write auto, cpu, cuda or cuda:1") from error
    if place.type not in ("cpu", "cuda"):
        raise ModelError(f"{name}: no models run on {wanted!r} here: write auto, cpu, cuda or cuda:1")
    if place.type == "cuda" and (place.index or 0) >= count:
        there = f"sees {count} ({'cuda:0' if count == 1 else f'cuda:0 to cuda:{count - 1}'})" if count else "sees none"
        raise ModelError(
            f"{name}: device {wanted!r} is not there: torch {there}; set models.{name}.device to another, or to auto"
        )
    return place


def fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware: then prefill is 2.5 times as fast as in float32 (measured,
    AVX512-BF16). Elsewhere it is emulated, and slower."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check)() for check in checks if hasattr(torch.cpu, check))


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """transformers draws on stderr, where the command line draws its own."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
