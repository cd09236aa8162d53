"""docs/tutorial.md to the letter: a new user's commands, with a broker and models of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.postgresql.database import postgresql_programs
from tests.support.command_blocks import shown_after
from tests.support.paths import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.models, pytest.mark.timeout(590)]

PAGE = ROOT / "docs" / "tutorial.md"
MINE = "run by tests/integration/test_tutorial.py"
NEXT = "-- the next block"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mvn") is None, reason="`el4ner local up` needs Maven")
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    blocks = [(block.body, shown) for block, shown in shown_after(PAGE) if block.marker == MINE]
    if postgresql_programs() is None or shutil.which("psql") is None:
        blocks = [(body, shown) for body, shown in blocks if "examples.postgresql" not in body]
    script = "\n".join(["set -eu", *(f"{body}\necho '{NEXT}'" for body, _ in blocks)])
    own = ("EL4NER_CONFIG", "KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL")
    environ = {key: value for key, value in os.environ.items() if key not in own}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        shown, told = process.communicate(timeout=540)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        subprocess.run(["el4ner", "local", "down"], cwd=tmp_path, env=environ, capture_output=True, check=False)
    assert not process.returncode, told
    for (body, expected), output in zip(blocks, shown.split(f"{NEXT}\n"), strict=False):
        if expected is not None:
            assert_shows(output, expected, body)


def assert_shows(output: str, expected: str, body: str) -> None:
    """The very lines, in any order: which document comes first is up to the partitions. After "…", the last ones."""
    lines, wanted = lines_of(output), lines_of(expected)
    if wanted[0] == "…":
        wanted = wanted[1:]
        lines = lines[-len(wanted) :]
    assert sorted(lines) == sorted(wanted), f"the page shows something else for:\n{body}"


def lines_of(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_a_page_that_leaves_out_a_line_is_noticed() -> None:
    assert_shows("a \nb\n", "b\na\n", "")
    assert_shows("a\nb\n", "…\nb\n", "")
    with pytest.raises(AssertionError, match="something else"):
        assert_shows("a\nb\n", "b\n", "")
