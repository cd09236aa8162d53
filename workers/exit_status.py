"""Exit statuses of our programs: numbers that scripts and platforms read."""

from __future__ import annotations

from typing import Final

from el4ner.errors import ConfigError, ModelError, PoolError

__all__ = ["EXIT_BROKEN_PIPE", "EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_USAGE", "exit_status"]

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
"""128 + SIGINT."""
EXIT_BROKEN_PIPE: Final = 141
"""128 + SIGPIPE, as of any program that ``| head`` cuts short."""


def exit_status(error: BaseException) -> int:
    """What a command of ``el4ner`` ends with after an error: the user's to mend, or not."""
    return EXIT_USAGE if isinstance(error, ConfigError | ModelError | PoolError) else EXIT_FAILED
