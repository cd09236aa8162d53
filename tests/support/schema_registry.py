"""A schema registry as a process of this machine: Apicurio, which keeps what it is told in memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.certificates import Authority
from workers.local.jars import JarSet, fetch_jars
from workers.local.java import find_java
from workers.local.ports import LOOPBACK, choose_port
from workers.local.service_error import LocalServiceError

APICURIO: Final = JarSet(
    name="apicurio",
    title="Apicurio Registry",
    pom=Path(__file__).parent / "apicurio" / "pom.xml",
    version_property="apicurio.version",
    megabytes=110,
    goal="unpack",
)
_PATH: Final = "/apis/ccompat/v7"


class SchemaRegistry:
    """``url``: its interface that is as Confluent's. ``tls_url``: the same by TLS, for whoever trusts ``authority``."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, tls_url: str, authority: Authority) -> None:
        self._process = process
        self.url = url
        self.tls_url = tls_url
        self.authority = authority

    def pause(self) -> None:
        """From now on it takes connections and does not answer."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def register(self, subject: str, schema: str, kind: str) -> int:
        """The schema's id."""
        return int(self.ask("POST", f"/subjects/{subject}/versions", {"schema": schema, "schemaType": kind})["id"])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        response = httpx.request(method, f"{self.url}{path}", json=body, timeout=30)
        response.raise_for_status()
        return response.json()


@contextlib.contextmanager
def running_registry(folder: Path, port: int | None = None) -> Iterator[SchemaRegistry]:
    """A registry with no schemas in it, which ends with the block. It may not answer yet: see :func:`wait_ready`."""
    java = find_java(os.environ)
    try:
        app = fetch_jars(os.environ, lambda _: None, APICURIO)
    except LocalServiceError as error:
        pytest.skip(str(error))
    port = port or choose_port(8081)
    tls_port = choose_port(8443, taken=frozenset({port}))
    authority = Authority(folder / "authority")
    certificate = authority.issue("registry", LOOPBACK)
    log = folder / "registry.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                str(java),
                "-Xmx384m",
                # For a quick start: workers/local/kafka_server.py has what it is worth.
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                f"-Dquarkus.http.host={LOOPBACK}",
                f"-Dquarkus.http.port={port}",
                f"-Dquarkus.http.ssl-port={tls_port}",
                f"-Dquarkus.http.ssl.certificate.files={certificate.certfile}",
                f"-Dquarkus.http.ssl.certificate.key-files={certificate.keyfile}",
                "-jar",
                str(next(app.glob("*-runner.jar"))),
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        urls = (f"http://{LOOPBACK}:{port}{_PATH}", f"https://{LOOPBACK}:{tls_port}{_PATH}")
        yield SchemaRegistry(process, *urls, authority)
    finally:
        process.kill()  # there is nothing to be kept
        process.wait()


def wait_ready(registry: SchemaRegistry, *, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.HTTPError):
            registry.ask("GET", "/subjects")
            return
        assert time.monotonic() < end, f"no registry within {seconds:g} s"
        time.sleep(0.1)
