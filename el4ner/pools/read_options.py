"""How a pool's files are read: what the user may choose, what is left out, and lines of bytes as text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from el4ner.errors import PoolError
from el4ner.pools.pool import LeftOut, PoolSentence

__all__ = [
    "JOINS",
    "OFFSETS",
    "ON_ERROR",
    "Item",
    "Join",
    "LeftOut",
    "OnError",
    "Reading",
    "Units",
    "lines_of",
    "shown",
]

Join: TypeAlias = Literal["script", "space", "none"]
Units: TypeAlias = Literal["auto", "code-points", "utf-16"]
OnError: TypeAlias = Literal["stop", "skip"]

JOINS: Final[tuple[Join, ...]] = ("script", "space", "none")
OFFSETS: Final[tuple[Units, ...]] = ("auto", "code-points", "utf-16")
ON_ERROR: Final[tuple[OnError, ...]] = ("stop", "skip")

_BYTE_ORDER_MARK: Final = "\ufeff"
_COMPRESSED: Final = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How files of gzip, zip, bzip2, xz and Zstandard begin."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a ``pool.toml`` or the section ``[pools]`` says about the reading of files.

    ``on_error``: ``skip`` leaves out sentences that are wrong instead of raising. ``join``: how tokens become a text.
    ``offsets``: the unit in which annotation tools counted. ``ignore``: keys of JSON records that mean nothing.
    """

    on_error: OnError = "stop"
    join: Join = "script"
    offsets: Units = "auto"
    ignore: frozenset[str] = frozenset()


Item: TypeAlias = PoolSentence | LeftOut
"""What a reader makes of one record, or one sentence of a CoNLL file."""


def lines_of(path: Path) -> Iterator[str | UnicodeDecodeError]:
    """The lines of a UTF-8 file, without byte order marks before them; an error in place of a line that is none.

    Files that were put together with ``cat`` have a mark in front of lines other than the first, too.

    Raises:
        PoolError: the file cannot be read, is UTF-16, or compressed.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file):
                if number == 0 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise PoolError(f"{path}: is UTF-16, not UTF-8: save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")
                if number == 0 and raw.startswith(_COMPRESSED):
                    raise PoolError(f"{path}: is compressed, or an archive: unpack it first")
                try:
                    yield raw.decode("utf-8").removeprefix(_BYTE_ORDER_MARK)
                except UnicodeDecodeError as error:
                    yield error
    except OSError as error:
        raise PoolError(f"{path}: cannot be read: {error.strerror}") from error


def shown(token: str) -> str:
    """A token that nobody can see, as its characters: ``U+00A0 (NO-BREAK SPACE)``."""
    if not token:
        return "empty"
    names = [f"U+{ord(char):04X} ({unicodedata.name(char, 'a control character')})" for char in token[:4]]
    return " ".join(names) + (" …" if len(token) > 4 else "")
