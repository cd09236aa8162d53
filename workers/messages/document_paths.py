"""Where in somebody else's messages a document is: ``kafka.text_path`` and its neighbours.

A topic of change events, or of messages that have their text somewhere inside, is read as it is: nobody has to rewrite
it for el4ner. No Kafka in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from el4ner.errors import MessageError
from workers.config import PATHS, KafkaSettings
from workers.messages import json_schemas
from workers.value_path import ValuePath, described

__all__ = ["DocumentPaths"]


@dataclass(frozen=True, slots=True)
class DocumentPaths:
    """Where a message of the topic ``documents`` has what of a document.

    ``ids``: places of the id, of which the first one that has one counts; without any, the id is the message's key (or
    its place). ``revision``: None: it is 0.
    """

    text: ValuePath
    ids: tuple[ValuePath, ...] = ()
    revision: ValuePath | None = None

    @classmethod
    def of(cls, settings: KafkaSettings) -> DocumentPaths | None:
        """As the settings say; None: messages are as the topic's schema says."""

        def places(key: str) -> tuple[ValuePath, ...]:
            written = getattr(settings, key)
            return tuple(
                ValuePath.parse(key, path) for path in ((written,) if isinstance(written, str) else written or ())
            )

        text, ids, revision = (places(key) for key in PATHS)
        return cls(text[0], ids, revision[0] if revision else None) if text else None

    def document(self, data: Any) -> dict[str, Any]:
        """A message's document as the topic's schema has it; without ``text``: null is there, so it is deleted.

        Raises:
            MessageError: ``schema``: something is not where it has to be, or not what it has to be.
        """
        document = self._identity(data, known=dict[str, Any]())
        if (text := self.text.find(data)) is not None:
            document["text"] = _valid("text", text, self.text)
        elif self.ids and "id" not in document:
            # Not by the key: whoever names a place for ids has other keys.
            raise self.text.error(
                f"null is there, which deletes a document, and kafka.id_path ({self._where}) does not say which: name "
                "a place that deletions have too, behind it"
            )
        return document

    def identity(self, data: Any) -> dict[str, Any]:
        """``id`` and ``revision`` of a message that is no document, as far as they can be told."""
        found: dict[str, Any] = {}
        with suppress(MessageError):
            self._identity(data, known=found)
        return found

    @property
    def _where(self) -> str:
        return ", ".join(path.written for path in self.ids)

    def _identity(self, data: Any, *, known: dict[str, Any]) -> dict[str, Any]:
        """``known``, with what is found."""
        missing: MessageError | None = None
        for path in self.ids:
            try:
                identity = path.find(data)
            except MessageError as error:
                missing = missing or error
                continue
            if identity is not None:
                # As in files: the number 7 is the id "7".
                whole = isinstance(identity, int) and not isinstance(identity, bool)
                known["id"] = _valid("id", str(identity) if whole else identity, path)
                break
        else:
            if missing is not None and len(self.ids) == 1:
                raise missing
        if self.revision is not None and (revision := self.revision.find(data)) is not None:
            # JSON Schema takes 5.0 for a whole number.
            known["revision"] = int(_valid("revision", revision, self.revision))
        return known


def _valid(name: str, value: Any, path: ValuePath) -> Any:
    try:
        json_schemas.validate("documents", {"text": "", name: value})
    except (MessageError, ValueError) as error:  # ValueError: there are bytes, which Avro has and JSON has not
        raise path.error(f"that is {described(value)}; it has to be {_NEEDED[name]}") from error
    return value


_NEEDED: Final[Mapping[str, str]] = {
    "text": "text",
    "id": "a string of 1 to 1,024 characters, or a whole number",
    "revision": "a whole number from 0 to 9007199254740991",
}
