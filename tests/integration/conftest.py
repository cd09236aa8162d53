"""Where the real broker and the real cache of the integration tests come from.

``make test`` runs these tests by several processes (pytest-xdist, ``--dist loadfile``), each with a broker and a cache
of its own, and each file by one of them: models and services that tests of a file share are started once.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.browser_harness import CHROMIUM, Browsing
from tests.integration.stream_harness import Stream

LONG_FILES = (
    "test_engine_transformers",
    "test_stream_members",
    "test_registry",
    "test_example_consumers",
    "test_hostile_models",
    "test_example_postgresql",
    "test_stream",
    "test_cli_demo",
    "test_tutorial",
    "test_entities",
    "test_serve",
    "test_local_cluster",
    "test_stream_models",
    "test_example_opensearch",
    "test_notebooks",
    "test_members_models",
)
"""They take longest, or for their few tests; the last ones have those of ``make test-long``. By the number of tests, as
xdist orders them, many would come last, and one process would work while the others have nothing left. Those that
compute and those that wait for workers and brokers take turns, since three run at a time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, then those with many tests; and a warning that no test is to blame for.

    kafka-python forgets a connection that is being made while its client is closed, in plain text or over TLS: the
    socket is left to the garbage collector, which says so in whatever test runs then."""
    tests = Counter(item.path for item in items)
    rank = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: (rank.get(item.path.stem, len(rank)), -tests[item.path], item.path))
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore:unclosed <(socket|ssl)[.]:ResourceWarning"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Iterator[None]:
    """A test that failed tells what its workers have logged: who reads the report has nothing else of them."""
    report: Any = yield
    if report.when == "call" and report.failed:
        for stream in (value for value in item.funcargs.values() if isinstance(value, Stream)):
            report.sections += [("worker", worker.last_words()) for worker in stream.workers]
    return report


@pytest.fixture(scope="module", autouse=True)
def _forgotten_sockets() -> Iterator[None]:
    """They are collected here, where that is known: not in a test of something else that would fail by them."""
    yield
    gc.collect()


@dataclass(frozen=True)
class Endpoints:
    """Addresses as the settings have them."""

    kafka_bootstrap: str
    redis_url: str


@pytest.fixture(scope="session")
def services() -> Iterator[Endpoints]:
    """One Kafka and one Redis for the whole run, or for each process of pytest-xdist.

    What ``KAFKA_BOOTSTRAP_SERVERS`` and ``REDIS_URL`` name; else containers, if a Docker engine answers; else the local
    services of ``workers.local``.
    """
    kafka, redis = os.environ.get("KAFKA_BOOTSTRAP_SERVERS"), os.environ.get("REDIS_URL")
    with contextlib.ExitStack() as stack:
        if kafka and redis:
            yield Endpoints(kafka, redis)
        elif _docker_answers():
            from testcontainers.kafka import KafkaContainer
            from testcontainers.redis import RedisContainer

            broker = stack.enter_context(KafkaContainer("confluentinc/cp-kafka:8.0.0").with_kraft())
            cache = stack.enter_context(RedisContainer("valkey/valkey:8"))
            address = f"redis://{cache.get_container_host_ip()}:{cache.get_exposed_port(6379)}/0"
            yield Endpoints(kafka or broker.get_bootstrap_server(), redis or address)
        else:
            from workers.local.services import temporary_services

            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="el4ner-tests-")))
            local = stack.enter_context(temporary_services(folder))
            yield Endpoints(kafka or local.kafka_bootstrap, redis or local.redis_url)


@pytest.fixture
def stream(services: Endpoints, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stream]:
    """A pipeline of the test's own: topics with their own prefix, a configuration file, and no process yet.

    ``@pytest.mark.parametrize("stream", [{...}], indirect=True)`` gives sections that differ.
    """
    sections: dict[str, Any] = getattr(request, "param", {})
    prefix = f"t{uuid.uuid4().hex[:8]}."
    harness = Stream(services.kafka_bootstrap, services.redis_url, prefix, tmp_path, sections)
    try:
        yield harness
    finally:
        harness.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser; the tests that take one are skipped where there is none."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def browsing(chromium: Any, request: pytest.FixtureRequest) -> Iterator[Browsing]:
    """A page of it. ``@pytest.mark.parametrize("browsing", [{...}], indirect=True)`` gives options of its context."""
    context = chromium.new_context(**getattr(request, "param", {}))
    yield Browsing(context.new_page())
    context.close()


def _docker_answers() -> bool:
    """Asked with the command, since the Python client leaks its socket when nobody answers."""
    command = shutil.which("docker")
    if command is None:
        return False
    try:
        return subprocess.run([command, "info"], capture_output=True, timeout=10, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False
