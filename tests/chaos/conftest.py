"""The cluster that all scenarios share, the suite's options, and its report."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.reaper import Reaper
from tests.chaos.report import RESULTS
from tests.chaos.run import World
from workers.local.cluster import KafkaCluster

SUITE_SECONDS = 24.5 * 60
"""All of it. What is not over by then fails, and says what it was waiting for."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption("--scenario", action="append", help="play this scenario only; may be given several times")
    group.addoption("--keep", action="store_true", help="keep logs and a timeline also of what went well")
    group.addoption("--seed", type=int, default=1, help="what all random choices come from (default 1)")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = []
    # kafka-python takes every refused connection for an error.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("scenario")
    if wanted:
        names = {item.callspec.id: item for item in items if hasattr(item, "callspec")}
        if unknown := set(wanted) - names.keys():
            raise pytest.UsageError(f"no such scenario: {', '.join(unknown)}; there are: {', '.join(names)}")
        items[:] = [names[name] for name in wanted]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash[RESULTS]
    if not results:
        return
    terminalreporter.section("chaos")
    for line in report.table(results):
        terminalreporter.write_line(line)
    path = config.rootpath / "build" / "chaos.json"
    report.write(path, [record for record, _ in results])
    terminalreporter.write_line(f"written to {path}")


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """Three brokers, and a process that ends everything if this one is killed."""
    with tempfile.TemporaryDirectory(prefix="el4ner-chaos-") as folder, Reaper() as reaper:
        cluster = KafkaCluster(Path(folder), detours=True, environ=os.environ)
        world = World(cluster, reaper, time.monotonic() + SUITE_SECONDS)
        try:
            world.start()
            yield world
        finally:
            cluster.stop()
