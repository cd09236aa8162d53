"""The site builds strictly, its reference is the code's, and no page of it asks another host for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT
from tools.site.commands_page import commands_page
from tools.site.errors_page import error_codes
from tools.site.markdown import cell, from_docstring, table
from tools.site.schemas_page import schemas_page
from tools.site.settings_page import settings_page
from workers.config import StreamSettings
from workers.messages.json_schemas import SCHEMA_NAMES
from workers.telemetry.metric_catalogue import CATALOGUE

FETCHED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?https?://[^\"> ]+")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stdout + done.stderr
    return folder


def test_every_page_is_built_and_leads_to_the_reference(site: Path) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file(), page.name
    start = (site / "index.html").read_text(encoding="utf-8")
    for name in ("settings", "commands", "messages", "errors", "metrics"):
        assert f'href="reference/{name}.html"' in start
        assert (site / "reference" / f"{name}.html").is_file()


def test_a_link_out_of_the_docs_leads_to_the_file_as_it_is(site: Path) -> None:
    assert 'href="files/schemas/asyncapi.json.html"' in (site / "schemas.html").read_text(encoding="utf-8")
    assert "asyncapi" in (site / "files" / "schemas" / "asyncapi.json.html").read_text(encoding="utf-8")
    assert 'href="contributing.html"' in (site / "index.html").read_text(encoding="utf-8")


def test_no_page_fetches_from_another_host(site: Path) -> None:
    fetched = {found for page in site.rglob("*.html") for found in FETCHED.findall(page.read_text(encoding="utf-8"))}
    assert not {found for found in fetched if 'rel="canonical"' not in found}


def test_a_page_that_the_navigation_does_not_name_has_a_place_in_it(site: Path) -> None:
    start = (site / "index.html").read_text(encoding="utf-8")
    how_to = (site / "pools.html").read_text(encoding="utf-8")
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f"- {page.name}" in nav or f'href="{page.stem}.html"' in start + how_to, page.name


def test_the_navigation_has_the_four_kinds() -> None:
    text = re.sub(r"!!python/\S+", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    parts = [next(iter(part)) for part in yaml.safe_load(text)["nav"]]
    assert parts == ["Start", "Tutorial", "How-to guides", "Reference", "Explanation"]


def test_the_reference_names_every_setting() -> None:
    page = settings_page()
    for name, field in StreamSettings.model_fields.items():
        section = field.annotation
        if name == "models":
            assert "## `[models.NAME.server]`" in page
            continue
        assert f"## `[{name}]`" in page
        for key in getattr(section, "model_fields", {}):
            assert f"`{key}`" in page or f"[{name}.{key}" in page, f"{name}.{key}"
    assert "| `batch_documents` | whole number | `32` |" in page
    assert "A batch whose messages are larger than this together is made smaller" in page


def test_the_reference_names_commands_schemas_and_errors() -> None:
    commands, schemas = commands_page(), schemas_page()
    for name in ("el4ner tag", "el4ner pool import", "el4ner dlq replay", "el4ner redact reveal"):
        assert f"## {name}\n" in commands
    assert "`--text-field`, `--text-column`" in commands
    assert all(f"## {name}\n" in schemas for name in SCHEMA_NAMES)
    codes = {code.code: code for code in error_codes()}
    assert {"config", "pool", "schema", "engine-away", "not-installed"} <= codes.keys()
    assert codes["engine-away"].meaning.startswith("The engine cannot be reached")
    assert CATALOGUE


def test_a_cell_keeps_its_text_in_its_place() -> None:
    assert cell("a|b <tag> `<code>`") == "a\\|b &lt;tag> `<code>`"
    assert from_docstring("See :class:`~el4ner.types.Span`,\n    ``x``.") == "See `Span`, `x`."
    assert table(("a",), []) == ""
