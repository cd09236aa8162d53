"""From a model in 16 bits to one that the ExLlama engines run: their own converters, as processes.

A conversion takes minutes to hours, so that nothing of it is lost: what is interrupted goes on where it was; what was
measured is kept for other bits; the result takes its name when it is whole. It works in
``CACHE/quantized-work/NAME/``, which is removed at the end:

``source``
    links to the model's files, and its configuration as the converters read it (:mod:`el4ner.models.legacy`)
``job``
    the converter's own folder
``log.txt``
    all that it said
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import orjson

from el4ner.engines.exllama.building import extension_environ
from el4ner.errors import ModelError
from el4ner.models.architectures import ExllamaEngine, check_config, format_of
from el4ner.models.child_process import run_logged
from el4ner.models.digest import remembered_sha256
from el4ner.models.files import write_atomically
from el4ner.models.legacy import legacy_config, stage
from el4ner.models.locking import exclusive
from el4ner.models.manifest import MANIFEST, looks_whole, size_of, write_manifest
from el4ner.models.prepare import prepare
from el4ner.models.progress import NO_PROGRESS, Progress
from el4ner.models.quantized import QUANTIZED_FORMAT, QuantizedFormat, QuantizedName
from el4ner.models.safety import check_folder
from el4ner.models.shapes import read_config, shape_of
from el4ner.quantizing.converters import Converter, Exl2Converter, Exl3Converter, Places, reason_of
from el4ner.quantizing.machine import LIBRARIES, Machine, check_room, check_tools, look

__all__ = ["CONVERTERS", "quantize"]

CONVERTERS: Final[Mapping[QuantizedFormat, Converter]] = MappingProxyType(
    {"exl2": Exl2Converter(), "exl3": Exl3Converter()}
)
_ENGINES: Final[Mapping[QuantizedFormat, ExllamaEngine]] = MappingProxyType({"exl2": "exllamav2", "exl3": "exllamav3"})
_LAST_LINES: Final = 40


def quantize(
    name: QuantizedName,
    cache_dir: Path,
    *,
    output: Path | None = None,
    measurement: Path | None = None,
    gpu: int = 0,
    progress: Progress = NO_PROGRESS,
    machine: Machine | None = None,
    converter: Converter | None = None,
) -> Path:
    """Make ``name``, unless it is there already.

    Args:
        name: what to make, of what.
        cache_dir: for the result, intermediate files and measurements.
        output: another folder for the result; it must not exist, or be empty.
        measurement: a file of EXL2's converter to use instead of measuring; by default the one that was kept when
            these weights were quantised before.
        gpu: the number of the GPU that works.
        progress: is told the converter's stages.
        machine: what there is to work with; None looks, and compiles the format's library where that was not done.
        converter: what converts; None takes the format's own.

    Returns:
        The result's folder.

    Raises:
        ModelError: something is missing, the model cannot be quantised, or the converter failed. The same call goes on
            where an interrupted one was.
    """
    target = name.folder(cache_dir) if output is None else output.expanduser().absolute()
    if looks_whole(target, QUANTIZED_FORMAT) and output is None:
        return target
    if output is not None and target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ModelError(f"{target}: is there already: give --output a new folder, or remove it")
    if measurement is not None and name.format != "exl2":
        raise ModelError(f"{name.format.upper()} is made without a measurement: leave --measurement out")
    if measurement is not None and not measurement.is_file():
        raise ModelError(f"{measurement}: there is no such file: leave --measurement out, and it is measured")
    chosen = converter or CONVERTERS[name.format]
    there = machine or look(name.format, cache_dir)
    # What is missing is said before gigabytes are fetched.
    check_tools(name.format, there, gpu)
    folder = prepare(name.source, cache_dir, progress)
    config = read_config(folder)
    stored = format_of(config, folder).name
    if stored != "plain":
        raise ModelError(f"{name.source}: is in {stored.upper()} already: quantise the model that it was made of")
    work = cache_dir / "quantized-work" / f"{name.slug}-{_key(target)}"
    shape = shape_of(config, folder / "config.json")
    check_config(legacy_config(config), folder, _ENGINES[name.format])
    check_room(name, shape, there, work=work, output=target, gpu=gpu)
    environ = {} if machine is not None else extension_environ(LIBRARIES[name.format], cache_dir, progress)
    try:
        with exclusive(work.with_name(f"{work.name}.lock")):
            if looks_whole(target, QUANTIZED_FORMAT):  # another process was faster
                return target
            digest = _digest(folder, name, cache_dir, progress)
            _restage(folder, work / "source", digest, work)
            kept_measurement = cache_dir / "quantized" / "measurements" / f"{digest[:16]}-{name.format}.json"
            places = Places(
                source=work / "source",
                job=work / "job",
                made=target.with_name(f".{target.name}.making"),
                measurement=measurement or (kept_measurement if kept_measurement.is_file() else None),
            )
            _convert(chosen, name, places, shape.layers, gpu, environ, kept_measurement, work / "log.txt", progress)
            _finish(name, places, target, digest, progress)
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise ModelError(f"{name.source}: cannot be quantised into {target}: {error}") from error
    return target


def _key(target: Path) -> str:
    return hashlib.sha256(str(target).encode()).hexdigest()[:8]


def _digest(folder: Path, name: QuantizedName, cache_dir: Path, progress: Progress) -> str:
    """One over the weights' files: what a measurement belongs to."""
    files = sorted(folder.glob("*.safetensors"))
    progress.start(f"{name.source}: digest", size_of(files))
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.name} {remembered_sha256(file, cache_dir)}\n".encode())
        progress.advance(file.stat().st_size)
    progress.done()
    return whole.hexdigest()


def _restage(folder: Path, source: Path, digest: str, work: Path) -> None:
    """Links to the model's files; what an earlier conversion left is for other weights if these are not the same."""
    note = work / "weights.sha256"
    if not note.is_file() or note.read_text(encoding="ascii") != digest:
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(source, ignore_errors=True)
    stage(folder, source, leave_out=frozenset({MANIFEST}))
    note.write_text(digest, encoding="ascii")


def _convert(
    converter: Converter,
    name: QuantizedName,
    places: Places,
    layers: int,
    gpu: int,
    environ: Mapping[str, str],
    kept_measurement: Path,
    log: Path,
    progress: Progress,
) -> None:
    """Run the converter to its end.

    Raises:
        ModelError: it failed.
    """
    if not converter.resumes(name, places):
        shutil.rmtree(places.job, ignore_errors=True)
    # The converters put the result together at the very end: what is there is of a run that was cut off in doing so.
    shutil.rmtree(places.made, ignore_errors=True)
    places.job.mkdir(parents=True, exist_ok=True)
    places.made.parent.mkdir(parents=True, exist_ok=True)
    command = converter.command(name, places)
    reader = converter.reader(name.text, layers, progress)
    try:
        environ = {**os.environ, **environ, "PYTHONUNBUFFERED": "1"}
        environ["CUDA_VISIBLE_DEVICES"] = _visible(os.environ.get("CUDA_VISIBLE_DEVICES"), gpu)
        # Its standard input is empty: ExLlamaV2's converter asks what is meant, and waits for an answer.
        code, last = run_logged(command, environ, log, reader.read, keep=_LAST_LINES)
    finally:
        reader.close()
        # Measuring is the long part, and good for every other number of bits, also when what follows failed.
        measured = converter.measurement(places)
        if measured is not None and not kept_measurement.is_file():
            write_atomically(kept_measurement, measured.read_bytes())
    made_format = _made_format(places.made)
    if code != 0 or made_format != name.format:
        ended = f"ended with {code}" if code else "made nothing"
        raise ModelError(
            f"{name.source}: {converter.module} {ended}: {reason_of(last)} (all that it said: {log}); the same command "
            "goes on where it was"
        )


def _visible(visible: str | None, gpu: int) -> str:
    """The converters take the first GPU that they see."""
    seen = [part for part in (visible or "").split(",") if part]
    return seen[gpu] if gpu < len(seen) else str(gpu)


def _made_format(folder: Path) -> str | None:
    try:
        config = orjson.loads((folder / "config.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    has_weights = any(folder.glob("*.safetensors")) and not any(folder.glob("output_temp_*.safetensors"))
    return format_of(config).name if isinstance(config, dict) and has_weights else None


def _finish(name: QuantizedName, places: Places, target: Path, digest: str, progress: Progress) -> None:
    check_folder(places.made)
    # It lists the source's files, and a converter copies whatever it finds.
    index = places.made / "model.safetensors.index.json"
    if name.format == "exl2":
        index.unlink(missing_ok=True)
    progress.start(f"{name.text}: digest", size_of([places.made]))
    facts = {
        "format": QUANTIZED_FORMAT,
        "source": name.text,
        "source_sha256": digest,
        "bits": name.bits,
        "head_bits": name.head_bits,
    }
    write_manifest(places.made, facts, progress)
    progress.done()
    # A folder that is there is an empty one of --output, or what is left of a damaged model.
    shutil.rmtree(target, ignore_errors=True)
    places.made.rename(target)
