"""The command lines of ExLlamaV2's and ExLlamaV3's converters, and what their output says about how far they are."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import orjson
from typing_extensions import override

from el4ner.models.progress import Progress
from el4ner.models.quantized import QuantizedName

__all__ = ["Converter", "Exl2Converter", "Exl3Converter", "OutputReader", "Places", "reason_of"]

_STEPS: Final = 10_000
"""A stage's whole, of which a converter tells the share."""
_STATUS: Final = re.compile(r"\[STATUS\](\{.*?\})\[/STATUS\]")
_MODULE: Final = re.compile(r"-- (?:Loading unquantized module|Resuming after|Resuming at): (\S+)")
_LAYER: Final = re.compile(r"\.layers\.(\d+)$")


@dataclass(frozen=True, slots=True)
class Places:
    """Folders and files of one conversion. ``job``: the converter's own; ``made``: where it puts the result.

    ``measurement``: what an earlier conversion measured, to be used again.
    """

    source: Path
    job: Path
    made: Path
    measurement: Path | None = None


class OutputReader(Protocol):
    """Follows a converter's output."""

    def read(self, line: str) -> None:
        """One more line."""

    def close(self) -> None:
        """There are no more."""


class Converter(Protocol):
    """How one format is made."""

    module: str
    """What is run: ``python -m MODULE``."""

    def command(self, name: QuantizedName, places: Places) -> list[str]:
        """The whole command line; it goes on with what ``places.job`` has of an earlier, interrupted one."""

    def resumes(self, name: QuantizedName, places: Places) -> bool:
        """Whether ``places.job`` has something to go on with."""

    def measurement(self, places: Places) -> Path | None:
        """What this conversion measured, if it has done so and others can use it."""

    def reader(self, label: str, layers: int, progress: Progress) -> OutputReader:
        """What reads its output."""


class Exl2Converter(Converter):
    """``exllamav2.conversion.convert_exl2`` of 0.3.2. It goes on by itself with what it finds in its folder."""

    module = "exllamav2.conversion.convert_exl2"

    @override
    def command(self, name: QuantizedName, places: Places) -> list[str]:
        command = [sys.executable, "-m", self.module, "-i", str(places.source), "-o", str(places.job)]
        command += ["-cf", str(places.made), "-b", f"{name.bits:g}", "-hb", str(name.head_bits), "--status_output"]
        if places.measurement is not None:
            command += ["-m", str(places.measurement)]
        return command

    def resumes(self, name: QuantizedName, places: Places) -> bool:
        """See :class:`Converter`. A job that was cut off while it was written, or that is finished, is begun anew."""
        job = _table(places.job / "job_new.json")
        return (
            "invalid" not in job
            and job.get("progress") not in (None, "finished")
            and job.get("in_dir") == str(places.source)
            and job.get("compile_full") == str(places.made)
            and job.get("bits") == name.bits
            and job.get("head_bits") == name.head_bits
        )

    @override
    def measurement(self, places: Places) -> Path | None:
        file = places.job / "measurement.json"
        return file if {"measurement", "last_module_idx"} <= _table(file).keys() else None

    @override
    def reader(self, label: str, layers: int, progress: Progress) -> OutputReader:
        return _StatusReader(label, progress)


class Exl3Converter(Converter):
    """``exllamav3.conversion.convert_model`` of 1.6.5. It measures nothing that another run could use."""

    module = "exllamav3.conversion.convert_model"

    @override
    def command(self, name: QuantizedName, places: Places) -> list[str]:
        command = [sys.executable, "-m", self.module, "-w", str(places.job)]
        if self.resumes(name, places):
            return [*command, "-r"]
        command += ["-i", str(places.source), "-o", str(places.made)]
        return [*command, "-b", f"{name.bits:g}", "-hb", str(name.head_bits)]

    def resumes(self, name: QuantizedName, places: Places) -> bool:
        """See :class:`Converter`. Until the first checkpoint there is nothing to go on with."""
        arguments = _table(places.job / "args.json")
        return (
            (places.job / "ckpt" / "state.safetensors").is_file()
            and "next_module_idx" in _table(places.job / "ckpt" / "job.json")
            and arguments.get("in_dir") == str(places.source)
            and arguments.get("out_dir") == str(places.made)
            and arguments.get("bits") == name.bits
            and arguments.get("head_bits") == name.head_bits
        )

    @override
    def measurement(self, places: Places) -> Path | None:
        return None

    @override
    def reader(self, label: str, layers: int, progress: Progress) -> OutputReader:
        return _ModuleReader(label, layers, progress)


class _StatusReader(OutputReader):
    """Reads ``[STATUS]{"stage": …, "completion": …}[/STATUS]``."""

    def __init__(self, label: str, progress: Progress) -> None:
        self._label = label
        self._progress = progress
        self._stage: str | None = None
        self._done = 0

    @override
    def read(self, line: str) -> None:
        match = _STATUS.search(line)
        if match is None:
            return
        try:
            status = orjson.loads(match[1])
            stage, done = str(status["stage"]), int(float(status["completion"]) * _STEPS)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return
        if stage != self._stage:
            self.close()
            self._stage, self._done = stage, 0
            self._progress.start(f"{self._label}: {stage.lower()}", _STEPS)
        if done > self._done:
            self._progress.advance(done - self._done)
            self._done = done

    @override
    def close(self) -> None:
        if self._stage is not None:
            self._progress.done()
            self._stage = None


class _ModuleReader(OutputReader):
    """Counts the layers that are named as they are begun."""

    def __init__(self, label: str, layers: int, progress: Progress) -> None:
        self._label = label
        self._layers = layers
        self._progress = progress
        self._begun = False
        self._done = 0

    @override
    def read(self, line: str) -> None:
        match = _MODULE.search(line)
        if match is None:
            return
        if not self._begun:
            self._begun = True
            self._progress.start(f"{self._label}: quantizing", self._layers)
        layer = _LAYER.search(match[1])
        # A layer that is begun has those before it behind it; what follows the last layer has them all.
        done = int(layer[1]) if layer else self._layers if self._done else 0
        if self._done < done <= self._layers:
            self._progress.advance(done - self._done)
            self._done = done

    @override
    def close(self) -> None:
        if self._begun:
            self._progress.done()
            self._begun = False


def reason_of(lines: list[str]) -> str:
    """Of a failed converter's last lines, the one that says why."""
    printed = [line.strip() for line in lines if line.strip()]
    marked = [line for line in printed if line.startswith(("## ", "!! Error", "** Error"))]
    if printed and not printed[-1].startswith("--") and not marked:
        return printed[-1]
    return (marked or printed or ["it said nothing"])[-1].lstrip("#!* ").strip()


def _table(file: Path) -> dict[str, Any]:
    try:
        read = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return read if isinstance(read, dict) else {}
