"""Java and Maven on this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

__all__ = ["MINIMUM_JAVA", "find_java", "find_maven"]

MINIMUM_JAVA = 17
"""Kafka 4's brokers need it."""


def find_java(environ: Mapping[str, str]) -> Path | None:
    """A ``java`` of at least :data:`MINIMUM_JAVA`: the one of ``JAVA_HOME``, else the first on ``PATH``; or None."""
    candidates = [shutil.which("java", path=environ.get("PATH", ""))]
    if home := environ.get("JAVA_HOME"):
        candidates.insert(0, shutil.which("java", path=str(Path(home) / "bin")))
    for candidate in candidates:
        if candidate is not None and _major_version(Path(candidate), environ) >= MINIMUM_JAVA:
            return Path(candidate)
    return None


def find_maven(environ: Mapping[str, str]) -> Path | None:
    """``mvn`` on ``PATH``, or None."""
    maven = shutil.which("mvn", path=environ.get("PATH", ""))
    return None if maven is None else Path(maven)


def _major_version(java: Path, environ: Mapping[str, str]) -> int:
    """8, 17, 21, …; 0 if it does not say."""
    try:
        # Asking costs some 40 ms; the class-version error of a Java that is too old is a riddle to most.
        answer = subprocess.run(
            [str(java), "-version"], env=dict(environ), capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    version = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    return int(version.group(1)) if answer.returncode == 0 and version is not None else 0
