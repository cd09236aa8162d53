"""OpenSearch and the sink as processes of this machine, for the example and its test."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from examples.local_stream import ROOT, ExampleError
from workers.local.jars import JarSet, fetch_jars
from workers.local.java import find_java
from workers.local.ports import LOOPBACK, choose_port
from workers.local.processes import log_excerpt

__all__ = ["OPENSEARCH", "LocalOpenSearch", "SinkProcess"]

OPENSEARCH: Final = JarSet(
    name="opensearch",
    title="OpenSearch",
    pom=Path(__file__).parent / "server" / "pom.xml",
    version_property="opensearch.version",
    megabytes=56,
    goal="unpack",
)
_SUPERUSER_OF_THE_MACHINE: Final = 0
_START_SECONDS: Final = 180.0


class LocalOpenSearch:
    """A cluster of one node, without security, thrown away at the end. ``url``: its REST interface."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, url: str) -> None:
        self._process = process
        self._folder = folder
        self.url = url

    @classmethod
    @contextlib.contextmanager
    def temporary(cls, progress: Callable[[str], None] = lambda _line: None) -> Iterator[LocalOpenSearch]:
        """Start a node on a free port of the loopback address, with no index; it may not answer yet.

        OpenSearch does not run as root; if this process does, it runs as ``nobody``. Its memory is bounded to some
        0.8 GB. Raises ``ExampleError`` without Java, ``LocalServiceError`` if Maven cannot fetch it.
        """
        java = find_java(os.environ)
        if java is None:
            raise ExampleError("OpenSearch needs Java 17 or 21: for example apt-get install openjdk-17-jre-headless")
        release = fetch_jars(os.environ, progress, OPENSEARCH) / f"opensearch-{OPENSEARCH.version}"
        user = group = None
        if os.geteuid() == _SUPERUSER_OF_THE_MACHINE:
            user, group = "nobody", pwd.getpwnam("nobody").pw_gid
        # Not below a folder of the caller's, which that user may have no right to enter.
        with tempfile.TemporaryDirectory(prefix="el4ner-opensearch-", ignore_cleanup_errors=True) as name:
            # A copy: it writes beside its configuration, and the fetched one stays as it was.
            home = shutil.copytree(release, Path(name) / "home")
            if user is not None:
                for path in (Path(name), home, *home.rglob("*")):
                    shutil.chown(path, user, group)
            port = choose_port(9200)
            with (home / "opensearch.out").open("wb") as output:
                process = subprocess.Popen(
                    _command(java, port, choose_port(9300, taken=frozenset({port}))),
                    cwd=home,
                    user=user,
                    group=group,
                    extra_groups=None if user is None else [],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            try:
                yield cls(process, home, f"http://{LOOPBACK}:{port}")
            finally:
                process.kill()  # there is nothing to be kept
                process.wait()

    def wait_ready(self) -> None:
        """Until it answers. Raises ``ExampleError`` if it ends before that."""
        end = time.monotonic() + _START_SECONDS
        while True:
            if self._process.poll() is not None:
                raise ExampleError(f"OpenSearch ended with {self._process.returncode}: {self.log_excerpt()}")
            with contextlib.suppress(OSError), urllib.request.urlopen(self.url, timeout=10):
                return
            if time.monotonic() > end:
                raise ExampleError(f"OpenSearch does not answer within {_START_SECONDS:g} s; {self.log_excerpt()}")
            time.sleep(0.1)

    def log_excerpt(self) -> str:
        """What it said last that was an error."""
        return log_excerpt([self._folder / "opensearch.out"]) or "it said nothing"


class SinkProcess:
    """``python -m examples.opensearch.documents_sink``."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    @contextlib.contextmanager
    def running(cls, log: Path, environ: Mapping[str, str], *options: str) -> Iterator[SinkProcess]:
        """Start it; what it says is in ``log``. It ends in order with the block."""
        command = [sys.executable, "-m", "examples.opensearch.documents_sink", *options]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=dict(environ), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        sink = cls(process, log)
        try:
            yield sink
        finally:
            sink.stop()

    def check(self) -> None:
        """Raises ``ExampleError`` with the reason if it has ended."""
        if self._process.poll() is not None:
            raise ExampleError(f"the sink ended with {self._process.returncode}: {self.said()}")

    def stop(self) -> int:
        """Its exit status, once it has ended in order."""
        self._process.terminate()
        try:
            return self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """As a machine that fails does."""
        self._process.kill()
        self._process.wait()

    def said(self) -> str:
        """The last lines of its log."""
        return self._log.read_text(errors="replace").strip()[-800:] or "it said nothing"


def _command(java: Path, port: int, transport_port: int) -> list[str]:
    """What ``bin/opensearch`` runs in the end, without the four programs that it asks before."""
    settings = {
        "network.host": LOOPBACK,
        "http.port": port,
        "transport.port": transport_port,
        "discovery.type": "single-node",
        "node.store.allow_mmap": "false",  # small indexes; and Linux allows few maps by default
        "cluster.routing.allocation.disk.threshold_enabled": "false",  # whatever else fills the disk
    }
    return [
        str(java),
        "-Xms256m",
        "-Xmx512m",
        # For a quick start: workers/local/kafka_server.py has what it is worth.
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-Djava.security.manager=allow",
        "-Dlog4j2.disable.jmx=true",
        "-Dlog4j.shutdownHookEnabled=false",
        "-Dopensearch.path.home=.",
        "-Dopensearch.path.conf=config",
        "-Dopensearch.distribution.type=zip",
        "-Dopensearch.bundled_jdk=false",
        "-cp",
        "lib/*",
        "org.opensearch.bootstrap.OpenSearch",
        *(f"-E{name}={value}" for name, value in settings.items()),
    ]
