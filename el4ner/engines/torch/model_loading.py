"""A folder of safetensors as a model of transformers on its device, and its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from el4ner.engines.torch.heap import give_back_freed_memory
from el4ner.engines.torch.int8_linear import LayerInput, watched_inputs
from el4ner.engines.torch.lean_transformers import without_compiler
from el4ner.engines.torch.meta_init import SkipMetaInit
from el4ner.engines.torch.number_types import Precision
from el4ner.engines.torch.packed_model import IMPLEMENTATION
from el4ner.engines.torch.row_blocks import block_rows
from el4ner.engines.torch.stored_tables import store_tables, widen, written_in_bfloat16
from el4ner.errors import ModelError
from el4ner.models.tokenizers import load_tokenizer

__all__ = ["LoadedModel", "choose_device", "load_model"]

_WATCHED: Final = """You tag named entities in texts.
Text: On Monday, Angela Merkel met Emmanuel Macron in Paris, as Reuters reported; 3.5 % of 10.0.0.1 said: user_id=42 \
(failed).
- Angela Merkel
Text: the old football club won again at its new ground in Manchester, 2:1!
- Manchester
"""
"""What a model reads when the largest columns of its layers' inputs are looked for."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """``model`` of transformers in its place, and its tokenizer.

    ``precision``: what it is to compute in. Layers that are to multiply int8 still have their weights as they were
    loaded; ``int8_inputs`` are their inputs by the layers' names in ``layers``
    (:func:`el4ner.engines.torch.int8_linear.quantize_linears`).
    """

    model: Any
    tokenizer: Any
    precision: Precision
    int8_inputs: Mapping[str, LayerInput] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """Of hidden states."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    @property
    def layers(self) -> torch.nn.Module:
        """All but the tables of tokens."""
        return _layers(self.model)


def load_model(path: Path, place: torch.device, precision: Precision) -> LoadedModel:
    """The model in the folder ``path``, at ``place``."""
    with _no_progress_bars():
        tokenizer = load_tokenizer(path)
    give_back_freed_memory()  # a quarter of a gigabyte for a large vocabulary, and weights come next
    narrows = place.type == "cpu" and precision != "bfloat16" and written_in_bfloat16(path)
    with _no_progress_bars(), without_compiler(), SkipMetaInit(torch.bfloat16 if narrows else None):
        model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32,
            attn_implementation=IMPLEMENTATION,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        ).eval()
    if place.type == "cpu" and precision != "bfloat16":
        widen(model, layers=precision == "float32")
        store_tables(model, path)
    if place.type == "cpu" and precision == "bfloat16":
        block_rows(model)
    inputs = _int8_inputs(model, tokenizer) if precision == "int8" else {}
    return LoadedModel(model.to(place), tokenizer, precision, inputs)


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


def _layers(model: Any) -> torch.nn.Module:
    layers: torch.nn.Module = getattr(model.base_model, "layers", model.base_model)
    return layers


def _int8_inputs(model: Any, tokenizer: Any) -> Mapping[str, LayerInput]:
    """Of the layers that a text goes through."""
    model.set_attn_implementation("sdpa")
    try:
        with torch.inference_mode(), watched_inputs(_layers(model)) as inputs:
            model.base_model(input_ids=torch.tensor([tokenizer(_WATCHED)["input_ids"]]), use_cache=False)
    finally:
        model.set_attn_implementation(IMPLEMENTATION)
    return inputs


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
