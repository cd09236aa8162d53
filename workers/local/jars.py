"""Apache Kafka's jars, fetched once per user with Maven from a pinned pom."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path

from workers.local.java import find_maven
from workers.local.processes import run_to_end
from workers.local.service_error import LocalServiceError

__all__ = ["POM", "cached_jars", "fetch_jars", "kafka_version"]

POM = Path(__file__).parent / "kafka" / "pom.xml"

_MAVEN_TIMEOUT_S = 600


def kafka_version() -> str:
    """The version that the pom pins."""
    version = ET.parse(POM).findtext(".//{*}properties/{*}kafka.version")
    if version is None:
        raise LocalServiceError(f"{POM} does not name kafka.version: install el4ner again")
    return version


def cached_jars(environ: Mapping[str, str]) -> Path | None:
    """The folder that holds exactly the jars of this pom, or None if they were not fetched yet."""
    folder = _folder(environ)
    return folder if folder.is_dir() else None


def fetch_jars(environ: Mapping[str, str], progress: Callable[[str], None]) -> Path:
    """The folder of the jars; Maven fetches them if they are not there.

    The folder appears as a whole or not at all. Mirrors and proxies are Maven's business: its own settings hold.
    Raises ``LocalServiceError`` without Maven, or with what Maven said.
    """
    folder = _folder(environ)
    if folder.is_dir():
        return folder
    maven = find_maven(environ)
    if maven is None:
        raise LocalServiceError(
            "Maven (mvn) is not on the PATH and fetches Kafka's jars: install it, for example apt-get install maven"
        )
    progress(f"downloading Apache Kafka {kafka_version()} with Maven (about 45 MB, once)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as name:
        work = Path(name)
        # A copy: Maven writes beside its pom, and the installed package may be read-only.
        pom = shutil.copy(POM, work / "pom.xml")
        _run_maven(
            [
                str(maven),
                "--batch-mode",
                "--no-transfer-progress",
                "--quiet",
                "--strict-checksums",
                "--file",
                str(pom),
                "-Dstyle.color=never",
                f"-Del4ner.lib={work / 'lib'}",
                "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies",
            ],
            cwd=work,
            environ=environ,
        )
        try:
            (work / "lib").rename(folder)
        except OSError as error:
            # Somebody else was first: theirs is as good.
            if not folder.is_dir():
                raise LocalServiceError(f"cannot write Kafka's jars to {folder}: {error}") from error
    return folder


def _run_maven(command: list[str], *, cwd: Path, environ: Mapping[str, str]) -> None:
    try:
        done = run_to_end(command, environ=environ, timeout_s=_MAVEN_TIMEOUT_S, cwd=cwd)
    except subprocess.TimeoutExpired as error:
        raise LocalServiceError(
            f"Maven did not finish within {_MAVEN_TIMEOUT_S} s: check the network and Maven's settings.xml"
        ) from error
    if done.returncode != 0:
        errors = [line.strip() for line in done.stdout.splitlines() if re.search(r"\[ERROR\] \S", line)]
        reason = (errors or [line for line in done.stdout.splitlines() if line.strip()] or ["nothing"])[0]
        raise LocalServiceError(
            f"Maven could not fetch Kafka {kafka_version()}; it said: {reason} — "
            "check the network and Maven's settings.xml (mirror, proxy)"
        )


def _folder(environ: Mapping[str, str]) -> Path:
    """One folder per version and pom: another pom never changes the jars under a broker that runs."""
    base = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or Path.home()) / ".cache")
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    return Path(base).absolute() / "el4ner" / "kafka" / kafka_version() / digest
