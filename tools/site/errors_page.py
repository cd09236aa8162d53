"""The reference of error codes, from where errors are defined and raised."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.site.markdown import from_docstring, table

__all__ = ["ErrorCode", "error_codes", "errors_page"]

ROOT: Final = Path(__file__).parents[2]
_HEAD: Final = """# Error codes

Every error that el4ner raises on purpose has a stable code. It is in logs, in metrics' labels, in a dead letter's
headers and in what the service answers. This table is made from the code of this release.

"""
_BASE: Final = "El4nerError"


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """A code, the class of errors that have it, and what it says."""

    code: str
    error: str
    meaning: str


def errors_page() -> str:
    """The page."""
    rows = [(f"`{code.code}`", f"`{code.error}`", code.meaning) for code in error_codes()]
    return _HEAD + table(("code", "error", "meaning"), rows)


def error_codes() -> list[ErrorCode]:
    """All codes, sorted: a class's own, and those that a place gives to what it raises."""
    classes: dict[str, ast.ClassDef] = {}
    calls: list[ast.Call] = []
    for tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name] = node
            elif isinstance(node, ast.Call):
                calls.append(node)
    errors = {name for name in classes if _is_error(name, classes)}
    codes = [
        ErrorCode(code, name, from_docstring(ast.get_docstring(classes[name]) or ""))
        for name in errors
        if name != _BASE and (code := _own_code(classes[name])) is not None
    ]
    given: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for call in calls:
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        code = next((_text(keyword.value) for keyword in call.keywords if keyword.arg == "code"), None)
        if name in errors and code is not None and call.args and (message := _text(call.args[0])) is not None:
            given[code, name][f"“{message}”"] = None
    codes += [ErrorCode(code, name, " · ".join(messages)) for (code, name), messages in given.items()]
    return sorted(codes, key=lambda code: (code.code, code.error))


def _trees() -> Iterator[ast.Module]:
    for folder in ("el4ner", "workers"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if "Error" in text:
                yield ast.parse(text)


def _is_error(name: str, classes: dict[str, ast.ClassDef]) -> bool:
    if name == _BASE:
        return True
    bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name)] if name in classes else []
    return any(_is_error(base, classes) for base in bases if base != name)


def _own_code(error: ast.ClassDef) -> str | None:
    for statement in error.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "code" for target in targets):
            return _text(statement.value) if isinstance(statement, ast.Assign) else None
    return None


def _text(value: ast.expr) -> str | None:
    """A text as it is written; what is put into it when it is raised is an ellipsis."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    if isinstance(value, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in value.values)
    if isinstance(value, ast.BinOp):
        left, right = _text(value.left), _text(value.right)
        return None if left is None or right is None else left + right
    return None
