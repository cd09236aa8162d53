"""A pytest plugin (``-p gpu.live``): a part of the tests, and what came of each in a line of JSON, once it is known.

Processes are ended when their time is over, and a driver may take one with it: what was proved until then is kept, and
the test that was running is known.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

import pytest

__all__ = ["FILE", "PART"]

FILE: Final = "EL4NER_GPU_LIVE"
"""Names the file of results."""
PART: Final = "EL4NER_GPU_PART"
"""``1/3``: this process runs the second, fifth, … of the tests that are named."""
REASON_CHARACTERS: Final = 300


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave this process's part."""
    number, _, count = os.environ.get(PART, "0/1").partition("/")
    part = items[int(number) :: int(count)]
    config.hook.pytest_deselected(items=[item for item in items if item not in part])
    items[:] = part


def pytest_runtest_logstart(nodeid: str, location: object) -> None:
    """A test begins."""
    _write(nodeid, "running")


def pytest_runtest_logreport(report: Any) -> None:
    """Setting up, the test itself, or cleaning up is over."""
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _write(report.nodeid, "skipped", reason.removeprefix("Skipped: "))
    elif report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        _write(report.nodeid, "failed", crash.message if crash is not None else str(report.longrepr))
    elif report.when == "call":
        _write(report.nodeid, "passed")


def _write(test: str, state: str, reason: str = "") -> None:
    lines = reason.strip().splitlines()
    line = {"test": test, "state": state, "reason": lines[0][:REASON_CHARACTERS] if lines else ""}
    with Path(os.environ[FILE]).open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")
