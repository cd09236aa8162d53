"""For the tests of single modules."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector need not look through it again and again."""
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """For models this small, threads only wait for each other: for seconds, where the processor is shared."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def undisturbed(tmp_path: Path) -> Iterator[None]:
    """A command sets variables and handlers for its process: here they must not outlive the test."""
    root = logging.getLogger()
    environ, handlers, level = dict(os.environ), list(root.handlers), root.level
    kafka_level = logging.getLogger("kafka").level
    for name in (
        "EL4NER_CONFIG",
        "KAFKA_BOOTSTRAP_SERVERS",
        "REDIS_URL",
        "TORCH_EXTENSIONS_DIR",
        "TORCH_CUDA_ARCH_LIST",
    ):
        os.environ.pop(name, None)
    os.environ["EL4NER_CACHE_DIR"] = str(tmp_path / "cache")
    yield
    os.environ.clear()
    os.environ.update(environ)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("kafka").setLevel(kafka_level)


@pytest.fixture
def runner() -> CliRunner:
    """Runs a command in this process. A module of tests that use it is marked as ``undisturbed``."""
    return CliRunner()
