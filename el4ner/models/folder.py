"""What an engine wants to know of a model's folder besides its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from el4ner.errors import ModelError
from el4ner.models.digest import remembered_sha256, sha256_of
from el4ner.models.prepare import weights_digest

__all__ = ["folder_digest", "listed_end_tokens", "model_digest"]

_SMALL: Final = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def folder_digest(path: Path, cache_dir: Path) -> str:
    """Of everything in the folder that makes the answers: weights (digested once, remembered) and the small files."""
    return _digest(path, cache_dir, _SMALL)


def model_digest(path: Path, cache_dir: Path) -> str:
    """Of the weights and of how they are run: the same on every machine, whichever release of a library wrote the
    tokenizer's file."""
    return _digest(path, cache_dir, _SMALL[:1])


def _digest(path: Path, cache_dir: Path, small: Sequence[str]) -> str:
    known = weights_digest(path)
    parts = [known] if known else [remembered_sha256(file, cache_dir) for file in sorted(path.glob("*.safetensors"))]
    parts += [f"{name} {sha256_of(path / name)}" for name in small if (path / name).is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def listed_end_tokens(path: Path) -> frozenset[int]:
    """The tokens that end an answer by ``generation_config.json``, or by ``config.json``.

    Raises:
        ModelError: one of them cannot be read.
    """
    for name in ("generation_config.json", "config.json"):
        file = path / name
        if not file.is_file():
            continue
        try:
            read: dict[str, Any] = orjson.loads(file.read_bytes())
        except orjson.JSONDecodeError as error:
            raise ModelError(f"{file}: cannot be read: {error}") from error
        ends = read.get("eos_token_id")
        if ends is not None:
            return frozenset(int(end) for end in (ends if isinstance(ends, list) else [ends]))
    return frozenset()
