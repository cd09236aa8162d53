"""The chaos suite: ``make test-chaos``, one scenario with ``make test-chaos SCENARIO=… SEED=…``.

Every scenario is played by each seed. What the suite had no time left for is ``not run``: neither passed nor failed.

The file's name keeps it out of every other run of pytest: it is collected only where it is named.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.plan import MOST_SLOWNESS, Budget
from tests.chaos.play import folder_of, play
from tests.chaos.registry import SCENARIOS
from tests.chaos.report import RESULTS
from tests.chaos.run import Scenario, World
from tests.chaos.tally import Record

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.integration,
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated …
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
    # … and forgets to close the sockets of connections that were refused.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def _forgotten_sockets_are_closed() -> Iterator[None]:
    """While the warning is still ignored."""
    yield
    gc.collect()


@pytest.mark.parametrize(
    "scenario",
    # The bound that counts is the scenario's own, which says what it was waiting for; this one is for what hangs.
    [
        pytest.param(one, id=name, marks=pytest.mark.timeout((one.seconds + 180) * MOST_SLOWNESS))
        for name, one in SCENARIOS.items()
    ],
)
def test_nothing_is_lost_and_nothing_comes_twice(
    scenario: Scenario, seed: int, budget: Budget, request: pytest.FixtureRequest
) -> None:
    config = request.config
    if (reason := budget.spent()) is not None:
        record = Record.without_figures(scenario.name, seed, "not run")
        config.stash[RESULTS].append((record, [reason.removeprefix("not run: ")]))
        pytest.skip(reason)
    # Not before: a suite that has no time starts no brokers.
    build = Path(config.rootpath) / "build" / "chaos"
    try:
        world: World = request.getfixturevalue("world")
        record, problems = play(scenario, world, seed=seed, build=build, keep=config.getoption("keep"))
    except Exception as error:
        record = Record.without_figures(scenario.name, seed, "failed")
        config.stash[RESULTS].append((record, [f"{type(error).__name__}: {error}".splitlines()[0]]))
        raise
    config.stash[RESULTS].append((record, problems))
    assert not problems, "\n".join([*problems, f"logs are in {folder_of(scenario.name, seed, build)}"])
