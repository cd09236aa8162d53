"""Which packages a machine lacks that has torch and little else: read from what the code imports, not kept by hand.

A package is needed if a module that runs there imports it, or a package that is needed requires it. Those of
:data:`EXPECTED` and all that these require are there already.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from packaging.markers import default_environment
from packaging.requirements import Requirement

__all__ = ["ELSEWHERE", "EXPECTED", "LIBRARY", "MODULES", "imports_of", "normal", "packages", "with_required"]

EXPECTED: Final = (
    "torch",
    "transformers",
    "scipy",
    "jinja2",
    "rich",
    "pandas",
    "pillow",
    "pytest",
    "pytest-timeout",
    "ninja",
)
"""Of the Python there, as it is: another torch than its own would hardly fit its CUDA."""
UNSURE: Final = ("huggingface-hub", "typer")
"""There too, since transformers requires them. What they themselves require changed from version to version: what we
need of it is carried."""
MODULES: Final = (
    "el4ner",
    "bench/gpu",
    "bench/tag.py",
    "bench/logs.py",
    "tests/conftest.py",
    "tests/support/engine_conformance.py",
    "tests/gpu",
)
"""What runs there, of the repository."""
BESIDE: Final = ("pytest-asyncio",)
"""Imported by nothing: the repository's pytest settings name its options, and pytest refuses options nobody knows."""
ELSEWHERE: Final = {
    "exllamav2": "a library of its own, LIBRARY",
    "exllamav3": "a library of its own, --with exllamav3",
    "sentence-transformers": "only with --weights minilm, on a machine that has it",
    "cryptography": "redaction, the extra redact, which nothing there runs",
    "phonenumbers": "redaction",
    "presidio-analyzer": "redaction; it brings spaCy, 60 MB",
    "spacy": "pools from and to spaCy's DocBin, which nothing there reads",
    "srsly": "the same",
}
"""Imported somewhere in these modules, and not carried for that."""
LIBRARY: Final = "exllamav2"


def imports_of(root: Path, modules: Iterable[str] = MODULES) -> set[str]:
    """Top-level names that modules (files, or folders of them) import anywhere, but for the type checker alone."""
    names: set[str] = set()
    for module in modules:
        path = root / module
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            names.update(_imported(ast.parse(file.read_text(encoding="utf-8")).body))
    own = {"el4ner", "workers", "tests", *(path.stem for path in (root / "bench").iterdir())}
    return names - own - sys.stdlib_module_names


def packages(root: Path, python: str = "3.12") -> list[str]:
    """Names of the packages to carry: what the modules import and what these packages and LIBRARY require, without what
    is expected. Versions are nobody's business here.

    Raises:
        RuntimeError: an imported package is not installed here, so that nothing is known of it.
    """
    distributions = importlib.metadata.packages_distributions()
    wanted = set(BESIDE)
    for name in imports_of(root):
        if name not in distributions:
            if normal(name) in ELSEWHERE:
                continue
            raise RuntimeError(f"{name} is imported but not installed here: run this in the project's environment")
        wanted.update(normal(package) for package in distributions[name])
    there = with_required(EXPECTED, python, without=UNSURE) | set(UNSURE)
    carried = with_required(wanted - ELSEWHERE.keys() - there, python, without=there)
    carried |= with_required([LIBRARY], python, without=there)
    return sorted(carried - there - {LIBRARY})


def with_required(names: Iterable[str], python: str, *, without: Iterable[str] = ()) -> set[str]:
    """Packages and all that they require on Linux with ``python``, as far as it is installed here; not followed:
    ``without``."""
    environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    seen = set(without)
    reached: set[str] = set()
    waiting = [normal(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        reached.add(name)
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in required:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                waiting.append(normal(requirement.name))
    return reached


def normal(name: str) -> str:
    """A package's name as the index has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported(body: Iterable[ast.stmt]) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield alias.name.partition(".")[0]
        elif isinstance(statement, ast.ImportFrom):
            if statement.module is not None and not statement.level:
                yield statement.module.partition(".")[0]
        elif isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from _imported(statement.orelse)
        else:
            for inner in ("body", "orelse", "finalbody"):
                yield from _imported(getattr(statement, inner, []))
            for handler in getattr(statement, "handlers", []):
                yield from _imported(handler.body)
