"""Folders on the import path that are filled while processes run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

__all__ = ["open_for_import"]


def open_for_import(folder: Path) -> None:
    """Make what lies in ``folder`` importable by this process, whatever was there when the process began.

    Python asks each folder of its path once what it is, and remembers "nothing" for one that is not there yet. A folder
    that is filled later stays empty to that process, unless it is told to look again. So a folder is made before
    anything puts it on a path, and this is called after it was filled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = str(folder)
    if name not in sys.path:
        sys.path.insert(0, name)
    sys.path_importer_cache.pop(name, None)
    importlib.invalidate_caches()
