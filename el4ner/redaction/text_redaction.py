"""All that redacts a text by the settings: what models found in it, what has a form of its own, and the rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from el4ner.redaction.key_ring import KeyRing
from el4ner.redaction.personal_data import PersonalData
from el4ner.redaction.redaction_settings import RedactionSettings
from el4ner.redaction.redactor import Detection, Redacted, Redactor

__all__ = ["TextRedaction", "redacted_document"]


class TextRedaction:
    """Redacts texts. To be used by one thread at a time.

    Raises:
        ConfigError: there has to be a key and there is none, or patterns are asked for and Presidio is not there.
    """

    def __init__(self, settings: RedactionSettings, keys: KeyRing | None) -> None:
        self._redactor = Redactor(settings, keys)
        self._personal_data = PersonalData(settings)

    def redact(self, text: str, entities: Iterable[Detection], *, pool: str | None) -> Redacted:
        """The text without its entities and without what has a form of its own, as the rules of ``pool`` say.

        Raises:
            RedactionError: it cannot be done; there is no text then.
        """
        return self._redactor.redact(text, [*entities, *self._personal_data.find(text)], pool=pool)


def redacted_document(
    redacted: Redacted,
    settings: RedactionSettings,
    *,
    document: str,
    revision: int,
    pool: str | None,
    metadata: Mapping[str, Any],
) -> dict[str, Any]:
    """What ``redacted-documents`` has of a document, as JSON. Of its metadata only what the settings let pass."""
    value = {
        "id": document,
        "revision": revision,
        "pool": pool,
        "text": redacted.text,
        "key": redacted.key_id,
        "replacements": [
            {
                "start": each.start,
                "end": each.end,
                "type": each.type,
                "action": each.action,
                "original_start": each.old_start,
                "original_end": each.old_end,
            }
            for each in redacted.replacements
        ],
        "entities": [
            {
                "start": each.start,
                "end": each.end,
                "text": redacted.text[each.start : each.end],
                "type": each.type,
                "confidence": each.confidence,
            }
            for each in redacted.kept
        ],
    }
    if passed_on := {key: metadata[key] for key in settings.metadata if key in metadata}:
        value["metadata"] = passed_on
    return value
