"""A release is refused of a tree that is not ready, and its changelog and versions are what a reader expects."""

from __future__ import annotations

import datetime
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tools.release import (
    _VERSIONED,
    Release,
    ReleaseError,
    _write_licences,
    make_release,
    with_changelog_section,
    with_version,
)

DATE = datetime.date(2026, 12, 1)
CHANGELOG = (
    "# Changelog\n\nAbout.\n\n## Unreleased\n\n### Added\n\n- A thing.\n\n## 0.1.0 (2026-01-01)\n\n- The first.\n"
)


def test_what_was_unreleased_is_the_releases() -> None:
    text, section = with_changelog_section(CHANGELOG, "0.2.0", DATE)
    assert section == "## 0.2.0 (2026-12-01)\n\n### Added\n\n- A thing.\n\n"
    assert text.index("## Unreleased\n\n## 0.2.0 (2026-12-01)\n") < text.index("## 0.1.0 (2026-01-01)")
    assert text.count("- A thing.") == text.count("- The first.") == 1


def test_the_first_release_has_nothing_below_it() -> None:
    first = CHANGELOG.partition("## 0.1.0")[0]
    _, section = with_changelog_section(first, "0.1.0", DATE)
    assert section.endswith("- A thing.\n\n")


@pytest.mark.parametrize("text", ["# Changelog\n", "# Changelog\n\n## Unreleased\n\n## 0.1.0\n\n- The first.\n"])
def test_a_release_that_changes_nothing_is_refused(text: str) -> None:
    with pytest.raises(ReleaseError, match="nothing is below '## Unreleased'"):
        with_changelog_section(text, "0.2.0", DATE)


def test_our_changelog_has_a_section_to_release() -> None:
    _, section = with_changelog_section((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), "9.9.9", DATE)
    assert "### " in section


def test_every_file_that_names_the_version_gets_it() -> None:
    for name, pattern in _VERSIONED.items():
        if (ROOT / name).exists():
            changed = with_version((ROOT / name).read_text(encoding="utf-8"), pattern, "9.9.9")
            assert "9.9.9" in changed, name
    with pytest.raises(ReleaseError, match="no version"):
        with_version("name = 'x'\n", _VERSIONED["pyproject.toml"], "9.9.9")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with nothing but what is looked at before anything is built."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "el4ner"\nversion = "0.2.0"\n')
    (tmp_path / "schemas" / "released" / "0.2.0").mkdir(parents=True)
    (tmp_path / "schemas" / "released" / "0.2.0" / "x.v1.json").write_text("{}")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "All"]):
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("version", "why"),
    [("v1", "three numbers"), ("0.1.9", "older than 0.2.0"), ("0.2.0", "was released, take the next")],
)
def test_a_version_that_cannot_be_released_is_refused(tree: Path, version: str, why: str) -> None:
    with pytest.raises(ReleaseError, match=why):
        make_release(Release(tree, version, DATE, "uv", ()), lambda line: None)


def test_a_tree_with_changes_is_refused(tree: Path) -> None:
    (tree / "new.txt").write_text("?")
    with pytest.raises(ReleaseError, match=r"(?s)the tree has changes.*new\.txt"):
        make_release(Release(tree, "0.3.0", DATE, "uv", ()), lambda line: None)


def test_nothing_is_changed_before_the_checks_succeed(tree: Path) -> None:
    with pytest.raises(ReleaseError, match="exit status 1"):
        make_release(Release(tree, "0.3.0", DATE, "uv", (["false"],)), lambda line: None)
    assert (tree / "CHANGELOG.md").read_text() == CHANGELOG


def test_a_release_that_fails_half_way_says_how_to_undo_it(tree: Path) -> None:
    (tree / "schemas" / "asyncapi.json").write_text('{"info": {"version": "0.2.0"}}')
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", "add", "."], cwd=tree, check=True)
    subprocess.run(["git", *identity, "commit", "--quiet", "--message", "Contract"], cwd=tree, check=True)
    # "true" locks, and builds nothing, so that there is no dist/ to fill.
    with pytest.raises(ReleaseError, match=r"undo that by: (.*)$") as failure:
        make_release(Release(tree, "0.3.0", DATE, "true", ()), lambda line: None)
    assert (tree / "schemas" / "released" / "0.3.0").is_dir()
    (undo,) = re.findall("undo that by: (.*)", str(failure.value))
    subprocess.run(["sh", "-c", undo], cwd=tree, check=True)
    assert not subprocess.run(["git", "status", "--porcelain"], cwd=tree, check=True, capture_output=True).stdout


def test_a_wheel_that_cannot_be_installed_is_an_error_of_the_release(tree: Path) -> None:
    (tree / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n[project.optional-dependencies]\nui = []\n')
    with pytest.raises(ReleaseError, match="cannot be installed with all extras"):
        _write_licences(Release(tree, "0.3.0", DATE, "false", ()), tree / "dist")
