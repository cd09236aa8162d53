"""From a model's source, as the configuration names it, to a folder that an engine loads.

``packaged:NAME``
    weights from an installed package, converted once into ``CACHE/models/NAME-SHA8-FORMAT/``
a path (absolute, or beginning with ``.`` or ``~``)
    a folder with ``config.json`` and safetensors, used as it is if :mod:`el4ner.models.safety` finds nothing in it that
    would run when it is loaded
``quantized:SOURCE@4.0bpw``
    what ``el4ner models quantize`` made of any of these, in ``CACHE/quantized/``; never made on the way
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
from typing import Final, Literal

from el4ner.errors import ModelError
from el4ner.models.architectures import format_of
from el4ner.models.catalogue import CATALOGUE, PREFIX, PackagedModel, packaged
from el4ner.models.digest import PIECE, remembered_sha256
from el4ner.models.known import KNOWN
from el4ner.models.locking import exclusive
from el4ner.models.manifest import WEIGHTS, expect, looks_whole, read_manifest, size_of, weights_digest, write_manifest
from el4ner.models.progress import NO_PROGRESS, Progress
from el4ner.models.quantized import QUANTIZED, QuantizedName, quantized_folder, quantized_folders
from el4ner.models.safety import check_folder
from el4ner.models.shapes import read_config, shape_of

__all__ = [
    "ModelInfo",
    "default_cache_dir",
    "list_models",
    "prepare",
    "prepared_folder",
    "resolve",
    "verify",
    "weights_digest",
]

FORMAT: Final = 1
"""Of what :mod:`el4ner.models.convert` writes. Counting it up makes everybody convert again."""
HUB_FILES: Final = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model", "*.txt")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A line of ``el4ner models list``. ``size_bytes``: of the prepared folder, else of the packaged files, else 0.

    ``format`` and ``bits`` of a parameter: of the prepared folder; see
    :class:`~el4ner.models.architectures.WeightFormat`.
    """

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
    format: str | None = None
    bits: float | None = None


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
        folder = prepared_folder(model, cache_dir)
        if not looks_whole(folder, FORMAT):
            _convert_once(model, folder, progress)
        check_folder(folder)
        sha256 = str(read_manifest(folder)["files"][WEIGHTS]["sha256"])
        _expect_remembered(folder / WEIGHTS, sha256, cache_dir, f"delete {folder}: it is made again")
        return folder
    if source.startswith(QUANTIZED):
        made_before = quantized_folder(source, cache_dir)
        if made_before is None:
            raise ModelError(f"{source}: is not there: run `{QuantizedName.parse(source).command}`")
        return made_before
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
        folder = prepared_folder(model, cache_dir)
        return folder if looks_whole(folder, FORMAT) else None
    if source.startswith(QUANTIZED):
        return quantized_folder(source, cache_dir)
    if _is_path(source):
        return _checked_folder(Path(source).expanduser())
    try:
        return _from_hub(source, local_only=True)
    except ModelError:
        return None


def verify(source: str, cache_dir: Path, progress: Progress = NO_PROGRESS) -> None:
    """Read every byte of a packaged model again: the package's file, and what was made of it; or of a quantised one.

    Raises:
        ModelError: names the first file that is not what it was.
    """
    if source.startswith(QUANTIZED):
        _verify_listed(source, prepare(source, cache_dir), progress)
        return
    model = packaged(source)
    files = model.locate()
    if model.kind == "folder":
        weights = files[0] / WEIGHTS
        progress.start(f"{model.name}: verify", weights.stat().st_size)
        expect(weights, model.sha256, progress)
        progress.done()
        return
    folder = prepared_folder(model, cache_dir)
    if not looks_whole(folder, FORMAT):
        raise ModelError(f"{source}: is not prepared: run `el4ner models prepare`")
    _verify_listed(model.name, folder, progress)


def list_models(cache_dir: Path) -> list[ModelInfo]:
    """Every packaged model, by name; then every one that was quantised here."""
    infos = []
    for model in sorted(CATALOGUE.values(), key=lambda model: model.name):
        source = PREFIX + model.name
        installed = model.installed
        is_folder = model.kind == "folder"
        path = resolve(source, cache_dir) if installed or not is_folder else None
        size = 0
        stored = None
        if path is not None:
            size = size_of([path])
            stored = format_of(read_config(path))
        elif installed:
            size = size_of(model.locate())
        infos.append(
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
                format=None if stored is None else stored.name,
                bits=None if stored is None else stored.bits,
            )
        )
    infos += [_quantized_info(name, folder) for name, folder in quantized_folders(cache_dir)]
    return infos


def _quantized_info(name: QuantizedName, folder: Path) -> ModelInfo:
    known = KNOWN.get(name.source.partition("@")[0])
    of_package = CATALOGUE.get(name.source.removeprefix(PREFIX))
    config = read_config(folder)
    return ModelInfo(
        name=name.slug,
        source=name.text,
        purpose="member",
        distribution="",
        licence=known.licence if known else of_package.licence if of_package else "",
        parameters=shape_of(config, folder).parameters,
        installed=True,
        prepared=True,
        size_bytes=size_of([folder]),
        path=folder,
        format=name.format,
        bits=name.bits,
    )


def _verify_listed(name: str, folder: Path, progress: Progress) -> None:
    listed = read_manifest(folder)["files"]
    progress.start(f"{name}: verify", sum(entry["size"] for entry in listed.values()))
    for file, entry in listed.items():
        expect(folder / file, entry["sha256"], progress)
    progress.done()


def prepared_folder(model: PackagedModel, cache_dir: Path) -> Path:
    """Where what is made of a packaged model is, or will be. Whoever makes it holds the lock file of that name."""
    return cache_dir / "models" / f"{model.name}-{model.sha256[:8]}-{FORMAT}"


def _is_path(source: str) -> bool:
    return source.startswith(("/", ".", "~"))


def _convert_once(model: PackagedModel, folder: Path, progress: Progress) -> None:
    """Convert into a folder beside the final one and rename it: there is never half a model under the final name."""
    files = model.locate()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        waited: list[str] = []

        def waiting() -> None:
            waited.append(f"{model.name}: another process prepares it")
            progress.start(waited[0], 0)

        with exclusive(folder.with_suffix(".lock"), waiting):
            if waited:
                progress.done()
            if looks_whole(folder, FORMAT):  # another process was faster
                return
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
                converted = Path(scratch) / "model"
                converted.mkdir()
                _convert_into(model, files, Path(scratch), converted, progress)
                shutil.rmtree(folder, ignore_errors=True)
                converted.rename(folder)
    except OSError as error:
        raise ModelError(f"{PREFIX}{model.name}: cannot be prepared in {folder.parent}: {error}") from error


def _convert_into(model: PackagedModel, files: list[Path], scratch: Path, target: Path, progress: Progress) -> None:
    from el4ner.models.convert import convert  # what reads the files takes a while to import

    progress.start(f"{model.name}: check", size_of(files))
    if len(files) == 1:
        gguf = files[0]
    else:
        gguf = scratch / "whole.gguf"
        with gguf.open("wb") as whole:
            for part in files:
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, whole, PIECE)
    expect(gguf, model.sha256, progress)
    progress.done()
    convert(gguf, target, _NamedProgress(progress, model.name))
    progress.start(f"{model.name}: digest", size_of([target]))
    write_manifest(target, {"format": FORMAT, "source": PREFIX + model.name, "source_sha256": model.sha256}, progress)
    progress.done()


class _NamedProgress:
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


def _expect_remembered(path: Path, sha256: str, cache_dir: Path, remedy: str) -> None:
    try:
        actual = remembered_sha256(path, cache_dir)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if actual != sha256:
        raise ModelError(f"{path}: is damaged: its sha256 is {actual}, not {sha256}: {remedy}")


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
