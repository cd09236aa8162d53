"""Examples that somebody teaches a pool while it is in use: a labelled text, who labelled it, and from where."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Final

from el4ner.errors import PoolError
from el4ner.pools.pool import PoolSentence, mistake_in, without_separators
from el4ner.text.icu import characters
from el4ner.types import NONE_TYPE, Span

__all__ = [
    "MOST_CHARACTERS",
    "MOST_NEW_TYPES",
    "MOST_SPANS",
    "MOST_TYPE_CHARACTERS",
    "ExampleSource",
    "PoolExample",
    "example_digest",
]

MOST_CHARACTERS: Final = 10_000
"""Of an example's text: it is a sentence, or a log line."""
MOST_SPANS: Final = 1_000
MOST_NEW_TYPES: Final = 50
MOST_TYPE_CHARACTERS: Final = 100
MOST_DESCRIPTION_CHARACTERS: Final = 500
MOST_TEACHER_CHARACTERS: Final = 255
_LATEST: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class ExampleSource:
    """Which document an example was taken from: its id, and where its message lies. None: not known."""

    document: str | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None


@dataclass(frozen=True)
class PoolExample:
    """A text and what is an entity in it, for one pool.

    Args:
        text: as it is shown; offsets count its code points.
        spans: the entities with their types, in any order. None: the text shows what is *not* an entity.
        types: new types that the pool need not have, with a line of description each.
        teacher: who says so.
        taught_at: when; milliseconds since the epoch.
        source: which document it is from; None: from none.

    Raises:
        PoolError: the text is blank or too long; a span is outside of it, overlaps another one or cuts a character;
            a type's name or description cannot be shown in a prompt.
    """

    text: str
    spans: tuple[tuple[Span, str], ...]
    types: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    teacher: str = ""
    taught_at: int = 0
    source: ExampleSource | None = None

    def __post_init__(self) -> None:
        if len(self.text) > MOST_CHARACTERS:
            raise PoolError(
                f"the text has {len(self.text):,} characters, an example at most {MOST_CHARACTERS:,}: teach the "
                "sentence that matters"
            )
        if not self.text.strip():
            raise PoolError("the text is empty: an example is a sentence with or without entities")
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            raise PoolError(f"the text has half of a surrogate pair at {error.start}, which is no character") from error
        if len(self.spans) > MOST_SPANS:
            raise PoolError(f"{len(self.spans):,} spans, an example has at most {MOST_SPANS:,}")
        object.__setattr__(self, "spans", tuple(sorted(self.spans)))
        if mistake := mistake_in(PoolSentence(self.text, self.spans)):
            raise PoolError(mistake)
        self._check_characters()
        for _, label in self.spans:
            _check_type(label)
        self._check_new_types()
        if len(self.teacher) > MOST_TEACHER_CHARACTERS or not self.teacher.replace(" ", "").isprintable():
            raise PoolError(f"the teacher's name is printable and has at most {MOST_TEACHER_CHARACTERS} characters")
        if not 0 <= self.taught_at <= _LATEST:
            raise PoolError(f"taught_at is a time in milliseconds since the epoch, not {self.taught_at}")
        if not self.sentence.text.strip():
            raise PoolError("the text has nothing but control characters and white space in it")

    def _check_characters(self) -> None:
        if self.text.isascii() and "\r" not in self.text:
            return
        edges = {0, *(end for _, end in characters(self.text))}
        for span, _ in self.spans:
            if span.start not in edges or span.end not in edges:
                raise PoolError(
                    f"span {span.start}–{span.end} begins or ends in the middle of a character, such as between a "
                    "letter and its accent"
                )

    def _check_new_types(self) -> None:
        if len(self.types) > MOST_NEW_TYPES:
            raise PoolError(f"{len(self.types)} new types, an example brings at most {MOST_NEW_TYPES}")
        for name, description in self.types.items():
            _check_type(name)
            if not description.strip() or not description.isprintable():
                raise PoolError(f"type {name!r} needs one line of description that says what it is")
            if len(description) > MOST_DESCRIPTION_CHARACTERS:
                raise PoolError(
                    f"the description of type {name!r} has {len(description)} characters, at most "
                    f"{MOST_DESCRIPTION_CHARACTERS} are shown to a model"
                )

    @cached_property
    def digest(self) -> str:
        """Of the text, as :func:`example_digest` has it."""
        return example_digest(self.text)

    @cached_property
    def sentence(self) -> PoolSentence:
        """As the pool has it: the clean text."""
        return without_separators(PoolSentence(self.text, self.spans, where=f"example {self.digest[:12]}"))


def example_digest(text: str) -> str:
    """What an example is known by in its pool: the first 32 hexadecimal digits of the SHA-256 of the text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _check_type(name: str) -> None:
    if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > MOST_TYPE_CHARACTERS:
        raise PoolError(
            f"{name!r} cannot be the name of a type: it is one printable line of at most {MOST_TYPE_CHARACTERS} "
            "characters, without white space around it"
        )
    if name.lower() == NONE_TYPE:
        raise PoolError(f"{name!r} cannot be an entity type: it means «no entity»")
