"""What README, docs and CONTRIBUTING point to is there: links and their anchors, files, and targets of make."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("bench", "docker", "docs", "el4ner", "schemas", "tests", "tools", "workers")
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
FILE = re.compile(rf"(?<![\w./:-])(?:{'|'.join(FOLDERS)})/[\w./*-]*")
MODULE = re.compile(r"(?<![\w./-])\w+\.py\b")
TARGET = re.compile(r"(?<![\w./-])make ([a-z]+(?:-[a-z]+)*)")
PLACEHOLDER = re.compile(r"[A-Z]{3,}")
"""As in ``schemas/released/VERSION``."""
OTHERS = {"main.py", "reports.py", "entities.py"}
"""TabbyAPI's, and what a reader of the tutorial writes."""


def code(page: Path) -> str:
    """Everything on the page that is set as code."""
    return "\n".join(CODE.findall(page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}; there are {sorted(anchors(target))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    for name in FILE.findall(code(page)):
        path = name.rstrip(".")
        if PLACEHOLDER.search(path):
            continue
        assert any(ROOT.glob(path.rstrip("/"))), f"{page.name} names {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_are_named_without_their_folder_exist(page: Path) -> None:
    known = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    for name in MODULE.findall(code(page)):
        assert name in known | OTHERS, f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for name in TARGET.findall(code(page)):
        assert name in targets, f"{page.name} names `make {name}`"


def test_the_readme_names_every_page() -> None:
    links = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    missing = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - {link.split("#")[0] for link in links}
    assert not missing
