"""The walk through the code in CONTRIBUTING.md: each step names files, and what it says of them is in them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WALK = "## How a document goes through the code"
CODE = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)?\(\)|[A-Z]\w+(?:\.\w+)?")
"""``function()``, ``Class.method()``, ``Class`` or ``CONSTANT``: topics and words in code have other forms."""


def steps() -> list[str]:
    """The numbered steps of the walk, and its paragraphs."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    walk = page.split(f"{WALK}\n")[1].split("\n## ")[0]
    return [step for step in re.split(r"\n(?=\d+\. )|\n\n", walk) if CODE.search(step) and not step.startswith("#")]


def defined(path: Path) -> Iterator[str]:
    """Functions, classes, methods and constants of a module."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield node.name
            for part in node.body:
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}.{part.name}"
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


@pytest.mark.parametrize("step", steps(), ids=lambda step: step[:40])
def test_a_step_names_what_is_in_its_files(step: str) -> None:
    code = CODE.findall(step)
    files = [ROOT / text for text in code if text.endswith(".py")]
    known = {name for path in files for name in defined(path)}
    named = {text.removesuffix("()") for text in code if NAME.fullmatch(text)}
    assert named <= known, f"not in {', '.join(path.name for path in files)}: {sorted(named - known)}"


def test_every_step_names_something() -> None:
    assert len(steps()) >= 18
    assert sum(bool(NAME.fullmatch(text)) for step in steps() for text in CODE.findall(step)) >= 40


def test_the_layout_names_what_is_there() -> None:
    """And every folder of the two packages."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = page.split("## The layout\n\n```\n")[1].split("```")[0]
    tree, named = ROOT, set()
    for line in block.splitlines():
        names, _, more = re.sub(r"^\s+", "", line).partition("  ")
        if not line.startswith(" "):
            tree = ROOT / names
            assert tree.is_dir(), names
            continue
        for name in [*names.split(", "), *re.findall(r"\b\w+/(?=[:, ])", more if tree.name == "el4ner" else "")]:
            path = tree / name
            assert path.is_dir() or path.with_suffix(".py").is_file() or any(tree.rglob(name.rstrip("/"))), name
            named.add(path.name)
    folders = {
        path.name
        for top in ("el4ner", "workers")
        for path in (ROOT / top).iterdir()
        if (path / "__init__.py").is_file()
    }
    assert folders <= named, folders - named
