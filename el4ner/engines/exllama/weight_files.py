"""What the weights of a folder take on a GPU when an ExLlama engine has loaded them, by the headers of its files."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Final

import orjson

from el4ner.errors import ModelError

__all__ = ["weight_bytes"]

_EMBEDDINGS: Final = ("embed_tokens", "tok_embeddings", "word_embeddings", "wte")
_NOT_LOADED: Final = ("vision_tower.", "vision_model.", "visual.", "multi_modal_projector.", "vision_encoder.")


def weight_bytes(folder: Path) -> int:
    """Weights on the GPU of a folder's model, by its safetensors files: all tensors but embeddings, which stay on the
    CPU, and vision towers, which are not loaded. Where there is no head of its own, the embeddings are loaded as one.

    Raises:
        ModelError: a file is no safetensors file, or there is none.
    """
    weights = embeddings = 0
    has_head = False
    files = _weight_files(folder)
    for file in files:
        for name, size in _loaded_sizes(file).items():
            if name.startswith(_NOT_LOADED) or any(f".{part}" in f".{name}" for part in _NOT_LOADED[:3]):
                continue
            if any(part in name for part in _EMBEDDINGS):
                embeddings += size
                continue
            has_head = has_head or "lm_head" in name or name.startswith("output.")
            weights += size
    if not files:
        raise ModelError(f"{folder}: has no .safetensors weights")
    return weights if has_head else weights + embeddings


def _weight_files(folder: Path) -> list[Path]:
    """The files that an index lists, if they are there, or else every one."""
    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            listed = set(orjson.loads(index.read_bytes())["weight_map"].values())
        except (OSError, orjson.JSONDecodeError, KeyError, AttributeError, TypeError):
            return files
        chosen = [file for file in files if file.name in listed]
        # A quantised folder may still have the index of what it was made of.
        return chosen if len(chosen) == len(listed) else files
    return files


def _loaded_sizes(file: Path) -> dict[str, int]:
    """Bytes of every tensor, by its name."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - it is no dictionary
            return {name: _loaded_size(part.get_dtype(), part.get_shape()) for name, part in slices.items()}
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise ModelError(f"{file}: is no safetensors file: {error}") from error


def _loaded_size(dtype: str, shape: list[int]) -> int:
    """``dtype`` as safetensors names it: ``BF16``, ``I32``, ``F8_E4M3``, ``BOOL``."""
    width = re.search(r"\d+", dtype)
    bits = int(width[0]) if width else 8
    # Both libraries keep numbers of 32 and 64 bits that are no packed weights in 16.
    return math.prod(shape) * (16 if dtype in ("F32", "F64") else bits) // 8
