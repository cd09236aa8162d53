"""What a model's folder may hold: weights as safetensors, and nothing that would run when it is loaded.

Pickled weights run code while they are read, a configuration with ``auto_map`` (or a module class that is not
sentence-transformers' own) names code beside the weights. Libraries refuse some of it, depending on version and
options; here all of it is refused before a library sees the folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import orjson

from el4ner.errors import ModelError

__all__ = ["PICKLED", "check_folder"]

PICKLED: Final = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
"""Suffixes of files that are pickles, or may be."""
CONFIGURATIONS: Final = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
MODULES: Final = "modules.json"
_MODULE = re.compile(r"sentence_transformers(?:\.\w+)*\.(?:Transformer|Pooling|Normalize|Dense|LayerNorm)")
"""Module classes that load nothing but safetensors and JSON, and no further classes by name."""


def check_folder(folder: Path, *, shared: bool = False) -> None:
    """Look at names and configurations; weights are not opened.

    Args:
        folder: what would be loaded.
        shared: other programs keep files there too (the hub's cache), so that pickles beside safetensors are passed
            over; they are not read either.

    Raises:
        ModelError: it is no folder of a model, or something in it is refused.
    """
    if folder.is_file():
        what = "a pickle: loading it would run its code" if folder.suffix.lower() in PICKLED else "a file"
        raise ModelError(f"{folder}: is {what}; give a folder with config.json and .safetensors weights")
    if not folder.is_dir():
        raise ModelError(f"{folder}: there is no such folder")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: has no config.json")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    safe = {file.parent for file in files if file.suffix == ".safetensors"}
    for file in files:
        if file.suffix.lower() in PICKLED and not (shared and file.parent in safe):
            raise ModelError(
                f"{folder}: {file.relative_to(folder)} is a pickle: loading it would run its code; remove it, or "
                "convert the weights to safetensors"
            )
        if file.suffix == ".py":
            raise ModelError(f"{folder}: {file.relative_to(folder)} is code of the model's own, which is never run")
    if folder not in safe:
        raise ModelError(f"{folder}: has no .safetensors weights")
    for name in CONFIGURATIONS:
        if (folder / name).is_file() and "auto_map" in _read(folder / name, dict):
            raise ModelError(f"{folder / name}: auto_map names code of the model's own, which is never run")
    if (folder / MODULES).is_file():
        for module in _read(folder / MODULES, list):
            kind = module.get("type") if isinstance(module, dict) else module
            if not isinstance(kind, str) or not _MODULE.fullmatch(kind):
                raise ModelError(f"{folder / MODULES}: {kind!r} is no module class that is known to load no code")


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, kind):
        raise ModelError(f"{path}: is not what a model's folder has under that name")
    return found
