"""From a model's source, as the configuration names it, to a folder that an engine loads.

``packaged:NAME``
    weights from an installed package, converted once into ``CACHE/models/NAME-SHA8-FORMAT/``
a path (absolute, or beginning with ``.`` or ``~``)
    a folder with ``config.json`` and safetensors, used as it is if :mod:`el4ner.models.safety` finds nothing in it that
    would run when it is loaded
``ORGANISATION/NAME`` or ``ORGANISATION/NAME@REVISION``
    a model of the hub, through ``huggingface_hub`` and its own cache
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from el4ner.errors import ModelError
from el4ner.models.catalogue import CATALOGUE, PREFIX, PackagedModel, packaged
from el4ner.models.digest import PIECE, remembered_sha256, sha256_of
from el4ner.models.locking import exclusive
from el4ner.models.progress import NO_PROGRESS, Progress
from el4ner.models.safety import check_folder

__all__ = ["ModelInfo", "default_cache_dir", "list_models", "prepare", "resolve", "verify"]

FORMAT: Final = 1
"""Of what :mod:`el4ner.models.convert` writes. Counting it up makes everybody convert again."""
MANIFEST: Final = "el4ner-model.json"
WEIGHTS: Final = "model.safetensors"
HUB_FILES: Final = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model", "*.txt")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A line of ``el4ner models list``. ``size_bytes``: of the prepared folder, else of the packaged files, else 0."""

    name: str
    source: str
    purpose: Literal["member", "embedder"]
    distribution: str
    licence: str
    parameters: int
    installed: bool
    prepared: bool
    size_bytes: int
    path: Path | None


def default_cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """``EL4NER_CACHE_DIR``, or ``el4ner`` in the user's cache."""
    if environ.get("EL4NER_CACHE_DIR"):
        return Path(environ["EL4NER_CACHE_DIR"]).expanduser()
    base = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".cache"
    return Path(base) / "el4ner"


def prepare(source: str, cache_dir: Path, progress: Progress = NO_PROGRESS) -> Path:
    """The folder of ``source``, made if it is not there yet. Processes that ask at once convert once.

    The weights of packaged models have the digest that is known of them when this returns: whoever parses them parses
    those. The bytes are read again only when the file's size or time has changed.

    Raises:
        ModelError: not installed, damaged, refused, or out of reach.
    """
    if source.startswith(PREFIX):
        model = packaged(source)
        if model.kind == "folder":
            folder = model.locate()[0]
            check_folder(folder)
            _expect_remembered(folder / WEIGHTS, model.sha256, cache_dir, f"reinstall {model.distribution}")
            return folder
        folder = _folder(model, cache_dir)
        if not _looks_whole(folder):
            _convert_once(model, folder, progress)
        check_folder(folder)
        made = str(_read_manifest(folder)["files"][WEIGHTS]["sha256"])
        _expect_remembered(folder / WEIGHTS, made, cache_dir, f"delete {folder}: it is made again")
        return folder
    if _is_path(source):
        return _checked_folder(Path(source).expanduser())
    return _from_hub(source, local_only=False)


def resolve(source: str, cache_dir: Path) -> Path | None:
    """The folder of ``source`` if it is there already; nothing is converted or fetched.

    Raises:
        ModelError: as :func:`prepare`, but None where it would have had to make the folder.
    """
    if source.startswith(PREFIX):
        model = packaged(source)
        if model.kind == "folder":
            return model.locate()[0]
        folder = _folder(model, cache_dir)
        return folder if _looks_whole(folder) else None
    if _is_path(source):
        return _checked_folder(Path(source).expanduser())
    try:
        return _from_hub(source, local_only=True)
    except ModelError:
        return None


def verify(source: str, cache_dir: Path, progress: Progress = NO_PROGRESS) -> None:
    """Read every byte of a packaged model again: the package's file, and what was made of it.

    Raises:
        ModelError: names the first file that is not what it was.
    """
    model = packaged(source)
    files = model.locate()
    if model.kind == "folder":
        weights = files[0] / WEIGHTS
        progress.start(f"{model.name}: verify", weights.stat().st_size)
        _expect(weights, model.sha256, progress)
        progress.done()
        return
    folder = _folder(model, cache_dir)
    if not _looks_whole(folder):
        raise ModelError(f"{source}: is not prepared: run `el4ner models prepare`")
    listed = _read_manifest(folder)["files"]
    progress.start(f"{model.name}: verify", sum(entry["size"] for entry in listed.values()))
    for name, entry in listed.items():
        _expect(folder / name, entry["sha256"], progress)
    progress.done()


def weights_digest(folder: Path) -> str | None:
    """The digest that conversion wrote beside the weights; None for folders that were not converted here."""
    if not (folder / MANIFEST).is_file():
        return None
    return str(_read_manifest(folder)["files"][WEIGHTS]["sha256"])


def list_models(cache_dir: Path) -> list[ModelInfo]:
    """Every packaged model, by name."""
    found = []
    for model in sorted(CATALOGUE.values(), key=lambda model: model.name):
        source = PREFIX + model.name
        installed = model.installed
        is_folder = model.kind == "folder"
        path = resolve(source, cache_dir) if installed or not is_folder else None
        size = 0
        if path is not None:
            size = _size([path])
        elif installed:
            size = _size(model.locate())
        found.append(
            ModelInfo(
                name=model.name,
                source=source,
                purpose=model.purpose,
                distribution=model.distribution,
                licence=model.licence,
                parameters=model.parameters,
                installed=installed,
                prepared=path is not None,
                size_bytes=size,
                path=path,
            )
        )
    return found


def _folder(model: PackagedModel, cache_dir: Path) -> Path:
    return cache_dir / "models" / f"{model.name}-{model.sha256[:8]}-{FORMAT}"


def _is_path(source: str) -> bool:
    return source.startswith(("/", ".", "~"))


def _convert_once(model: PackagedModel, folder: Path, progress: Progress) -> None:
    """Convert into a folder beside the final one and rename it: there is never half a model under the final name."""
    files = model.locate()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(folder.with_suffix(".lock")):
            if _looks_whole(folder):  # another process was faster
                return
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
                made = Path(scratch) / "model"
                made.mkdir()
                _convert_into(model, files, Path(scratch), made, progress)
                shutil.rmtree(folder, ignore_errors=True)
                made.rename(folder)
    except OSError as error:
        raise ModelError(f"{PREFIX}{model.name}: cannot be prepared in {folder.parent}: {error}") from error


def _convert_into(model: PackagedModel, files: list[Path], scratch: Path, made: Path, progress: Progress) -> None:
    from el4ner.models.convert import convert  # brings torch

    progress.start(f"{model.name}: check", _size(files))
    if len(files) == 1:
        gguf = files[0]
    else:
        gguf = scratch / "whole.gguf"
        with gguf.open("wb") as whole:
            for part in files:
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, whole, PIECE)
    _expect(gguf, model.sha256, progress)
    progress.done()
    convert(gguf, made, _Labelled(progress, model.name))
    outputs = sorted(path for path in made.iterdir() if path.is_file())
    progress.start(f"{model.name}: digest", _size(outputs))
    listed = {path.name: {"size": path.stat().st_size, "sha256": sha256_of(path, progress)} for path in outputs}
    manifest = {"format": FORMAT, "source": PREFIX + model.name, "source_sha256": model.sha256, "files": listed}
    (made / MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    progress.done()


class _Labelled:
    """Puts the model's name before every label."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name

    def start(self, label: str, total: int) -> None:
        self._progress.start(f"{self._name}: {label}", total)

    def advance(self, steps: int) -> None:
        self._progress.advance(steps)

    def done(self) -> None:
        self._progress.done()


def _looks_whole(folder: Path) -> bool:
    """Every file that the manifest lists is there and has its size. Cheap: contents are for :func:`verify`."""
    if not (folder / MANIFEST).is_file():
        return False
    manifest = _read_manifest(folder)
    return manifest.get("format") == FORMAT and all(
        (folder / name).is_file() and (folder / name).stat().st_size == entry["size"]
        for name, entry in manifest["files"].items()
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = orjson.loads((folder / MANIFEST).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ModelError(f"{folder / MANIFEST}: cannot be read: {error}: delete the folder") from error
    return manifest


def _expect(path: Path, sha256: str, progress: Progress) -> None:
    found = sha256_of(path, progress)
    if found != sha256:
        raise ModelError(f"{path}: is damaged: its sha256 is {found}, not {sha256}")


def _expect_remembered(path: Path, sha256: str, cache_dir: Path, remedy: str) -> None:
    try:
        found = remembered_sha256(path, cache_dir)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if found != sha256:
        raise ModelError(f"{path}: is damaged: its sha256 is {found}, not {sha256}: {remedy}")


def _size(paths: list[Path]) -> int:
    files = (file for path in paths for file in (path.rglob("*") if path.is_dir() else (path,)))
    return sum(file.stat().st_size for file in files if file.is_file())


def _checked_folder(folder: Path, *, shared: bool = False) -> Path:
    check_folder(folder, shared=shared)
    return folder


def _from_hub(source: str, *, local_only: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    name, _, revision = source.partition("@")
    try:
        folder = snapshot_download(
            name, revision=revision or None, allow_patterns=list(HUB_FILES), local_files_only=local_only
        )
    except HFValidationError as error:
        raise ModelError(f"{source}: is no packaged model, no path and no hub id") from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{source}: cannot be fetched from the model hub: {reason}") from error
    return _checked_folder(Path(folder), shared=True)
