"""Every error that el4ner raises on purpose.

    El4nerError                       has a stable ``code``: the same in logs, metrics, dead letters and docs
    ├── ConfigError                   the user's configuration: names the key; mend it and start again
    ├── PoolError                     a demonstration pool or data set: names file and line
    ├── ModelError                    weights are missing, damaged or not supported
    ├── DocumentError                 this document cannot be processed; others can: dead letter, never retried
    │   └── MessageError              … because its message cannot be read (bytes, JSON, schema)
    └── EngineError                   an engine failed while it worked
        ├── EngineOutOfMemoryError    … may pass with a smaller batch
        ├── EngineAwayError           … may pass by itself: the same call is made again
        └── PoolReadingError          … while it read a pool: no document is to blame

Anything else that is raised is a bug and is left to crash.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DocumentError",
    "El4nerError",
    "EngineAwayError",
    "EngineError",
    "EngineOutOfMemoryError",
    "MessageError",
    "ModelError",
    "PoolError",
    "PoolReadingError",
]


class El4nerError(Exception):
    """Base of the family. ``code`` is a short, stable, kebab-case name of the kind of error."""

    code: str = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class ConfigError(El4nerError):
    """A setting is missing, unknown or out of range; the message names the key and its source."""

    code = "config"


class PoolError(El4nerError):
    """A pool or labelled data set cannot be read; the message names file and line."""

    code = "pool"


class ModelError(El4nerError):
    """A model's weights are missing, damaged or of an architecture that the engine cannot run."""

    code = "model"


class DocumentError(El4nerError):
    """One document cannot be processed, whatever is tried. It goes to the dead letters."""

    code = "document"


class MessageError(DocumentError):
    """The bytes of a message are not what its topic's schema says."""

    code = "message"


class EngineError(El4nerError):
    """An engine failed during generate or score. ``transient``: nothing that it was given is to blame."""

    code = "engine"
    transient = False


class EngineOutOfMemoryError(EngineError):
    """The engine ran out of memory; a smaller batch may pass."""

    code = "engine-out-of-memory"


class EngineAwayError(EngineError):
    """The engine cannot be reached, or is busy; the same call may pass later."""

    code = "engine-away"
    transient = True


class PoolReadingError(EngineError):
    """A pool could not be read when its first document came. The document is not to blame: it may be tried again."""

    code = "pool-reading"
    transient = True
