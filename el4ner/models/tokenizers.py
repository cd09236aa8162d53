"""A model's tokenizer alone, for engines whose weights are elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from el4ner.errors import ModelError
from el4ner.models.prepare import prepare
from el4ner.models.safety import check_folder

__all__ = ["tokenizer_folder"]

_FILES: Final = (
    "tokenizer*",
    "*.jinja",
    "special_tokens_map.json",
    "config.json",
    "generation_config.json",
    "vocab.*",
    "merges.txt",
)


def tokenizer_folder(source: str, cache_dir: Path) -> Path:
    """A folder with the tokenizer of ``source``. Of a hub's model the weights are not fetched.

    Raises:
        ModelError: it cannot be had, or holds what is refused.
    """
    if ":" in source or source.startswith(("/", ".", "~")):
        return prepare(source, cache_dir)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    name, _, revision = source.partition("@")
    try:
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=list(_FILES)))
    except HFValidationError as error:
        raise ModelError(f"{source}: is no packaged model, no path and no hub id") from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{source}: cannot be fetched from the model hub: {reason}") from error
    check_folder(folder, shared=True)
    return folder
