"""brat's standoff: a text (``.txt``) and what is marked in it (``.ann``), a pair of files for each document.

Only text-bound annotations (``T1``) are entities; those that an event has as its trigger are none. brat's own Python
tools are not on the index, and the readers that are have one author and few users, pass over what they cannot read, and
know neither UTF-16 nor lines; the format is a line with two tabs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from el4ner.errors import PoolError
from el4ner.pools.exchange.labelled_documents import DocumentItem, LabelledDocument, UnusableSpan
from el4ner.pools.labelled import quoted
from el4ner.pools.pool import LeftOut, PoolSentence
from el4ner.pools.read_options import Reading, Units, lines_of
from el4ner.pools.units import RawSpan, offsets_in, same_surface, units_of
from el4ner.types import Span

__all__ = ["annotation_lines", "brat_documents", "configuration"]

_TYPE: Final = re.compile(r"[A-Za-z0-9_-]+")
"""What brat takes as the name of a type; it turns every other character into an underscore."""
_TEXT_BOUND: Final = re.compile(r"T\S*\t(\S+) (\d+ \d+(?:;\d+ \d+)*)\t(.*)")
_EVENT: Final = re.compile(r"E\S*\t[^\s:]+:(T\S+)")
_OTHERS: Final = re.compile(r"[REAMN#*]\S*\t")
_BREAKS: Final = "\r\n\t\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_PIECE: Final = re.compile(f"[^{_BREAKS}]+")
"""As much of a span as one line can show."""
_MOST_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class _Marked:
    """A line of an ``.ann``: fragments, label, and the text that the line says is there."""

    where: str
    name: str
    fragments: tuple[tuple[int, int], ...]
    label: str
    surface: str

    @property
    def raw_spans(self) -> list[RawSpan]:
        """Its pieces. What each of several says is not in the file."""
        surface = self.surface if len(self.fragments) == 1 else None
        return [RawSpan(start, end, self.label, surface) for start, end in self.fragments]


def brat_documents(path: Path, reading: Reading) -> Iterator[DocumentItem]:
    """The documents of a folder and the folders in it, or of one ``.txt`` or ``.ann``.

    A text without an ``.ann`` is left out, since nobody has annotated it. An empty ``.ann`` says that nothing is
    marked: brat has no other way to say that a text has no entities.

    Raises:
        PoolError: there is no ``.ann``, or a file cannot be read.
    """
    if not path.is_dir():
        if path.suffix.lower() not in (".txt", ".ann"):
            raise PoolError(f"{path}: brat has pairs of .txt and .ann files: name one of them, or their folder")
        yield from _documents([_beside(path, ".ann")], reading)
        return
    found = _files_in(path, ".ann")
    if not found:
        raise PoolError(f"{path}: holds no .ann file, which is where brat has what was marked")
    annotated = {file.with_suffix("") for file in found}
    for text in _files_in(path, ".txt"):
        if text.with_suffix("") not in annotated:
            yield LeftOut(str(text), "has no .ann file beside it: nobody has annotated it in brat", mistake=False)
    yield from _documents(found, reading)


def _files_in(folder: Path, suffix: str) -> list[Path]:
    """Those of all folders below, but hidden ones, which systems and editors put beside (``._1.ann``)."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() == suffix
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and file.is_file()
    )


def _beside(file: Path, suffix: str) -> Path:
    """The other file of a pair, whose suffix may be in capitals as the first one's."""
    capitals = file.with_suffix(suffix.upper())
    return capitals if file.suffix.isupper() and capitals.is_file() else file.with_suffix(suffix)


def _documents(files: Iterable[Path], reading: Reading) -> Iterator[DocumentItem]:
    for file in files:
        try:
            yield _document(file, reading)
        except _LineError as error:
            yield LeftOut(error.where, error.reason)


class _LineError(Exception):
    """What is wrong with a document, and on which line."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


def _document(file: Path, reading: Reading) -> LabelledDocument:
    text_file = _beside(file, ".txt")
    if not file.is_file():
        raise PoolError(f"{file}: there is no such file: brat has what was marked there")
    if not text_file.is_file():
        raise _LineError(str(file), f"its text, {text_file.name}, is not beside it")
    text = _text_of(text_file)
    marked = list(_marked(file))
    units = _units(text, marked, reading.offsets)
    spans, unusable = [], []
    for mark in marked:
        try:
            places = [offsets_in(text, raw, units) for raw in mark.raw_spans]
        except PoolError as error:
            raise _LineError(mark.where, f"{mark.name}: {error}") from error
        start, end = places[0][0], max(end for _, end in places)
        between = "".join(text[left:right] for (_, left), (right, _) in pairwise(places))
        if between.strip():
            reason = f"{mark.label} {quoted(mark.surface)} is in {len(places)} pieces with other words between them"
            unusable.append(UnusableSpan(start, end, mark.where, f"{reason}, which no pool can have"))
        elif not same_surface(text[start:end], mark.surface):
            raise _LineError(mark.where, _other_text(text, text[start:end], mark))
        else:
            spans.append((Span(start, end, text[start:end]), mark.label))
    return LabelledDocument(text, tuple(sorted(set(spans))), str(text_file), tuple(unusable), first_line=1)


def _units(text: str, marked: Iterable[_Marked], asked: Units) -> Units:
    """brat's server counts code points, and what runs in a browser UTF-16: the one by which lines say what is there."""
    if asked != "auto":
        return asked
    marked = list(marked)
    readings: tuple[Units, ...] = ("code-points", "utf-16")
    fitting = [units for units in readings if all(_is_there(text, mark, units) for mark in marked)]
    if len(fitting) == 1:
        return fitting[0]
    units = units_of(text, [raw for mark in marked for raw in mark.raw_spans])
    return "code-points" if units in ("auto", None) else units


def _is_there(text: str, mark: _Marked, units: Units) -> bool:
    try:
        places = [offsets_in(text, raw, units) for raw in mark.raw_spans]
    except PoolError:
        return False
    return same_surface(" ".join(text[start:end] for start, end in places), mark.surface)


def _other_text(text: str, actual: str, mark: _Marked) -> str:
    hint = ""
    if "\r\n" in text:
        hint = "; its lines end with CR LF, and if they ended with LF alone in brat, they have to do so here"
    elif text.startswith("\ufeff"):
        hint = "; it begins with a byte order mark, and if brat did not count that, it has to go"
    places = f"{mark.fragments[0][0]}–{mark.fragments[-1][1]}"
    return f"{mark.name}: {places} of the text is {quoted(actual)}, not {quoted(mark.surface)}{hint}"


def _text_of(file: Path) -> str:
    """Every character as it is: offsets count byte order marks and carriage returns, too."""
    next(lines_of(file), None)  # says so if this is UTF-16 or compressed
    try:
        content = file.read_bytes()
    except OSError as error:
        raise PoolError(f"{file}: cannot be read: {error.strerror}") from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _LineError(f"{file}:{line}", f"is not UTF-8: {error.reason} at byte {error.start}") from error
    if not text.strip():
        raise _LineError(str(file), "the text is empty")
    return text


def _marked(file: Path) -> Iterator[_Marked]:
    """The text-bound annotations, without those that trigger an event."""
    marked: dict[str, _Marked] = {}
    triggers = set()
    for number, line in enumerate(lines_of(file), start=1):
        where = f"{file}:{number}"
        if isinstance(line, UnicodeDecodeError):
            raise _LineError(where, f"is not UTF-8: {line.reason} at byte {line.start}")
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        if event := _EVENT.match(line):
            triggers.add(event[1])
        elif not line.startswith("T"):
            if not _OTHERS.match(line):
                raise _LineError(where, f"is no annotation of brat: {quoted(line)}")
        elif (found := _TEXT_BOUND.fullmatch(line)) is None:
            raise _LineError(
                where,
                'needs to be "T1<tab>TYPE START END<tab>TEXT", with ";START END" for each further piece, not '
                + quoted(line),
            )
        else:
            name = line.split("\t", 1)[0]
            if name in marked:
                raise _LineError(where, f"there is another {name} at {marked[name].where}")
            marked[name] = _Marked(where, name, _fragments(found[2], where), found[1], found[3])
    return (mark for name, mark in marked.items() if name not in triggers)


def _fragments(places: str, where: str) -> tuple[tuple[int, int], ...]:
    fragments = []
    for piece in places.split(";"):
        start, end = piece.split(" ")
        if max(len(start), len(end)) > _MOST_DIGITS or int(start) >= int(end):
            raise _LineError(where, f"{quoted(piece)} is no place of a text")
        fragments.append((int(start), int(end)))
    return tuple(sorted(fragments))


def annotation_lines(sentence: PoolSentence) -> Iterator[str]:
    """The lines of the ``.ann``. brat cuts what is marked at line breaks and tabs, which it could not write.

    Raises:
        PoolError: a type has a name that brat does not take.
    """
    for number, (span, label) in enumerate(sentence.spans, start=1):
        if not _TYPE.fullmatch(label):
            raise PoolError(
                f"brat's types have letters, digits, - and _ in their names, not {quoted(label)}: rename it"
            )
        if span.text[0] in _BREAKS or span.text[-1] in _BREAKS:
            raise PoolError(
                f"span {quoted(span.text)} begins or ends with a line break or a tab, which brat cannot mark"
            )
        pieces = [match.span() for match in _PIECE.finditer(span.text) if match.group().strip()]
        places = ";".join(f"{span.start + start} {span.start + end}" for start, end in pieces)
        yield f"T{number}\t{label} {places}\t{' '.join(span.text[start:end] for start, end in pieces)}"


def configuration(types: Iterable[str]) -> str:
    """brat's ``annotation.conf``, without which it shows no type. Names that it does not take are left out of it."""
    types = (label for label in types if _TYPE.fullmatch(label))
    return "\n".join(["[entities]", *types, "", "[relations]", "", "[events]", "", "[attributes]", ""])
