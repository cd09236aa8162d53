"""What mkdocs.yml hooks into the build: generated pages, links that leave docs/, and pages that have no place yet.

Pages in docs/ link to files beside that folder, so that they work where the repository is read. The site has a copy of
each such file (below ``files/``; of a folder a list), and links lead there. It takes nothing from another host.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from tools.site.commands_page import commands_page
from tools.site.errors_page import errors_page
from tools.site.schemas_page import schemas_page
from tools.site.settings_page import settings_page
from workers.telemetry.metric_catalogue import as_table

__all__ = ["on_config", "on_files", "on_page_markdown"]

ROOT: Final = Path(__file__).parents[2]
ROOT_PAGES: Final = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the repository's root, and what they are called here."""
HOME_OF_NEW_PAGES: Final = "How-to guides"
"""Where the navigation gets a page that mkdocs.yml does not name."""
_LINK: Final = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_METRICS: Final = """# All metrics

Every metric that a worker shows: made from the code of this release. [Operations](../operations.md) says which to
watch.

"""
_BINARY: Final = frozenset({".webp", ".png", ".parquet", ".spacy"})


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give pages that the navigation does not name a place in it: none is built that nobody can find."""
    named = set(_named(config.nav or []))
    new = [path.name for path in sorted(Path(config.docs_dir).glob("*.md")) if path.name not in named]
    for part in config.nav or []:
        if HOME_OF_NEW_PAGES in part:
            part[HOME_OF_NEW_PAGES].extend(new)
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the repository's own pages, those that are made from the code, and the files that pages link to."""
    made = {
        "reference/settings.md": settings_page(),
        "reference/commands.md": commands_page(),
        "reference/messages.md": schemas_page(),
        "reference/errors.md": errors_page(),
        "reference/metrics.md": _METRICS + as_table(),
    }
    for source, name in ROOT_PAGES.items():
        made[name] = (ROOT / source).read_text(encoding="utf-8")
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    linked: set[Path] = set()
    for page in [*(ROOT / name for name in ROOT_PAGES), *Path(config.docs_dir).glob("*.md")]:
        linked.update(_linked_files(page))
    for path in sorted(linked):
        name = _name_in_site(path)
        if path.is_dir():
            files.append(File.generated(config, name, content=_list_of(path)))
        elif path.suffix in _BINARY:
            files.append(File.generated(config, name, content=path.read_bytes()))
        else:
            files.append(File.generated(config, name, content=_shown(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to what the site has."""
    del config, files
    source = page.file.src_uri
    if source.startswith(("reference/", "files/")):
        return markdown
    root_names = {name: original for original, name in ROOT_PAGES.items()}
    folder = ROOT if source in root_names else ROOT / "docs"

    def led(match: re.Match[str]) -> str:
        start, link, anchor, end = match[1], match[2], match[3] or "", match[4]
        if re.match(r"[a-z]+:", link):
            return match[0]
        target = (folder / link).resolve()
        if not target.exists() or not target.is_relative_to(ROOT):
            return match[0]  # MkDocs itself says what is wrong
        return f"{start}{posixpath.relpath(_name_in_site(target), posixpath.dirname(source) or '.')}{anchor}{end}"

    return _LINK.sub(led, markdown)


def _named(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [name for part in parts for name in _named(part)]


def _linked_files(page: Path) -> set[Path]:
    links = (match[2] for match in _LINK.finditer(page.read_text(encoding="utf-8")) if ":" not in match[2])
    targets = {(page.parent / link).resolve() for link in links}
    docs = ROOT / "docs"
    known = {ROOT / name for name in ROOT_PAGES} | {docs}
    return {path for path in targets - known if path.exists() and not path.is_relative_to(docs)}


def _name_in_site(path: Path) -> str:
    relative = path.relative_to(ROOT).as_posix()
    if relative in ROOT_PAGES:
        return ROOT_PAGES[relative]
    if path.is_relative_to(ROOT / "docs") and path.is_file():
        return path.relative_to(ROOT / "docs").as_posix()
    return f"files/{relative}" if path.suffix in _BINARY else f"files/{relative}.md"


def _shown(path: Path) -> str:
    """A page that shows a file as it is."""
    kind = {".py": "python", ".json": "json", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}.get(path.suffix, "text")
    return f"# {path.relative_to(ROOT).as_posix()}\n\n~~~~~~{kind}\n{path.read_text(encoding='utf-8')}\n~~~~~~\n"


def _list_of(folder: Path) -> str:
    """A page that lists what a folder has."""
    hidden = re.compile(r"(^|/)(\.|__pycache__|node_modules)")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    items = "\n".join(f"- `{name}`" for name in names if not hidden.search(name))
    return f"# {folder.relative_to(ROOT).as_posix()}/\n\nThis folder of the repository has:\n\n{items}\n"
