"""``quantized:SOURCE@4.0bpw``: a model that :mod:`el4ner.quantizing.quantize` made of another, and where it is.

The name says all that it was made by: a source as :mod:`el4ner.models.prepare` knows it, bits of a parameter, bits of a
parameter of the head where they are not 6 (``-h8``), and ``-exl3`` if it is not EXL2.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from el4ner.errors import ModelError
from el4ner.models.manifest import looks_whole, read_manifest
from el4ner.models.safety import check_folder

__all__ = [
    "HEAD_BITS",
    "QUANTIZED",
    "QUANTIZED_FORMAT",
    "QuantizedFormat",
    "QuantizedName",
    "quantized_folder",
    "quantized_folders",
]

QUANTIZED: Final = "quantized:"
QUANTIZED_FORMAT: Final = 1
"""Of the folders that :mod:`el4ner.quantizing.quantize` makes."""
QuantizedFormat = Literal["exl2", "exl3"]
HEAD_BITS: Final = 6
"""Of a parameter of the head, if nothing else is asked for."""
_SPELLING: Final = re.compile(r"(?P<bits>\d+(?:\.\d+)?)bpw(?:-h(?P<head>\d+))?(?:-(?P<format>exl[23]))?")
_RANGES: Final = {"exl2": (2.0, 8.0), "exl3": (1.0, 8.0)}
_HEADS: Final = {"exl2": (2, 3, 4, 5, 6, 8), "exl3": (1, 2, 3, 4, 5, 6, 7, 8, 16)}


@dataclass(frozen=True, slots=True)
class QuantizedName:
    """What is quantised, and how.

    Raises:
        ModelError: these bits cannot be had in this format.
    """

    source: str
    bits: float = 4.0
    head_bits: int = HEAD_BITS
    format: QuantizedFormat = "exl2"

    def __post_init__(self) -> None:
        if self.format not in get_args(QuantizedFormat):
            raise ModelError(f"{self.source}: there is no format {self.format!r}; there are: exl2, exl3")
        low, high = _RANGES[self.format]
        if not low <= self.bits <= high:
            raise ModelError(f"{self.source}: {self.format} has {low:g} to {high:g} bits, not {self.bits:g}")
        if self.head_bits not in _HEADS[self.format]:
            allowed = ", ".join(map(str, _HEADS[self.format]))
            raise ModelError(f"{self.source}: {self.format} has head bits {allowed}, not {self.head_bits}")
        if not self.source or self.source.startswith(QUANTIZED):
            raise ModelError(f"{self.source or 'quantized:'}: is nothing that can be quantised")

    @classmethod
    def parse(cls, text: str) -> QuantizedName:
        """Read ``quantized:SOURCE@…``.

        Raises:
            ModelError: it is not spelt so, or the bits cannot be had.
        """
        source, _, how = text.removeprefix(QUANTIZED).rpartition("@")
        match = _SPELLING.fullmatch(how)
        if not source or match is None:
            raise ModelError(f"{text}: is not spelt quantized:SOURCE@4.0bpw (and -h8 for the head, -exl3 for EXL3)")
        kind: QuantizedFormat = "exl3" if match["format"] == "exl3" else "exl2"
        return cls(source, float(match["bits"]), int(match["head"] or HEAD_BITS), kind)

    @property
    def how(self) -> str:
        """What stands behind the ``@``."""
        head = "" if self.head_bits == HEAD_BITS else f"-h{self.head_bits}"
        return f"{float(self.bits)}bpw{head}" + ("-exl3" if self.format == "exl3" else "")

    @property
    def text(self) -> str:
        """The name, as a configuration has it."""
        return f"{QUANTIZED}{self.source}@{self.how}"

    @property
    def slug(self) -> str:
        """A name for folders and files: readable, and different for different models."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "--", self.source).strip("-.")
        if plain.replace("--", "/") != self.source:
            plain = f"{plain[-60:].strip('-.')}-{hashlib.sha256(self.source.encode()).hexdigest()[:8]}"
        return f"{plain}--{self.how}"

    @property
    def command(self) -> str:
        """What makes it."""
        head = "" if self.head_bits == HEAD_BITS else f" --head-bits {self.head_bits}"
        form = "" if self.format == "exl2" else f" --format {self.format}"
        return f"el4ner models quantize {shlex.quote(self.source)} --bits {float(self.bits)}{head}{form}"

    def folder(self, cache_dir: Path) -> Path:
        """Where it is, or would be."""
        return cache_dir / "quantized" / self.slug


def quantized_folder(text: str, cache_dir: Path) -> Path | None:
    """The folder of ``quantized:…``, or None if it has not been made.

    Raises:
        ModelError: it is not spelt right, or something in the folder is refused.
    """
    folder = QuantizedName.parse(text).folder(cache_dir)
    if not looks_whole(folder, QUANTIZED_FORMAT):
        return None
    check_folder(folder)
    return folder


def quantized_folders(cache_dir: Path) -> list[tuple[QuantizedName, Path]]:
    """All that have been made, by name. Folders of another kind are passed over."""
    folders = []
    for folder in sorted((cache_dir / "quantized").glob("*")):
        try:
            if looks_whole(folder, QUANTIZED_FORMAT):
                folders.append((QuantizedName.parse(str(read_manifest(folder)["source"])), folder))
        except (ModelError, KeyError):
            continue
    return folders
