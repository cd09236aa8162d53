"""What a file is encoded in: byte order marks, names of encodings, and files that are no text at all."""

from __future__ import annotations

import codecs
import encodings.aliases
from typing import Final

from el4ner.errors import El4nerError
from el4ner.nearest import nearest_hint

__all__ = ["InputError", "begins_mark", "known_encoding", "mark_of", "resolve_encoding", "shown_encoding"]

_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MARKED: Final = frozenset({"utf-16", "utf-32"})
"""Names of two encodings each: which one it is only the byte order mark tells."""
_NO_TEXT: Final = frozenset({"idna", "mbcs", "oem", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})
_USUAL: Final = ("utf-8", "utf-16", "latin-1", "cp1252", "gb18030", "big5", "shift-jis", "euc-kr")
_BINARY: Final = (
    (b"\x1f\x8b", "compressed by gzip", "`gunzip -c`"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", "`zstd -dc`"),
    (b"\xfd7zXZ\x00", "compressed by xz", "`xz -dc`"),
    (b"\x04\x22\x4d\x18", "compressed by LZ4", "`lz4 -dc`"),
    (b"PK\x03\x04", "a zip archive (a spreadsheet or a word processor's file is one too)", "what wrote it"),
    (b"PAR1\x15", "a Parquet file", "what wrote it"),
    (b"Obj\x01", "an Avro container", "`avro-tools tojson`"),
    (b"%PDF-", "a PDF", "`pdftotext`"),
)


class InputError(El4nerError):
    """A file cannot be read, or a line of it is no document; the message names file and line."""

    code = "input"


def known_encoding(name: str) -> str:
    """The encoding's own name, as ``utf-8`` for ``UTF8``.

    Raises:
        ValueError: there is no such encoding, or it is none of text; names the nearest known one.
    """
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):
        codec = None
    codec_name = "" if codec is None else codec.name.replace("_", "-")
    # Python knows "encodings" of bytes into bytes too, and escapes of its own source text.
    if codec is None or not getattr(codec, "_is_text_encoding", True) or codec_name in _NO_TEXT:
        aliases = encodings.aliases.aliases
        names = sorted({alias.replace("_", "-") for alias in (*aliases, *aliases.values())} - _NO_TEXT)
        raise ValueError(f"there is no encoding {name!r}{nearest_hint(name, names)}; usual ones: {', '.join(_USUAL)}")
    return "utf-8" if codec_name == "utf-8-sig" else codec_name


def shown_encoding(encoding: str) -> str:
    """As people write it: ``UTF-8``, ``UTF-16-LE``, ``cp1252``."""
    return encoding.upper() if encoding.startswith(("utf", "iso")) else encoding


def mark_of(encoding: str) -> bytes:
    """The byte order mark that a file in this encoding needs at its beginning; UTF-8 needs none."""
    return next((mark for mark, marked in _MARKS if marked == encoding != "utf-8"), b"")


def begins_mark(head: bytes) -> bool:
    """Whether more may have to come before it is known whether a file begins with a byte order mark, and which."""
    return any(len(mark) > len(head) and mark.startswith(head) for mark, _ in _MARKS)


def resolve_encoding(head: bytes, encoding: str | None, name: str) -> tuple[str, bytes]:
    """What a file is encoded in, by its first bytes, and its byte order mark.

    Raises:
        InputError: it is no text, or not in the encoding that was asked for.
    """
    for magic, kind, tool in _BINARY:
        if head.startswith(magic):
            raise InputError(f"{name}: is {kind}, not text: unpack or convert it first, by {tool}")
    mark, marked = next(((mark, name_of_mark) for mark, name_of_mark in _MARKS if head.startswith(mark)), (b"", None))
    if marked is not None and (encoding in (None, marked) or (encoding in _MARKED and marked.startswith(encoding))):
        return marked, mark
    if marked is not None:
        raise InputError(
            f"{name}: begins with the byte order mark of {shown_encoding(marked)}, and is to be read as {encoding}: "
            "leave --encoding out"
        )
    if encoding in _MARKED:
        raise InputError(
            f"{name}: does not begin with a byte order mark, without which {encoding} may be one of two: "
            f"say --encoding {encoding}-le or {encoding}-be"
        )
    if encoding is None and (guess := _wide(head)) is not None:
        raise InputError(
            f"{name}: looks like {shown_encoding(guess)} without a byte order mark: say --encoding {guess}"
        )
    return encoding or "utf-8", b""


def _wide(head: bytes) -> str | None:
    """UTF-16 of mostly Latin text: every other byte is 0. As UTF-8 that would be text too, with NULs between."""
    begin = head[: 256 & ~1]
    if len(begin) < 4 or b"\0" not in begin:
        return None
    high, low = begin[1::2], begin[::2]
    for zeros, others, guess in ((high, low, "utf-16-le"), (low, high, "utf-16-be")):
        if zeros.count(0) > 0.8 * len(zeros) and others.count(0) < 0.2 * len(others):
            return guess
    return None
