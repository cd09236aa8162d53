"""From the sentences of a pool to the files that tools import."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import orjson

from el4ner.errors import PoolError
from el4ner.pools.exchange.brat_files import annotation_lines, configuration
from el4ner.pools.exchange.conll_writer import conll_lines, keeps_spaces
from el4ner.pools.exchange.docbin import DocBinWriter
from el4ner.pools.exchange.json_writers import (
    doccano_record,
    label_studio_task,
    our_record,
    prodigy_record,
    spacy_pair,
)
from el4ner.pools.pool import LeftOut, PoolSentence
from el4ner.pools.read_options import OnError

__all__ = ["BRAT", "EXPORT_FORMATS", "ExportTally", "brat_files", "exported"]

BRAT: Final = "brat"
_Written = TypeVar("_Written")


@dataclass
class ExportTally:
    """``left_out``: sentences that the format cannot hold. ``respaced``: those whose white space it cannot hold."""

    sentences: int = 0
    respaced: int = 0
    left_out: list[LeftOut] = field(default_factory=list)


def exported(
    sentences: Iterable[PoolSentence],
    tool: str,
    tally: ExportTally,
    *,
    on_error: OnError = "stop",
    docbin: bool = False,
) -> Iterator[bytes]:
    """The bytes of the file that the tool imports; ``docbin``: spaCy's is its own format, not JSON Lines.

    Raises:
        PoolError: a sentence that the format cannot hold, by its place; or spaCy is not installed.
    """
    if docbin:
        writer = DocBinWriter()
        for _ in _written(sentences, writer.add, tally, on_error):
            pass
        yield writer.content()
    elif tool == "conll":
        for sentence, lines in _written(sentences, lambda sentence: list(conll_lines(sentence)), tally, on_error):
            tally.respaced += not keeps_spaces(sentence.text)
            yield "\n".join([*lines, "", ""]).encode()
    else:
        records = (record for _, record in _written(sentences, _RECORDS[tool], tally, on_error))
        yield from _array(records) if tool in _ARRAYS else (_line(record) for record in records)


def brat_files(
    sentences: Sequence[PoolSentence], types: Iterable[str], tally: ExportTally, *, on_error: OnError = "stop"
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of a folder: a document for each sentence, and brat's configuration.

    Raises:
        PoolError: a sentence that the format cannot hold, by its place.
    """
    yield "annotation.conf", configuration(types).encode()
    digits = len(str(len(sentences)))
    annotated = _written(
        sentences, lambda sentence: "".join(f"{line}\n" for line in annotation_lines(sentence)), tally, on_error
    )
    for number, (sentence, lines) in enumerate(annotated, start=1):
        name = f"{number:0{digits}}"
        yield f"{name}.txt", sentence.text.encode()
        yield f"{name}.ann", lines.encode()


def _written(
    sentences: Iterable[PoolSentence],
    write: Callable[[PoolSentence], _Written],
    tally: ExportTally,
    on_error: OnError,
) -> Iterator[tuple[PoolSentence, _Written]]:
    for number, sentence in enumerate(sentences, start=1):
        where = sentence.where or f"sentence {number}"
        try:
            written = write(sentence)
        except PoolError as error:
            if on_error == "stop":
                raise PoolError(f"{where}: {error}; to leave out such sentences: --on-error skip") from error
            tally.left_out.append(LeftOut(where, str(error)))
            continue
        tally.sentences += 1
        yield sentence, written


def _line(record: Any) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _array(records: Iterable[Any]) -> Iterator[bytes]:
    opening = b"[\n"
    for record in records:
        yield opening + orjson.dumps(record)
        opening = b",\n"
    yield b"\n]\n" if opening != b"[\n" else b"[]\n"


_RECORDS: Final[Mapping[str, Callable[[PoolSentence], Any]]] = {
    "labelstudio": label_studio_task,
    "doccano": doccano_record,
    "prodigy": prodigy_record,
    "spacy": spacy_pair,
    "jsonl": our_record,
}
_ARRAYS: Final = frozenset({"labelstudio"})
EXPORT_FORMATS: Final = ("labelstudio", "doccano", "prodigy", "spacy", BRAT, "conll", "jsonl")
