"""A library's compiled extension: what it depends on, where it is, and which of those that are there fits.

In the cache folder, or in TORCH_EXTENSIONS_DIR where that is set::

    extensions/exllamav2-0.3.2-torch2.15.0+cu132-cuda13.2-cpython-311-x86_64-linux-gnu-sm90/
        exllamav2_ext.so    imported as it is: nvcc and ninja are needed for compiling alone
        build.json          what it was compiled with
    extensions/.….building/     objects and log.txt of a build that goes on, or was cut off and is gone on with
    extensions/cuda-13.2-…/     links to the compiler's wheels (:func:`el4ner.engines.exllama.toolchain.link_toolkit`)
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import orjson

from el4ner.engines.exllama.capabilities import ARCHITECTURES_VARIABLE, Capability, covers, parse_architectures
from el4ner.errors import ConfigError, ModelError

__all__ = [
    "RECORD",
    "BuildKey",
    "Extension",
    "build_key",
    "extension_on_path",
    "extensions_folder",
    "find_extension",
    "wanted_architectures",
]

RECORD: Final = "build.json"
"""What an extension was compiled with, in the folder beside it."""


@dataclass(frozen=True, slots=True)
class BuildKey:
    """What a compiled extension depends on. ``abi``: of Python, with the machine's architecture."""

    library: str
    version: str
    torch: str
    cuda: str
    abi: str
    architectures: tuple[Capability, ...]

    @property
    def stem(self) -> str:
        """All of it but the cards."""
        return f"{self.library}-{self.version}-torch{self.torch}-cuda{self.cuda}-{self.abi}"

    @property
    def name(self) -> str:
        """The folder's name."""
        cards = "_".join(
            f"{card.major}{card.minor}{card.suffix}{'ptx' if card.ptx else ''}" for card in self.architectures
        )
        return f"{self.stem}-sm{cards}"


@dataclass(frozen=True, slots=True)
class Extension:
    """A compiled extension that is there.

    ``origin``: ``built`` by el4ner; ``prebuilt``: compiled elsewhere and on Python's path, so that the library takes it
    by itself, for which cards is not known.
    """

    path: Path
    origin: Literal["built", "prebuilt"]
    architectures: tuple[Capability, ...] | None = None


def extensions_folder(cache_dir: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where compiled extensions are."""
    given = environ.get("TORCH_EXTENSIONS_DIR")
    return Path(given).expanduser().absolute() if given else cache_dir.absolute() / "extensions"


def wanted_architectures(environ: Mapping[str, str] = os.environ) -> tuple[Capability, ...]:
    """What to compile for: TORCH_CUDA_ARCH_LIST, else the cards that torch sees; empty where there are none."""
    text = environ.get(ARCHITECTURES_VARIABLE, "").strip()
    if text and text != "native":
        return parse_architectures(text)
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(sorted({_capability_of(index) for index in range(torch.cuda.device_count())}))


def build_key(library: str, architectures: Sequence[Capability]) -> BuildKey:
    """For the library and the torch that are installed.

    Raises:
        ModelError: the library is not installed.
    """
    import torch

    try:
        version = importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError as error:
        extra = "exl3" if library == "exllamav3" else "gpu"
        raise ModelError(f"{library} is not installed: install el4ner[{extra}]") from error
    abi = sysconfig.get_config_var("SOABI") or f"{sys.implementation.cache_tag}-{os.uname().machine}"
    return BuildKey(
        library, version, torch.__version__, torch.version.cuda or "none", abi, tuple(sorted(set(architectures)))
    )


def find_extension(library: str, folder: Path, architectures: Sequence[Capability]) -> Extension | None:
    """What ``import library`` can use on cards of these architectures without compiling, if there is such.

    A prebuilt one comes first, as it does for the library; then one of exactly this key; then one of more cards.
    Without ``architectures`` any one that was built for this library, torch and Python is returned.
    """
    path = extension_on_path(f"{library}_ext")
    if path is not None:
        compiled = _compiled_for(path.parent, path)
        return Extension(path, "prebuilt" if compiled is None else "built", compiled)
    try:
        key = build_key(library, architectures)
    except ModelError:
        return None
    folders = [folder / key.name, *sorted(folder.glob(f"{_escape(key.stem)}-sm*"))]
    for candidate in folders:
        path = candidate / f"{library}_ext.so"
        compiled = _compiled_for(candidate, path)
        if compiled is not None and covers(compiled, key.architectures):
            return Extension(path, "built", compiled)
    return None


def extension_on_path(extension: str) -> Path | None:
    """The file that importing it would load."""
    try:
        spec = importlib.util.find_spec(extension)
    except ValueError:  # a module without a file has its place
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None and spec.origin.endswith(".so") else None


def _compiled_for(folder: Path, file: Path) -> tuple[Capability, ...] | None:
    """The cards that the record in ``folder`` names; None without a record, or where ``file`` is not what was recorded:
    a disk that was full, or a machine that lost its power, leaves files cut short."""
    try:
        record = orjson.loads((folder / RECORD).read_bytes())
        if file.stat().st_size != record["bytes"]:
            return None
        return parse_architectures(";".join(record["architectures"]), str(folder / RECORD))
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ConfigError):
        return None


def _capability_of(index: int) -> Capability:
    """Of a card; newer ones than torch itself is compiled for get what torch has for its newest."""
    import torch

    card = Capability(*torch.cuda.get_device_capability(index))
    known = [
        Capability(int(digits[:-1]), int(digits[-1]))
        for name in torch.cuda.get_arch_list()
        if name.startswith("sm_") and (digits := name.removeprefix("sm_").rstrip("af")).isdigit()
    ]
    if known and card > max(known):
        newest = max(known)
        return card if card.major == newest.major else Capability(newest.major, newest.minor, ptx=True)
    return card


def _escape(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
