"""A worker that is begun before its starter knows where the broker is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT
from workers.cli.begun_early import begin


@pytest.fixture
def waiting() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "workers.cli", "worker", "all", "--ensemble", "instant"]
    with subprocess.Popen(
        [*command, "--environment-from-stdin", "--until-stdin-closes"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        yield process
        process.kill()


def test_it_works_on_what_it_is_told_then(waiting: subprocess.Popen[bytes]) -> None:
    begin(waiting, {"EL4NER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9"})
    assert waiting.wait(timeout=60) == 1
    assert waiting.stderr is not None
    assert b"no Kafka broker answers at 127.0.0.1:9" in waiting.stderr.read()


def test_it_ends_without_a_word_if_its_starter_is_gone(waiting: subprocess.Popen[bytes]) -> None:
    assert waiting.communicate(timeout=60) == (b"", b"")
    assert waiting.returncode == 1


def test_to_begin_one_that_has_ended_is_no_error(waiting: subprocess.Popen[bytes]) -> None:
    waiting.kill()
    waiting.wait(timeout=60)
    begin(waiting, {})
