"""docs/tutorial.md to the letter: a new user's commands, with a broker and models of their own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_blocks import command_blocks, shown_blocks
from tests.support.paths import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.models, pytest.mark.slow, pytest.mark.timeout(590)]

PAGE = ROOT / "docs" / "tutorial.md"
MINE = "run by tests/integration/test_tutorial.py"


@pytest.mark.skipif(shutil.which("mvn") is None, reason="`el4ner local up` needs Maven")
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    script = "\n".join(["set -eu", *(block.body for block in command_blocks(PAGE) if block.marker == MINE)])
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
    lines = {re.sub(r"\s+$", "", line) for line in shown.splitlines()}
    for block in shown_blocks(PAGE):
        for line in block.splitlines():
            assert any(line in seen for seen in lines), f"the page shows {line!r}; the commands showed:\n{shown}"
