"""Which documents a viewer wants to see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from workers.http.problems import ProblemError
from workers.join.outputs import normalise
from workers.ui.shown_documents import shown_string

__all__ = ["LiveFilter", "read_filter"]

_STATUSES: Final = frozenset({"complete", "partial", "failed"})
_MOST_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class LiveFilter:
    """Empty and None: all.

    Type, surface and confidence are about one entity: a document is wanted if one of its entities has all three.
    """

    types: frozenset[str] = frozenset()
    """As they are shown, and so are pools."""
    pools: frozenset[str] = frozenset()
    statuses: frozenset[str] = frozenset()
    surface: str = ""
    """Normalised; an entity whose surface has it somewhere."""
    min_confidence: float = 0.0

    @property
    def is_about_entities(self) -> bool:
        """Whether a document without entities is never wanted."""
        return bool(self.types or self.surface or self.min_confidence > 0)

    def wants(self, value: Mapping[str, Any]) -> bool:
        """Whether a message of ``tagged-documents`` is one of them."""
        if self.statuses and value["status"] not in self.statuses:
            return False
        if self.pools and (value["pool"] is None or shown_string(value["pool"]) not in self.pools):
            return False
        return not self.is_about_entities or any(self._wants_entity(entity) for entity in value["entities"])

    def _wants_entity(self, entity: Mapping[str, Any]) -> bool:
        return (
            (not self.types or shown_string(entity["type"]) in self.types)
            and bool(entity["confidence"] >= self.min_confidence)
            and (not self.surface or self.surface in normalise(entity["text"]))
        )


def read_filter(query: Mapping[str, str], lists: Mapping[str, list[str]]) -> LiveFilter:
    """From a query string. ``lists``: what ``type``, ``pool`` and ``status`` have, each as often as it is given.

    Raises:
        ProblemError: 422: names the parameter.
    """
    surface = query.get("surface", "")
    if len(surface) > _MOST_CHARS:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "filter", f"surface: at most {_MOST_CHARS} characters")
    unknown = set(lists.get("status", ())) - _STATUSES
    if unknown:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "filter", f"status: one of {', '.join(sorted(_STATUSES))}")
    try:
        confidence = float(query.get("min_confidence") or 0)
    except ValueError:
        confidence = -1
    if not 0 <= confidence <= 1:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "filter", "min_confidence: a number from 0 to 1")
    return LiveFilter(
        frozenset(lists.get("type", ())),
        frozenset(lists.get("pool", ())),
        frozenset(lists.get("status", ())),
        normalise(surface),
        confidence,
    )
