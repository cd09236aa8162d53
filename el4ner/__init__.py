"""el4ner: named-entity tagging by an ensemble of small LLMs, prompted in context, with no training.

    >>> from el4ner import Tagger                                                   # doctest: +SKIP
    >>> with Tagger.from_config() as tagger:                                        # doctest: +SKIP
    ...     for document in tagger.tag(["Ada Lovelace met Charles Babbage in London."]):
    ...         print([(entity.text, entity.type) for entity in document.entities])

Names are loaded when they are first used: importing :mod:`el4ner` alone takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from el4ner.errors import ConfigError, DocumentError, El4nerError, EngineError, ModelError, PoolError
    from el4ner.pools import Pool, load_pool
    from el4ner.tagger import Tagger
    from el4ner.types import Document, Entity, TaggedDocument

__all__ = [
    "ConfigError",
    "Document",
    "DocumentError",
    "El4nerError",
    "EngineError",
    "Entity",
    "ModelError",
    "Pool",
    "PoolError",
    "TaggedDocument",
    "Tagger",
    "load_pool",
]

_HOMES = {
    "Document": "el4ner.types",
    "Entity": "el4ner.types",
    "Pool": "el4ner.pools",
    "TaggedDocument": "el4ner.types",
    "Tagger": "el4ner.tagger",
    "load_pool": "el4ner.pools",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'el4ner' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "el4ner.errors")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
