"""The one error of local services."""

from __future__ import annotations

from el4ner.errors import El4nerError

__all__ = ["LocalServiceError"]


class LocalServiceError(El4nerError):
    """A local service cannot be started, reached or stopped.

    The message is one line: what is missing or wrong, and how to mend it.
    """

    code = "local-service"
