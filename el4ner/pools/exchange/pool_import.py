"""From a tool's files to the sentences of a pool, and what became of everything in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias
from unicodedata import category

from el4ner.errors import PoolError
from el4ner.pools.conll import conll_items
from el4ner.pools.exchange.brat_files import brat_documents
from el4ner.pools.exchange.docbin import docbin_documents
from el4ner.pools.exchange.labelled_documents import (
    DocumentItem,
    LabelledDocument,
    in_sentences,
    without_overlaps,
)
from el4ner.pools.json_items import json_items
from el4ner.pools.labelled import quoted
from el4ner.pools.layouts import LAYOUTS_OF_TOOLS
from el4ner.pools.pool import LeftOut, PoolSentence, mistake_in, without_separators
from el4ner.pools.read_options import Item, Reading
from el4ner.text.segment import TextKind
from el4ner.types import NONE_TYPE

__all__ = ["IMPORT_FORMATS", "ImportOptions", "ImportTally", "Overlaps", "imported_sentences", "leave_out"]

Overlaps: TypeAlias = Literal["stop", "longest"]
_SHOWN: Final = 50
_AS_IT_IS: Final = Reading()
_OTHERS: Final[Mapping[str, tuple[str | None, str]]] = {
    ".csv": (None, "a table: export JSON from the tool, or columns that tabs separate (.tsv), for --from conll"),
    ".xlsx": (None, "a table: export JSON from the tool"),
    ".parquet": (None, "a table: write it as JSON Lines, with names instead of numbers as tags"),
    ".xml": (None, "XML: export JSON from the tool"),
    ".spacy": ("spacy", "spaCy's DocBin, for --from spacy"),
    ".ann": ("brat", "brat's standoff, for --from brat"),
}
"""By the end of a file's name, the format that has such files (None: none has), and what it is and what to do."""
_UNSEEN: Final = frozenset({"Cc", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """``split``: documents become sentences; ``kind`` and ``max_chars`` are as for
    :func:`~el4ner.text.segment.segment`. ``overlaps``: spans that overlap are a mistake, or the longest stays."""

    reading: Reading = _AS_IT_IS
    split: bool = True
    kind: TextKind = "prose"
    max_chars: int = 1_000
    overlaps: Overlaps = "stop"


@dataclass
class ImportTally:
    """What became of a file: nothing of it is lost without being counted here.

    ``left_out`` has the first fifty only; ``skipped`` counts those that their annotators did not accept or that no pool
    can have, ``wrong`` those with a mistake, and ``overlapping`` spans in whose place a longer one was kept.
    """

    sentences: int = 0
    entity_free: int = 0
    mentions: Counter[str] = field(default_factory=Counter)
    overlapping: int = 0
    skipped: int = 0
    wrong: int = 0
    left_out: list[LeftOut] = field(default_factory=list)

    def leave_out(self, item: LeftOut) -> None:
        """One more that is no sentence of the pool."""
        if item.mistake:
            self.wrong += 1
        else:
            self.skipped += 1
        if len(self.left_out) < _SHOWN:
            self.left_out.append(item)

    def take(self, sentence: PoolSentence) -> None:
        """One more sentence of the pool."""
        self.sentences += 1
        self.entity_free += not sentence.spans
        self.mentions.update(label for _, label in sentence.spans)


def imported_sentences(path: Path, tool: str, options: ImportOptions, tally: ImportTally) -> Iterator[PoolSentence]:
    """The sentences of a file or folder, one after the other: no more than one document of JSON Lines, CoNLL or brat is
    in memory. ``tally`` is complete when they are through.

    Raises:
        PoolError: names file and line, or the number of the record.
    """
    if str(path) == "-":
        raise PoolError("standard input: a file is read twice, and that can be read once: save it as a file first")
    if not path.exists():
        raise PoolError(f"{path}: there is no such file")
    if not (path.is_file() or path.is_dir()):
        raise PoolError(f"{path}: is neither a file nor a folder: it is read twice, so save it as a file first")
    if path.is_dir() and tool != "brat":
        raise PoolError(f"{path}: is a folder, and {tool} has files: name one")
    suffix = path.suffix.lower()
    if suffix in _OTHERS and tool != _OTHERS[suffix][0] and path.is_file():
        raise PoolError(f"{path}: {tool} has no such files; this is {_OTHERS[suffix][1]}")
    for item in IMPORT_FORMATS[tool](path, options.reading):
        if isinstance(item, LeftOut):
            leave_out(item, options, tally)
            continue
        for part in in_sentences(item, options.kind, options.max_chars) if options.split else (item,):
            try:
                sentence = _sentence(part, options, tally)
            except _UnfitError as unfit:
                leave_out(unfit.left_out, options, tally)
                continue
            tally.take(sentence)
            yield sentence


class _UnfitError(Exception):
    """A sentence that no pool can have."""

    def __init__(self, left_out: LeftOut) -> None:
        super().__init__(left_out.reason)
        self.left_out = left_out


def _sentence(part: LabelledDocument, options: ImportOptions, tally: ImportTally) -> PoolSentence:
    if part.unusable:
        raise _UnfitError(LeftOut(part.unusable[0].where, part.unusable[0].reason, mistake=False))
    spans = part.spans
    if options.overlaps == "longest":
        spans = without_overlaps(spans)
    sentence = PoolSentence(part.text, spans, part.place)
    mistake = mistake_in(sentence) or _reserved(sentence)
    if mistake is not None:
        overlapping = len(without_overlaps(spans)) < len(spans)
        advice = "; to keep the longest of spans that overlap: --overlaps longest" if overlapping else ""
        raise _UnfitError(LeftOut(part.place, mistake, advice=advice))
    try:
        without_separators(sentence)
    except PoolError as error:
        raise _UnfitError(LeftOut(part.place, str(error).removeprefix(f"{part.place}: "))) from error
    tally.overlapping += len(part.spans) - len(spans)
    return sentence


def _reserved(sentence: PoolSentence) -> str | None:
    for _, label in sentence.spans:
        if label.lower() == NONE_TYPE:
            return f"{quoted(label)} cannot be an entity type: it means «no entity»"
        if label != label.strip() or any(category(char) in _UNSEEN for char in label):
            return (
                f"{quoted(label)} cannot be an entity type: models are shown a line that begins with its name, so it "
                "has no white space at its edges, no line breaks and no control characters: rename it in the file"
            )
    return None


def leave_out(item: LeftOut, options: ImportOptions, tally: ImportTally) -> None:
    """Count what is no sentence of the pool.

    Raises:
        PoolError: it is wrong, and what is wrong is to stop the import.
    """
    if item.mistake and options.reading.on_error == "stop":
        raise PoolError(f"{item.where}: {item.reason}{item.advice}")
    tally.leave_out(item)


def _documents(items: Iterable[Item]) -> Iterator[DocumentItem]:
    for item in items:
        yield LabelledDocument.of(item) if isinstance(item, PoolSentence) else item


def _json(tool: str) -> Callable[[Path, Reading], Iterator[DocumentItem]]:
    return lambda path, reading: _documents(json_items(path, reading, LAYOUTS_OF_TOOLS.get(tool, ())))


def _spacy(path: Path, reading: Reading) -> Iterator[DocumentItem]:
    return docbin_documents(path) if path.suffix.lower() == ".spacy" else _json("spacy")(path, reading)


IMPORT_FORMATS: Final[Mapping[str, Callable[[Path, Reading], Iterator[DocumentItem]]]] = {
    "labelstudio": _json("labelstudio"),
    "doccano": _json("doccano"),
    "prodigy": _json("prodigy"),
    "spacy": _spacy,
    "brat": brat_documents,
    "conll": lambda path, reading: _documents(conll_items(path, reading)),
    "jsonl": _json("jsonl"),
}
"""By the name of the format, its reader."""
