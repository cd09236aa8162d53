"""ExLlamaV2's extension, compiled on another machine of the same kind: where it lies, and whether it fits here.

It is taken from a folder or a file, as ``exllamav2_ext….so`` or packed as ``….so.xz``, and put as ``exllamav2_ext.so``
into a folder of its own. With that folder on the path ``import exllamav2`` takes it and compiles nothing. One that does
not fit (another Python, another torch, another GPU, another C library) would make the library's import fail, so that it
is tried in a process of its own first, and taken away if it fails. Of the standard library alone.
"""

from __future__ import annotations

import lzma
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

__all__ = ["EXTENSION", "MOST_BYTES", "mismatch", "pack", "prebuilt_file", "try_out", "unpack"]

EXTENSION: Final = "exllamav2_ext.so"
MOST_BYTES: Final = 512 << 20
"""Of an unpacked extension: about 43 MB are usual."""
BLOCK: Final = 1 << 20
TRY_SECONDS: Final = 90.0
_ELF: Final = b"\x7fELF\x02\x01"
"""The beginning of a shared library for 64 bits, little-endian."""
_TRY: Final = """
import torch, exllamav2_ext as extension
if torch.cuda.is_available():
    try:
        extension.softcap_(torch.ones(1024, device="cuda"), 30.0)
        torch.cuda.synchronize()
    except Exception as error:
        if "no kernel image" in str(error):
            raise
import exllamav2
from exllamav2.ext import exllamav2_ext
print(exllamav2_ext.__file__)
"""


def prebuilt_file(source: Path) -> Path:
    """The extension that ``source`` (a file, or a folder with one) has, unpacked or packed.

    Raises:
        ValueError: it has none, or several, or is not there.
    """
    if not source.exists():
        raise ValueError(f"{source}: there is no such file or folder")
    if source.is_file():
        if not re.fullmatch(r"exllamav2_ext.*\.so(\.xz)?", source.name):
            raise ValueError(f"{source}: is no exllamav2_ext….so or exllamav2_ext….so.xz")
        return source
    names = [*source.glob("exllamav2_ext*.so"), *source.glob("exllamav2_ext*.so.xz")]
    if not names:
        raise ValueError(f"{source}: has no exllamav2_ext….so or exllamav2_ext….so.xz")
    if len(names) > 1:
        raise ValueError(f"{source}: has several: {', '.join(sorted(path.name for path in names))}: name one of them")
    return names[0]


def unpack(file: Path, into: Path) -> Path:
    """Put the extension as ``exllamav2_ext.so`` into ``into``.

    Raises:
        ValueError: it is damaged, no shared library for this kind of processor, or too large.
    """
    into.mkdir(parents=True, exist_ok=True)
    target = into / EXTENSION
    beside = into / f".{EXTENSION}.part"
    size = 0
    try:
        with beside.open("wb") as out:
            for block in _blocks(file):
                if not size and not block.startswith(_ELF):
                    raise ValueError(f"{file.name}: is no shared library for 64 bits")
                size += len(block)
                if size > MOST_BYTES:
                    raise ValueError(f"{file.name}: is more than {MOST_BYTES >> 20} MiB unpacked")
                out.write(block)
        if not size:
            raise ValueError(f"{file.name}: is empty")
        beside.replace(target)
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{file.name}: is damaged: {error}") from error
    finally:
        beside.unlink(missing_ok=True)
    return target


def pack(file: Path, into: Path) -> Path:
    """The extension as a file that travels well: ``file`` itself if it is packed already, else a packed copy."""
    if file.suffix == ".xz":
        return file
    into.mkdir(parents=True, exist_ok=True)
    packed = into / f"{file.name}.xz"
    with file.open("rb") as source, lzma.open(packed, "wb") as out:
        for block in iter(lambda: source.read(BLOCK), b""):
            out.write(block)
    return packed


def mismatch(name: str, *, python: str, torch: str | None = None, capability: str | None = None) -> str | None:
    """Why a file with this name does not fit; None: its name does not say so. A name may have ``torch2.11.0``,
    ``cp312`` and ``sm90`` in it, with dashes between.

    Args:
        name: of the file.
        python: as ``cp312``.
        torch: its version, as ``2.11.0+cu130``; None: not known.
        capability: of the GPU, as ``9.0``; None: not known.
    """
    words = name.partition(".so")[0].split("-")
    for word in words:
        if re.fullmatch(r"cp\d+", word) and word != python:
            return f"it is for {word}, this Python is {python}"
        version, _, cuda = (torch or "").partition("+")
        if version and re.fullmatch(r"torch[\d.]+", word) and word != f"torch{version}":
            return f"it is for {word}, here is torch {torch}"
        if cuda and re.fullmatch(r"cu\d+", word) and word != cuda:
            return f"it is for {word}, here is torch {torch}"
        if re.fullmatch(r"sm\d+", word) and capability is not None and word != f"sm{capability.replace('.', '')}":
            return f"it is for {word}, this GPU has {capability}"
    return None


def try_out(folder: Path, environment: Mapping[str, str] | None = None) -> str | None:
    """Import the library with the extension in ``folder``, in a process of its own.

    Returns:
        why it does not fit; None: it does, and nothing was compiled.
    """
    given = dict(os.environ if environment is None else environment)
    rest = [path for path in given.get("PYTHONPATH", "").split(os.pathsep) if path and path != str(folder)]
    given["PYTHONPATH"] = os.pathsep.join([str(folder), *rest])
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRY], env=given, capture_output=True, text=True, check=False, timeout=TRY_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"importing it took more than {TRY_SECONDS:g} s"
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines and Path(lines[-1]).resolve().parent == folder.resolve():
        return None
    if done.returncode < 0:
        return f"importing it ended the process with signal {-done.returncode}"
    said = done.stderr.strip().splitlines()
    return said[-1] if said else "it was not the one that was imported"


def _blocks(file: Path) -> Iterator[bytes]:
    if file.suffix == ".xz":
        with lzma.open(file) as source:
            yield from iter(lambda: source.read(BLOCK), b"")
    else:
        with file.open("rb") as source:
            yield from iter(lambda: source.read(BLOCK), b"")
