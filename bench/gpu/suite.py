"""`pytest -m gpu` in a process of its own, and what came of it by test."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gpu.record import Record

__all__ = ["outcomes", "run"]

TEST_SECONDS: Final = 60


def run(record: Record, root: Path, work: Path, *, seconds: float, environment: Mapping[str, str]) -> None:
    """Every test with the mark ``gpu``.

    Raises:
        RuntimeError: a test failed, or pytest itself did.
    """
    report = work / "gpu-tests.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests/gpu", "-q", "-p", "no:cacheprovider", "--tb=short"]
    command += ["-W", "default", "-o", f"timeout={TEST_SECONDS}", f"--junitxml={report}"]
    record.doing("pytest")
    try:
        done = subprocess.run(
            command, cwd=root, env={**os.environ, **environment}, check=False, timeout=max(1.0, seconds - 3)
        )
        code: int | str = done.returncode
    except subprocess.TimeoutExpired:
        code = "out of time"
    if report.is_file():
        found = outcomes(report.read_text(encoding="utf-8"))
        record.put(**{state: len(found[state]) for state in found}, failures=found["failed"], reasons=found["skipped"])
    record.doing(None)
    if code not in (0, 5):
        raise RuntimeError(f"pytest ended with {code}: see the failures, and the log")


def outcomes(text: str) -> dict[str, list[Any]]:
    """``passed`` (names), ``failed`` and ``skipped`` ([name, first line of the reason]) of a JUnit report."""
    found: dict[str, list[Any]] = {"passed": [], "failed": [], "skipped": []}
    for case in ElementTree.fromstring(text).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                state = "skipped" if child.tag == "skipped" else "failed"
                said = (child.get("message") or child.text or "").strip().splitlines()
                found[state].append([name, said[0][:300] if said else ""])
                break
        else:
            found["passed"].append(name)
    return found
