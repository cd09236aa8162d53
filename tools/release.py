"""A release by one command: what it changes in the tree, and what it makes in ``dist/``. It publishes nothing.

The tree gets its version, the changelog its section, and the schemas are kept as they were promised. ``dist/`` gets:

    el4ner-VERSION-py3-none-any.whl, el4ner-VERSION.tar.gz
    el4ner-VERSION.cdx.json             every package of the lock file with its hashes (CycloneDX), of all extras
    el4ner-VERSION-licenses.json, .md   what the wheel with all extras installs, and its licences (JSON: their texts)
    el4ner-VERSION-changes.md           the changelog's section
    SHA256SUMS
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.extras_trial import TrialError, environment

__all__ = ["Release", "ReleaseError", "make_release", "with_changelog_section", "with_version"]

_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_UNRELEASED: Final = "## Unreleased\n"
_VERSIONED: Final = {
    "pyproject.toml": r'(?m)^(version = ")[^"]+(")',
    "docker/helm/el4ner/Chart.yaml": r'(?m)^((?:appVersion|version): "?)\d[^"\n]*("?)',
}
"""Files that name the version, and where."""


class ReleaseError(Exception):
    """No release can be made of this tree; the message says why, and how to mend it."""


@dataclass(frozen=True, slots=True)
class Release:
    """What to release, of which tree, and by which programs."""

    root: Path
    version: str
    date: datetime.date
    uv: str
    checks: tuple[Sequence[str], ...]
    """Commands that have to succeed before anything is changed."""

    @property
    def name(self) -> str:
        """What the files' names begin with."""
        return f"el4ner-{self.version}"


def make_release(release: Release, tell: Callable[[str], None]) -> Path:
    """Check, change the tree, and fill ``dist/``; the folder.

    Raises:
        ReleaseError: the version is not a newer one, the tree has changes, a check failed, or a file cannot be made.
    """
    dist = release.root / "dist"
    _refuse_what_is_not_ready(release)
    for command in release.checks:
        tell(f"check: {' '.join(command)}")
        _run(release.root, command)
    tell(f"version {release.version}: pyproject.toml, uv.lock, the chart, the changelog, schemas/released")
    try:
        return _changed_and_built(release, dist, tell)
    except (ReleaseError, OSError, subprocess.SubprocessError) as error:
        undo = f"git checkout . && git clean -fd schemas/released/{release.version}"
        raise ReleaseError(f"{error}\nthe tree was changed; undo that by: {undo}") from error


def _changed_and_built(release: Release, dist: Path, tell: Callable[[str], None]) -> Path:
    section = _change_tree(release)
    shutil.rmtree(dist, ignore_errors=True)
    tell("wheel and archive")
    epoch = _run(release.root, ["git", "log", "-1", "--format=%ct"]).strip()
    build = [release.uv, "build", "--quiet", "--wheel", "--sdist", "--out-dir", str(dist)]
    _run(release.root, build, SOURCE_DATE_EPOCH=epoch)
    tell("the list of packages (CycloneDX)")
    exported = ["--frozen", "--all-extras", "--no-dev", "--no-emit-project", "--format", "cyclonedx1.5"]
    listed = _run(release.root, [release.uv, "export", "--quiet", *exported])
    (dist / f"{release.name}.cdx.json").write_text(listed, encoding="utf-8")
    tell("licences of what the wheel with all extras installs")
    if silent := _write_licences(release, dist):
        tell(f"their packages name no licence, read their pages: {', '.join(silent)}")
    (dist / f"{release.name}-changes.md").write_text(section, encoding="utf-8")
    files = sorted(path for path in dist.iterdir() if path.name.startswith("el4ner-"))
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (dist / "SHA256SUMS").write_text(sums, encoding="utf-8")
    return dist


def with_version(text: str, pattern: str, version: str) -> str:
    """``text`` with another version where ``pattern`` finds one between its two groups.

    Raises:
        ReleaseError: it finds none.
    """
    changed, times = re.subn(pattern, rf"\g<1>{version}\g<2>", text)
    if not times:
        raise ReleaseError(f"no version is where it is looked for: {pattern}")
    return changed


def with_changelog_section(changelog: str, version: str, date: datetime.date) -> tuple[str, str]:
    """The changelog in which what was unreleased is ``version``'s, and that section alone.

    Raises:
        ReleaseError: there is nothing unreleased.
    """
    before, found, rest = changelog.partition(_UNRELEASED)
    section, next_heading, older = re.split(r"(?m)(^## |\Z)", rest, maxsplit=1)[:3] if found else ("", "", "")
    if not section.strip():
        raise ReleaseError(f"CHANGELOG.md: nothing is below {_UNRELEASED.strip()!r}: what does the release change?")
    heading = f"## {version} ({date.isoformat()})\n"
    return f"{before}{_UNRELEASED}\n{heading}{section}{next_heading}{older}", f"{heading}{section}"


def _refuse_what_is_not_ready(release: Release) -> None:
    if _VERSION.fullmatch(release.version) is None:
        raise ReleaseError(f"{release.version!r}: a version is three numbers, as in 0.2.0")
    project = tomllib.loads((release.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if _numbers(release.version) < _numbers(project["version"]):
        raise ReleaseError(f"{release.version} is older than {project['version']}, which pyproject.toml has")
    if (release.root / "schemas" / "released" / release.version).exists():
        raise ReleaseError(f"schemas/released/{release.version} is there: that version was released, take the next")
    if changed := _run(release.root, ["git", "status", "--porcelain"]).strip():
        raise ReleaseError(f"the tree has changes; commit them, or make the release in a fresh clone:\n{changed}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _change_tree(release: Release) -> str:
    """The changelog's section."""
    root = release.root
    changelog = root / "CHANGELOG.md"
    text, section = with_changelog_section(changelog.read_text(encoding="utf-8"), release.version, release.date)
    changelog.write_text(text, encoding="utf-8")
    for name, pattern in _VERSIONED.items():
        path = root / name
        if path.exists():
            path.write_text(with_version(path.read_text(encoding="utf-8"), pattern, release.version), encoding="utf-8")
    _run(root, [release.uv, "lock", "--quiet"])
    kept = root / "schemas" / "released" / release.version
    kept.mkdir(parents=True)
    for schema in sorted((root / "schemas").glob("*.v*.json")):
        shutil.copy(schema, kept)
    for folder in ("avro", "protobuf"):
        if (root / "schemas" / folder).is_dir():
            shutil.copytree(root / "schemas" / folder, kept / folder)
    asyncapi = root / "schemas" / "asyncapi.json"
    contract = json.loads(asyncapi.read_text(encoding="utf-8"))
    old = f'"version": "{contract["info"]["version"]}"'
    new = f'"version": "{release.version}"'
    asyncapi.write_text(asyncapi.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    return section


def _write_licences(release: Release, dist: Path) -> list[str]:
    """Of a fresh environment, by pip-licenses: what is really installed has the last word. Packages that say nothing.

    Raises:
        ReleaseError: the wheel cannot be installed.
    """
    project = tomllib.loads((release.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    work = release.root / "build" / "release"
    shutil.rmtree(work, ignore_errors=True)
    wheel = dist / f"{release.name}-py3-none-any.whl"
    try:
        python = environment(work, wheel, ",".join(project["optional-dependencies"]), uv=release.uv)
    except TrialError as error:
        raise ReleaseError(f"the wheel cannot be installed with all extras: {error}") from error
    listing = [sys.executable, "-m", "piplicenses", "--python", str(python), "--from", "mixed", "--with-urls"]
    for ending, options in (
        ("md", ["--format", "markdown"]),
        ("json", ["--format", "json", "--with-license-file", "--no-license-path", "--with-notice-file"]),
    ):
        _run(release.root, [*listing, *options, "--output-file", str(dist / f"{release.name}-licenses.{ending}")])
    shutil.rmtree(work)
    packages = json.loads((dist / f"{release.name}-licenses.json").read_text(encoding="utf-8"))
    return [package["Name"] for package in packages if package["License"] == "UNKNOWN"]


def _run(root: Path, command: Sequence[str], **variables: str) -> str:
    done = subprocess.run(
        command, cwd=root, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ReleaseError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
