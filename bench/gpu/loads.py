"""What is carried to a machine without a network, in loads of a size: how files are cut, and how they are joined there.

A load is a folder. The first one has all the small files and what fits of the large ones, so that work begins with it;
the loads behind it have the rest. Every command there takes in the loads that lie beside it, and keeps them for the
commands that follow. Every load has the list of all files, with a digest each: a file is used when all of it is there
and unchanged. Of the standard library alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["LIST", "Piece", "join", "listed", "loads_in", "loads_of", "take_in", "write_loads"]

LIST: Final = "files.json"
BLOCK: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes ``start`` to ``end`` of a file."""

    name: str
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def loads_of(small: Sequence[tuple[str, int]], large: Sequence[tuple[str, int]], limit: int) -> list[list[Piece]]:
    """How files (name, bytes) are spread over loads of at most ``limit`` bytes; 0: there is no limit. The small ones
    are in the first load, the large ones fill it and then one load after the other.

    Raises:
        ValueError: the small files alone are more than a load.
    """
    current = [Piece(name, 0, size) for name, size in small]
    taken = sum(piece.size for piece in current)
    loads = [current]
    if not limit:
        current += [Piece(name, 0, size) for name, size in large]
        return loads
    if taken > limit:
        raise ValueError(f"the small files take {taken:,} bytes, a load {limit:,}: raise --limit-mb")
    room = limit - taken
    for name, size in large:
        start = 0
        while start < size:
            if not room:
                current, room = [], limit
                loads.append(current)
            end = min(size, start + room)
            current.append(Piece(name, start, end))
            room -= end - start
            start = end
    return loads


def write_loads(files: dict[str, Path], loads: Sequence[Sequence[Piece]], into: Path) -> list[Path]:
    """Make the folders ``load-1`` … anew; ``files`` by the name that they have in a load (it may have a slash)."""
    for old in into.glob("load-*"):
        shutil.rmtree(old)
    facts = {name: {"size": path.stat().st_size, "sha256": _sha256(path)} for name, path in files.items()}
    folders = []
    for number, pieces in enumerate(loads, start=1):
        folder = into / f"load-{number}"
        for piece in pieces:
            target = folder / _piece_name(piece)
            target.parent.mkdir(parents=True, exist_ok=True)
            with files[piece.name].open("rb") as source, target.open("wb") as out:
                source.seek(piece.start)
                for block in _blocks(source, piece.size):
                    out.write(block)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LIST).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        folders.append(folder)
    return folders


def loads_in(folder: Path) -> list[Path]:
    """The loads that lie in ``folder``, in their order."""
    loads = [path for path in folder.glob("load-*") if (path / LIST).is_file()]
    return sorted(loads, key=lambda path: (len(path.name), path.name))


def listed(load: Path) -> dict[str, dict[str, object]]:
    """All files that are carried, with ``size`` and ``sha256``, whichever load has them."""
    table: dict[str, dict[str, object]] = json.loads((load / LIST).read_text(encoding="utf-8"))
    return table


def take_in(loads: Path, kept: Path) -> list[Path]:
    """Copy the loads that lie in ``loads`` to where the commands that follow look for them too: the next transfer may
    replace what lies here. Loads of an earlier packing, which has other files, are thrown away.

    Returns:
        all loads that are kept, these and earlier ones.
    """
    for load in loads_in(loads):
        files = listed(load)
        for earlier in loads_in(kept):
            if listed(earlier) != files:
                shutil.rmtree(earlier)
        shutil.copytree(load, kept / load.name, dirs_exist_ok=True)
    return loads_in(kept)


def join(folders: Iterable[Path], into: Path) -> tuple[list[str], list[str]]:
    """Put files together from the pieces that ``folders`` have.

    Returns:
        the names of those that are whole, and of those of which something is missing or damaged (they are not made).
    """
    folders = list(folders)
    if not folders:
        return [], []
    whole, missing = [], []
    for name, facts in sorted(listed(folders[-1]).items()):
        target = into / name
        if target.is_file() and target.stat().st_size == facts["size"] and _sha256(target) == facts["sha256"]:
            whole.append(name)
            continue
        pieces: dict[int, Path] = {}
        for folder in folders:
            for piece in (folder / name).parent.glob(f"{Path(name).name}.from-*"):
                pieces[int(piece.name.rpartition("-")[2])] = piece
        (whole if _joined(pieces, facts, target) else missing).append(name)
    return whole, missing


def _joined(pieces: dict[int, Path], facts: dict[str, object], target: Path) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.part")
    digest = hashlib.sha256()
    written = 0
    with beside.open("wb") as out:
        for start, piece in sorted(pieces.items()):
            if start != written:
                break
            with piece.open("rb") as source:
                for block in iter(lambda: source.read(BLOCK), b""):
                    digest.update(block)
                    out.write(block)
                    written += len(block)
    if written != facts["size"] or digest.hexdigest() != facts["sha256"]:
        beside.unlink()
        return False
    beside.replace(target)
    return True


def _piece_name(piece: Piece) -> str:
    return f"{piece.name}.from-{piece.start}"


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _blocks(source: BinaryIO, size: int) -> Iterator[bytes]:
    left = size
    while left:
        block = source.read(min(BLOCK, left))
        if not block:
            return
        left -= len(block)
        yield block
