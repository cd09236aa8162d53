"""What is carried to a machine without a network, in loads of a size: how files are cut, and how they are joined there.

A load is a folder. The last one is carried together with the command that measures and has all the small files and what
fits of the large ones; loads before it have the rest, and are put aside there first. Every load has the list of all
files, with a digest each: a file is used when all of it is there and unchanged. Of the standard library alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["LIST", "Piece", "join", "loads_of", "put_aside", "write_loads"]

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
    """How files (name, bytes) are spread over loads of at most ``limit`` bytes; 0: there is no limit.

    Raises:
        ValueError: the small files alone are more than a load.
    """
    last = [Piece(name, 0, size) for name, size in small]
    taken = sum(piece.size for piece in last)
    if not limit:
        return [[*last, *(Piece(name, 0, size) for name, size in large)]]
    if taken > limit:
        raise ValueError(f"the small files take {taken:,} bytes, a load {limit:,}: raise --limit-mb")
    before: list[list[Piece]] = []
    current, room = last, limit - taken
    for name, size in large:
        start = 0
        while start < size:
            if not room:
                current, room = [], limit
                before.append(current)
            end = min(size, start + room)
            current.append(Piece(name, start, end))
            room -= end - start
            start = end
    return [*before, last]


def write_loads(files: dict[str, Path], loads: Sequence[Sequence[Piece]], into: Path) -> list[Path]:
    """Make the folders ``load-1`` … anew; ``files`` by the name that they have in a load (it may have a slash)."""
    for old in into.glob("load-*"):
        shutil.rmtree(old)
    listed = {
        name: {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for name, path in files.items()
    }
    folders = []
    for number, pieces in enumerate(loads, start=1):
        folder = into / f"load-{number}"
        for piece in pieces:
            target = folder / _piece_name(piece)
            target.parent.mkdir(parents=True, exist_ok=True)
            with files[piece.name].open("rb") as source, target.open("wb") as out:
                source.seek(piece.start)
                for block in _blocks(source.read, piece.size):
                    out.write(block)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LIST).write_text(json.dumps(listed, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        folders.append(folder)
    return folders


def put_aside(load: Path, aside: Path) -> None:
    """Copy a load to where :func:`join` finds it after the next one has taken its place."""
    shutil.copytree(load, aside / load.name, dirs_exist_ok=True)


def join(folders: Iterable[Path], into: Path) -> tuple[list[str], list[str]]:
    """Put files together from the pieces that ``folders`` have.

    Returns:
        the names of those that are whole, and of those of which something is missing or damaged (they are not made).
    """
    folders = [folder for folder in folders if (folder / LIST).is_file()]
    if not folders:
        return [], []
    listed = json.loads((folders[-1] / LIST).read_text(encoding="utf-8"))
    whole, missing = [], []
    for name, facts in sorted(listed.items()):
        target = into / name
        if target.is_file() and target.stat().st_size == facts["size"]:
            whole.append(name)
            continue
        pieces: dict[int, Path] = {}
        for folder in folders:
            for found in (folder / name).parent.glob(f"{Path(name).name}.from-*"):
                pieces[int(found.name.rpartition("-")[2])] = found
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


def _blocks(read: object, size: int) -> Iterator[bytes]:
    left = size
    while left:
        block = read(min(BLOCK, left))  # type: ignore[operator]
        if not block:
            return
        left -= len(block)
        yield block
