"""Self-checks that a model has passed on this machine, remembered so that they are not made at every start.

A check compares the engine's own passes with plain ones; it takes a second or two, and comes to the same result as long
as everything that could change it is the same: weights and configuration, the number type and device, what attends, the
versions of torch and transformers, the engine's own code, and the processor's model and instructions. All of that is in
the key. Only that a check was passed is remembered. What was not, or cannot be read, is checked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import orjson

from el4ner.models.files import write_atomically

__all__ = ["CHECK_ALWAYS", "check_key", "has_passed", "processor", "remember_passed", "source_digest"]

CHECK_ALWAYS: Final = "EL4NER_SELF_CHECK"
"""Environment variable: ``always`` has every model checked whenever it is loaded."""
REMEMBERED: Final = "self-checks.json"
_MOST: Final = 200
"""Keys that are kept: those of other versions are of no use any more."""


def check_key(*parts: object) -> str:
    """One digest of everything that could change a check's result."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


def has_passed(key: str, cache_dir: Path, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the check ``key`` was passed before, on a machine with this ``cache_dir``."""
    return environ.get(CHECK_ALWAYS, "").lower() != "always" and key in _passed(cache_dir)


def remember_passed(key: str, cache_dir: Path) -> None:
    """Write down that it was. A cache that cannot be written costs time, nothing else."""
    keys = [known for known in _passed(cache_dir) if known != key]
    with contextlib.suppress(OSError):
        write_atomically(cache_dir / REMEMBERED, orjson.dumps({"passed": [*keys, key][-_MOST:]}))


def processor(path: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model and instructions, as Linux tells them; empty where it does not."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "CPU part", "Features")
    lines: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in wanted:
                lines.setdefault(name.strip(), value.strip())  # of the first core
    return "\n".join(f"{name}: {value}" for name, value in sorted(lines.items()))


def source_digest(files: Iterable[Path]) -> str:
    """Of the code of these files: nobody has to count up a version when it changes."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _passed(cache_dir: Path) -> list[str]:
    try:
        read = orjson.loads((cache_dir / REMEMBERED).read_bytes())
        keys = read["passed"]
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return []
    return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
