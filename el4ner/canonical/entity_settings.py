"""``[entities]``: canonical entities over all documents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from el4ner.config import Section

__all__ = ["EntitySettings"]

PositiveInt = Annotated[int, Field(gt=0)]


class EntitySettings(Section):
    """``[entities]``: for ``el4ner worker entities``."""

    enabled: bool = False
    """``el4ner topics create`` makes the topics that it needs, and each entity of ``tagged-documents`` has its
    ``entity_id``."""
    window_hours: Annotated[int, Field(gt=0, le=24 * 366)] = 24
    """The length of the windows that mentions are counted by; they begin at multiples of it since 1970, in UTC."""
    windows: Annotated[int, Field(gt=0, le=1_000)] = 30
    """How many windows are kept. An entity that no document of them has is forgotten."""
    short_forms: Literal["document", "unique"] = "unique"
    """Of a document that has only a short form (Merkel): ``document``: it is an entity of its own. ``unique``: it is
    the entity of that type that other documents call so, if there is exactly one and most mentions mean it."""
    max_documents: PositiveInt = 200_000
    """The latest documents, whose revisions and deletions take back what they had counted."""
    max_entities: PositiveInt = 100_000
    """Names at once; of more, those that were seen least recently are forgotten."""
    max_aliases: Annotated[int, Field(gt=0, le=1_000)] = 50
    """Spellings that an entity shows, the most frequent ones."""
    trend_entities: Annotated[int, Field(gt=0, le=1_000)] = 100
    """Entities of a window and type in ``entity-trends``, the most frequent ones."""
    trend_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How often trends are written that have changed."""
