"""``el4ner-model.json``: what was made of a model's weights, beside it: every file with its size and digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from el4ner.errors import ModelError
from el4ner.models.digest import sha256_of
from el4ner.models.progress import NO_PROGRESS, Progress

__all__ = [
    "MANIFEST",
    "WEIGHTS",
    "expect",
    "looks_whole",
    "read_manifest",
    "size_of",
    "weights_digest",
    "write_manifest",
]

MANIFEST: Final = "el4ner-model.json"
WEIGHTS: Final = "model.safetensors"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        manifest: dict[str, Any] = orjson.loads((folder / MANIFEST).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ModelError(f"{folder / MANIFEST}: cannot be read: {error}: delete the folder") from error
    return manifest


def write_manifest(folder: Path, facts: Mapping[str, Any], progress: Progress = NO_PROGRESS) -> None:
    """List the files of ``folder`` with their digests, and ``facts`` before them. ``progress`` advances by bytes."""
    outputs = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    listed = {path.name: {"size": path.stat().st_size, "sha256": sha256_of(path, progress)} for path in outputs}
    content = orjson.dumps({**facts, "files": listed}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    (folder / MANIFEST).write_bytes(content)


def looks_whole(folder: Path, form: int) -> bool:
    """Every file that the manifest lists is there and has its size, and it is of the format ``form``. Cheap."""
    if not (folder / MANIFEST).is_file():
        return False
    manifest = read_manifest(folder)
    return manifest.get("format") == form and all(
        (folder / name).is_file() and (folder / name).stat().st_size == entry["size"]
        for name, entry in manifest["files"].items()
    )


def weights_digest(folder: Path) -> str | None:
    """The digest that stands in the manifest beside the weights, of several files one over all of theirs; None for
    folders that were not made here."""
    if not (folder / MANIFEST).is_file():
        return None
    files = read_manifest(folder)["files"]
    if WEIGHTS in files:
        return str(files[WEIGHTS]["sha256"])
    parts = [f"{name} {entry['sha256']}" for name, entry in sorted(files.items()) if name.endswith(".safetensors")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest() if parts else None


def expect(path: Path, sha256: str, progress: Progress = NO_PROGRESS) -> None:
    """Raise a ModelError if the file is not what it was."""
    found = sha256_of(path, progress)
    if found != sha256:
        raise ModelError(f"{path}: is damaged: its sha256 is {found}, not {sha256}")


def size_of(paths: list[Path]) -> int:
    """Bytes of files, and of all files in folders."""
    files = (file for path in paths for file in (path.rglob("*") if path.is_dir() else (path,)))
    return sum(file.stat().st_size for file in files if file.is_file())
