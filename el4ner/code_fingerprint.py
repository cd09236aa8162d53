"""The fingerprint of the code that decides a result: what was answered before a change there is no answer after it."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from typing_extensions import override

__all__ = ["code_fingerprint", "fingerprint_of"]

DECIDES: Final = (
    "assemble.py",
    "config.py",
    "engines",
    "evidence",
    "front_door.py",
    "known_lines.py",
    "loader.py",
    "members_pipeline.py",
    "participation.py",
    "pipeline.py",
    "pool_retrievers.py",
    "pools",
    "proposing",
    "repeats",
    "retrieval",
    "stages",
    "text",
)
"""Files and folders of the package, relative to it. Prompts and weights have fingerprints of their own."""


@cache
def code_fingerprint() -> str:
    """Of this installation, read once: a process goes on with the code that it has loaded."""
    return fingerprint_of(Path(__file__).parent)


def fingerprint_of(folder: Path) -> str:
    """16 hexadecimal digits, over data files and the syntax of Python files: comments and docstrings do not count.

    ``folder`` is the package's.
    """
    digest = hashlib.sha256()
    for name in DECIDES:
        place = folder / name
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_dir() or "__pycache__" in file.parts:
                continue
            content = file.read_bytes()
            if file.suffix == ".py":
                content = ast.dump(_Undocumented().visit(ast.parse(content))).encode()
            digest.update(f"{file.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


class _Undocumented(ast.NodeTransformer):
    """Takes out every expression that is only a string: docstrings of modules, classes, functions and fields."""

    @override
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node
