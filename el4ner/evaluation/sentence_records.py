"""What is kept of every evaluated sentence: enough to compute every figure again without a model.

A file of records is JSON Lines, one :class:`SentenceRecord` a line. Offsets are code points into the sentence's text,
half-open; seconds and tokens are by stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from el4ner.errors import PoolError
from el4ner.types import Entity, Usage, Verdict

__all__ = [
    "FORMAT",
    "Considered",
    "EvaluationError",
    "Fate",
    "Labelled",
    "SegmentedSentence",
    "SentenceRecord",
    "read_records",
    "record_from_json",
    "record_to_json",
    "write_records",
]

FORMAT: Final = 1
"""Of a record's JSON. Counting it up makes every cached record be measured again."""

Labelled = tuple[int, int, str]
"""Start, end (code points, half-open), type."""

Fate = Literal["none", "rejected", "unsure", "overlapped", "kept"]
"""What became of a candidate: classified as no entity; dropped by a hard verdict; below ``method.min_confidence``;
given up for an entity that overlaps it; an entity of the result."""

Offset = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


class EvaluationError(PoolError):
    """Records cannot be read or written, or two runs cannot be compared; the message says how to mend it.

    As any error about labelled data it is the user's to mend, so the command line ends with the same exit code.
    """

    code = "evaluation"


@dataclass(frozen=True, slots=True)
class Considered:
    """A candidate span, who proposed it, the type that classification chose (or ``none``), and what came of it.

    ``confidence`` is the ensemble's, before validation. ``verdict`` None: nobody was asked.
    """

    start: Offset
    end: Offset
    text: str
    proposed_by: tuple[str, ...]
    type: str
    confidence: Probability
    votes: Mapping[str, str]
    verdict: Verdict | None
    fate: Fate


@dataclass(frozen=True, slots=True)
class SegmentedSentence:
    """A part of the text that the stages worked on as one sentence, and the pool sentences that were shown with it."""

    start: Offset
    end: Offset
    demonstrations: tuple[Offset, ...]


@dataclass(frozen=True, slots=True)
class SentenceRecord:
    """One labelled sentence, what the pipeline made of it, and what that cost.

    ``pieces`` are more than one where the segmenter split the sentence. ``seconds`` and ``usage`` map a stage's name to
    this sentence's share of its batch.
    """

    text: str
    gold: tuple[Labelled, ...]
    pieces: tuple[SegmentedSentence, ...]
    candidates: tuple[Considered, ...]
    entities: tuple[Entity, ...]
    seconds: Mapping[str, Annotated[float, Field(ge=0)]]
    usage: Mapping[str, Usage]
    format: Literal[1] = FORMAT

    @property
    def predicted(self) -> tuple[Labelled, ...]:
        """The final entities, as the gold standard is written."""
        return tuple((entity.start, entity.end, entity.type) for entity in self.entities)

    @property
    def demonstrations(self) -> tuple[int, ...]:
        """Pool indices shown with any piece, each once."""
        return tuple(dict.fromkeys(index for piece in self.pieces for index in piece.demonstrations))


_JSON: Final = TypeAdapter(SentenceRecord)


def record_to_json(record: SentenceRecord) -> bytes:
    """One line of a records file, without its line break."""
    return _JSON.dump_json(record)


def record_from_json(line: bytes) -> SentenceRecord:
    """Read what :func:`record_to_json` wrote; unknown fields are passed over.

    Raises:
        ValueError: says which field is wrong, and how.
    """
    try:
        record = _JSON.validate_json(line, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(key) for key in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from error
    spans = [(start, end) for start, end, _ in (*record.gold, *record.predicted)]
    spans += [(piece.start, piece.end) for piece in record.pieces]
    spans += [(candidate.start, candidate.end) for candidate in record.candidates]
    for start, end in spans:
        if not 0 <= start <= end <= len(record.text):
            raise ValueError(f"span {start}–{end} is not inside the text, which has {len(record.text)} characters")
    return record


def read_records(path: Path) -> list[SentenceRecord]:
    """The records of a file that ``el4ner eval --records`` wrote.

    Raises:
        EvaluationError: the file cannot be read, or a line is no record: names file and line.
    """
    return list(_records(path))


def write_records(path: Path, records: Iterable[SentenceRecord]) -> None:
    """Write ``records`` as JSON Lines, in their order.

    Raises:
        EvaluationError: the file cannot be written.
    """
    try:
        path.write_bytes(b"".join(record_to_json(record) + b"\n" for record in records))
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written: {error.strerror}") from error


def _records(path: Path) -> Iterator[SentenceRecord]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read: {error.strerror}") from error
    empty = True
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        empty = False
        try:
            yield record_from_json(line)
        except ValueError as error:
            raise EvaluationError(
                f"{path}:{number}: is no evaluation record: {error}; write the file with `el4ner eval --records`"
            ) from error
    if empty:
        raise EvaluationError(f"{path}: holds no record; write the file with `el4ner eval --records`")
