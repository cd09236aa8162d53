"""Jars, fetched once per user with Maven from a pinned pom: Apache Kafka's, and those of an example."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workers.local.java import find_maven
from workers.local.processes import run_to_end
from workers.local.service_error import LocalServiceError

__all__ = ["KAFKA", "POM", "JarSet", "cached_jars", "fetch_jars", "kafka_version"]

POM = Path(__file__).parent / "kafka" / "pom.xml"

_MAVEN_TIMEOUT_S = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class JarSet:
    """Jars that belong together.

    Args:
        name: of their folder in the user's cache.
        title: what they are, for people.
        pom: what Maven reads. Its property ``el4ner.lib`` names the folder that ``goal`` fills.
        version_property: the pom's property that has their version.
        megabytes: how much is downloaded, for people.
        goal: of Maven's dependency plugin.
    """

    name: str
    title: str
    pom: Path
    version_property: str
    megabytes: int
    goal: str = "copy-dependencies"

    @property
    def version(self) -> str:
        """The version that the pom pins."""
        version = ET.parse(self.pom).findtext(f".//{{*}}properties/{{*}}{self.version_property}")
        if version is None:
            raise LocalServiceError(f"{self.pom} does not name {self.version_property}: install el4ner again")
        return version


KAFKA: Final = JarSet(name="kafka", title="Apache Kafka", pom=POM, version_property="kafka.version", megabytes=45)


def kafka_version() -> str:
    """The version of the local Kafka."""
    return KAFKA.version


def cached_jars(environ: Mapping[str, str], jars: JarSet = KAFKA) -> Path | None:
    """The folder that holds exactly the jars of this pom, or None if they were not fetched yet."""
    folder = _folder(environ, jars)
    return folder if folder.is_dir() else None


def fetch_jars(environ: Mapping[str, str], progress: Callable[[str], None], jars: JarSet = KAFKA) -> Path:
    """The folder of the jars; Maven fetches them if they are not there.

    The folder appears as a whole or not at all. Mirrors and proxies are Maven's business: its own settings hold.
    Raises ``LocalServiceError`` without Maven, or with what Maven said.
    """
    folder = _folder(environ, jars)
    if folder.is_dir():
        return folder
    maven = find_maven(environ)
    if maven is None:
        raise LocalServiceError(
            f"Maven (mvn) is not on the PATH and fetches the jars of {jars.title}: install it, for example "
            "apt-get install maven"
        )
    progress(f"downloading {jars.title} {jars.version} with Maven (about {jars.megabytes} MB, once)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as name:
        work = Path(name)
        # A copy: Maven writes beside its pom, and the installed package may be read-only.
        pom = shutil.copy(jars.pom, work / "pom.xml")
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
                f"org.apache.maven.plugins:maven-dependency-plugin:{jars.goal}",
            ],
            jars,
            cwd=work,
            environ=environ,
        )
        try:
            (work / "lib").rename(folder)
        except OSError as error:
            # Somebody else was first: theirs is as good.
            if not folder.is_dir():
                raise LocalServiceError(f"cannot write the jars of {jars.title} to {folder}: {error}") from error
    return folder


def _run_maven(command: list[str], jars: JarSet, *, cwd: Path, environ: Mapping[str, str]) -> None:
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
            f"Maven could not fetch {jars.title} {jars.version}; it said: {reason} — "
            "check the network and Maven's settings.xml (mirror, proxy)"
        )


def _folder(environ: Mapping[str, str], jars: JarSet) -> Path:
    """One folder per version and pom: another pom never changes the jars under a broker that runs."""
    base = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or Path.home()) / ".cache")
    digest = hashlib.sha256(jars.pom.read_bytes()).hexdigest()[:12]
    return Path(base).absolute() / "el4ner" / jars.name / jars.version / digest
