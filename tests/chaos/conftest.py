"""The cluster that all scenarios share, the suite's options, and its report."""

from __future__ import annotations

import functools
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from tests.chaos import plan, report
from tests.chaos.plan import Budget
from tests.chaos.reaper import Reaper
from tests.chaos.report import RESULTS
from tests.chaos.run import World
from tests.support.cluster import KafkaCluster

_SLOWNESS = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption("--scenario", action="append", help="play this scenario only; may be given several times")
    group.addoption("--keep", action="store_true", help="keep logs and a timeline also of what went well")
    group.addoption(
        "--seed",
        type=int,
        action="append",
        help="what all random choices come from; may be given several times (default: 1, 2 and one of the date)",
    )
    group.addoption(
        "--date",
        type=date.fromisoformat,
        default=datetime.now(UTC).date(),
        help="the day that the third seed is of (default: today, UTC)",
    )
    group.addoption("--report", type=Path, help="where the records go (default: build/chaos.json)")
    group.addoption(
        "--minutes",
        type=float,
        default=plan.MINUTES,
        help=f"begin no scenario after so long, for each seed, times the machine's slowness (default {plan.MINUTES:g})",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = []
    # kafka-python takes every refused connection for an error.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


def _seeds(config: pytest.Config) -> tuple[int, ...]:
    return plan.seeds(config.getoption("seed"), config.getoption("date"))


def pytest_report_header(config: pytest.Config) -> str:
    seeds = _seeds(config)
    of = "" if config.getoption("seed") else f" (the last one of {config.getoption('date')})"
    return f"chaos: seeds {', '.join(map(str, seeds))}{of}; play one again with SEED={seeds[-1]}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", _seeds(metafunc.config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All scenarios by one seed, then by the next; or those that are wanted, in that order."""
    callspecs = ((getattr(item, "callspec", None), item) for item in items)
    chaotic = [(spec.params, item) for spec, item in callspecs if spec is not None and "scenario" in spec.params]
    if not chaotic:
        return  # the other tests are run: pytest has come past this folder
    named = {params["scenario"].name for params, _ in chaotic}
    wanted = config.getoption("scenario") or list(dict.fromkeys(params["scenario"].name for params, _ in chaotic))
    if unknown := set(wanted) - named:
        raise pytest.UsageError(f"no such scenario: {', '.join(unknown)}; there are: {', '.join(sorted(named))}")
    items[:] = [
        item
        for seed in _seeds(config)
        for name in wanted
        for params, item in chaotic
        if (params["seed"], params["scenario"].name) == (seed, name)
    ]


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """What there was no time for has a status of its own."""
    if report.skipped and isinstance(report.longrepr, tuple) and "not run:" in report.longrepr[2]:
        return "not run", "N", "NOT RUN"
    return None


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    records = [record for record, _ in session.config.stash[RESULTS]]
    if exitstatus == pytest.ExitCode.OK and any(record.status == "not run" for record in records):
        session.exitstatus = report.NOT_RUN


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash[RESULTS]
    if not results:
        return
    terminalreporter.section("chaos")
    for line in report.table(results):
        terminalreporter.write_line(line)
    records = [record for record, _ in results]
    path = config.getoption("report") or config.rootpath / "build" / "chaos.json"
    report.write(path, records)
    slowness = config.stash.get(_SLOWNESS, None)
    if slowness is not None:
        terminalreporter.write_line(f"time limits were {slowness:.1f} times those of the reference machine")
    terminalreporter.write_line(f"{report.verdict(records)}; written to {path}")


@pytest.fixture(scope="session")
def budget(pytestconfig: pytest.Config) -> Budget:
    """How long the suite goes on; the machine is measured when that is asked for, once."""

    @functools.cache
    def slowness() -> float:
        pytestconfig.stash[_SLOWNESS] = measured = plan.machine_slowness()
        return measured

    seconds = pytestconfig.getoption("minutes") * 60 * len(_seeds(pytestconfig))
    return Budget(seconds, slowness, time.monotonic())


@pytest.fixture(scope="session")
def world(budget: Budget) -> Iterator[World]:
    """Three brokers, and a process that ends everything if this one is killed."""
    # Before they run: they would be part of what is measured.
    slowness = budget.slowness()
    with tempfile.TemporaryDirectory(prefix="el4ner-chaos-") as folder, Reaper() as reaper:
        cluster = KafkaCluster(Path(folder), detours=True, environ=os.environ)
        world = World(cluster, reaper, slowness)
        try:
            world.start()
            yield world
        finally:
            cluster.stop()
