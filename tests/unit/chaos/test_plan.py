"""What the chaos suite plays, for how long, and what it says of what it had no time for."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from tests.chaos import report
from tests.chaos.conftest import pytest_collection_modifyitems
from tests.chaos.plan import MOST_SLOWNESS, REFERENCE_SECONDS, Budget, seeds, slowness_of
from tests.chaos.tally import Record
from tests.support.paths import ROOT


def test_there_are_three_seeds_one_of_them_of_the_day() -> None:
    assert seeds(None, date(2026, 11, 26)) == (1, 2, 20261126)
    assert seeds(None, date(2026, 11, 27))[-1] != seeds(None, date(2026, 11, 26))[-1]
    assert seeds([20261126], date(2027, 1, 1)) == (20261126,)


def test_time_limits_grow_with_the_machine_and_never_shrink() -> None:
    assert slowness_of(REFERENCE_SECONDS / 3) == 1.0
    assert slowness_of(2 * REFERENCE_SECONDS) == 2.0
    assert slowness_of(100 * REFERENCE_SECONDS) == MOST_SLOWNESS


def test_when_the_time_is_over_nothing_is_begun() -> None:
    now, asked = [0.0], []

    def slowness() -> float:
        asked.append(True)
        return 2.0

    budget = Budget(600, slowness, begun=0.0, monotonic=lambda: now[0])
    now[0] = 599.0
    assert budget.spent() is None
    assert not asked, "the machine is measured when that matters"
    now[0] = 1199.0
    assert budget.spent() is None
    now[0] = 1200.0
    assert budget.spent() == "not run: the suite's 20 minutes are over"
    assert Budget(0, slowness, begun=5.0, monotonic=lambda: 5.0).spent() is not None


def test_what_was_not_run_is_neither_passed_nor_failed() -> None:
    ok, failed = Record("a", 1, 1, 0, 0, None, 1, "ok"), Record("b", 1, 0, 1, 0, None, 1, "failed")
    not_run = Record.without_figures("c", 1, "not run")
    assert report.verdict([ok, ok]) == "passed: 2 scenarios"
    assert report.verdict([ok, not_run]).startswith("NOT PASSED: nothing failed, but 1 of 2")
    assert report.verdict([ok, failed, not_run]) == "FAILED: 1 of 3 scenarios failed, 1 were not run"


def suite(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The suite, in a process of its own and without any time: it starts no broker."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(ROOT / "tests" / "chaos" / "suite.py")),
            *("--minutes", "0", "--report", str(tmp_path / "chaos.json"), *options),
        ],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.slow
def test_a_suite_without_time_says_so_in_its_exit_status_its_table_and_its_file(tmp_path: Path) -> None:
    done = suite(tmp_path, "--scenario", "redis", "--date", "2026-11-26")
    assert done.returncode == report.NOT_RUN, done.stdout + done.stderr
    assert "seeds 1, 2, 20261126 (the last one of 2026-11-26); play one again with SEED=20261126" in done.stdout
    assert done.stdout.count("NOT RUN: the suite's 0 minutes are over") == 3
    assert "NOT PASSED: nothing failed, but 3 of 3 scenarios were not run" in done.stdout
    assert "3 not run in" in done.stdout
    records = orjson.loads((tmp_path / "chaos.json").read_bytes())
    assert [(record["seed"], record["status"]) for record in records] == [
        (1, "not run"),
        (2, "not run"),
        (20261126, "not run"),
    ]
    assert records[0]["lost"] is None


def test_a_scenario_that_there_is_not_is_refused_with_those_there_are() -> None:
    options = {"seed": [3], "scenario": ["earthquake"], "date": date(2026, 11, 26)}
    items = [
        SimpleNamespace(callspec=SimpleNamespace(params={"seed": 3, "scenario": SimpleNamespace(name=name)}), name=name)
        for name in ("scale", "redis")
    ]
    config: Any = SimpleNamespace(getoption=options.get)
    chosen: Any = items
    with pytest.raises(pytest.UsageError, match="no such scenario: earthquake; there are: redis, scale"):
        pytest_collection_modifyitems(config, chosen)
    options["scenario"] = ["redis"]
    pytest_collection_modifyitems(config, chosen)
    assert [item.name for item in items] == ["redis"]
