"""Configurations as they were written before transformers 5, which is how the ExLlama libraries read them.

transformers 5 keeps the base of the rotary positions in ``rope_parameters``. ExLlamaV2 0.3.2 looks for ``rope_theta``,
finds nothing and takes 10,000: the model loads, and reads every prompt wrongly, without a word.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from el4ner.errors import ModelError
from el4ner.models.locking import exclusive
from el4ner.models.safety import check_folder
from el4ner.models.shapes import read_config

__all__ = ["legacy_config", "legacy_folder", "stage"]

_UNSTAGED: Final = frozenset({".bin", ".ckpt", ".gguf", ".pt", ".pth", ".pkl", ".py"})
"""Suffixes of what no converter and no engine of ours reads."""


def legacy_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with the keys of transformers 4: ``rope_theta``, ``rope_scaling``, ``partial_rotary_factor`` and, for
    Gemma 3, ``rope_local_base_freq``. One that has no newer keys comes back as it is."""
    legacy = dict(config)
    inner = legacy.get("text_config")
    if isinstance(inner, Mapping):
        legacy["text_config"] = legacy_config(inner)
    parameters = legacy.get("rope_parameters")
    if isinstance(parameters, Mapping):
        del legacy["rope_parameters"]
        whole, sliding = parameters.get("full_attention"), parameters.get("sliding_attention")
        if isinstance(sliding, Mapping) and "rope_theta" in sliding:
            legacy.setdefault("rope_local_base_freq", sliding["rope_theta"])
        scaling = dict(whole if isinstance(whole, Mapping) else parameters)
        for key in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings"):
            if key in scaling and legacy.get(key) is None:
                legacy[key] = scaling[key]
            if key != "original_max_position_embeddings":
                scaling.pop(key, None)
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind != "default" and legacy.get("rope_scaling") is None:
            legacy["rope_scaling"] = scaling
    scaling_now = legacy.get("rope_scaling")
    if isinstance(scaling_now, Mapping) and "type" in scaling_now and "rope_type" in scaling_now:
        # ExLlamaV2 refuses a table that says it in both ways.
        legacy["rope_scaling"] = {key: value for key, value in scaling_now.items() if key != "type"}
    return legacy


def legacy_folder(folder: Path, cache_dir: Path) -> Path:
    """``folder`` if the ExLlama libraries read its configuration rightly, else one beside it in the cache, made once: a
    configuration that they do, and links to everything else.

    Raises:
        ModelError: the folder is no model's, or the cache cannot be written.
    """
    config = read_config(folder)
    if legacy_config(config) == config:
        return folder
    legacy = legacy_config(config)
    # Links lead to files by their path; others would be meant by the same path with another configuration.
    key = hashlib.sha256(
        f"{folder.resolve()}\n".encode() + orjson.dumps(legacy, option=orjson.OPT_SORT_KEYS)
    ).hexdigest()
    target = cache_dir / "exllama" / f"{folder.name}-{key[:12]}"
    try:
        with exclusive(target.with_name(f"{target.name}.lock")):
            if not _is_whole(target):
                shutil.rmtree(target, ignore_errors=True)
                with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
                    new = Path(scratch) / "model"
                    stage(folder, new)
                    new.rename(target)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be made readable in {target.parent}: {error}") from error
    check_folder(target)
    return target


def _is_whole(target: Path) -> bool:
    """It was made, and everything that it links to is still there."""
    return (target / "config.json").is_file() and all(file.exists() for file in target.iterdir())


def stage(folder: Path, target: Path, *, leave_out: frozenset[str] = frozenset()) -> None:
    """Make the folder ``target``: :func:`legacy_config` of the model in ``folder``, and links to its other files.

    Code, pickles and the names in ``leave_out`` are left out.

    Raises:
        ModelError: the configuration cannot be read.
    """
    config = legacy_config(read_config(folder))
    target.mkdir(parents=True)
    for file in sorted(folder.iterdir()):
        wanted = file.name != "config.json" and file.name not in leave_out and file.suffix.lower() not in _UNSTAGED
        if wanted and file.is_file():
            (target / file.name).symlink_to(file.resolve())
    (target / "config.json").write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2))
