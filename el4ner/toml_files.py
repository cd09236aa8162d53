"""Settings files in TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from el4ner.errors import El4nerError

__all__ = ["read_toml"]


def read_toml(path: Path, failure: type[El4nerError]) -> dict[str, Any]:
    """What the file says; a byte order mark before it is no part of it.

    Raises:
        failure: it cannot be read, or is not TOML; names the file and, of what is not TOML, the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise failure(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise failure(f"{path}: is not valid TOML: {error}") from error
