"""The reference of the configuration, from the settings' own classes."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from el4ner.redaction.redaction_settings import RedactionRule
from tools.site.markdown import from_docstring, table
from workers.config import StreamSettings

__all__ = ["settings_page"]

_HEAD: Final = """# All settings

Every setting of the file, with its default: made from the code of this release. [Configuration](../configuration.md)
explains them, and what goes together. A setting can also be given in the environment, as `EL4NER_SECTION__KEY`.

"""
_TYPES: Final[Mapping[Any, str]] = {
    bool: "true or false",
    float: "number",
    int: "whole number",
    str: "text",
    Path: "path",
    SecretStr: "text, kept secret",
    type(None): "none",
}


def settings_page() -> str:
    """The page."""
    return _HEAD + "\n".join(_section(name, section) for name, section in _sections(StreamSettings))


def _sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        for inner in _models_in(field.annotation):
            key = f"{prefix}{name}"
            if get_origin(field.annotation) is not None and not _is_optional(field.annotation):
                key += ".NAME" if inner is not RedactionRule else ".TYPE"
            yield key, inner
            yield from _sections(inner, f"{key}.")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _is_optional(annotation: Any) -> bool:
    return type(None) in get_args(annotation)


def _section(name: str, section: type[BaseModel]) -> str:
    described = _described(section)
    rows = [
        (f"`{key}`", _type(field.annotation), _default(field), described.get(key, ""))
        for key, field in section.model_fields.items()
        if not any(True for _ in _models_in(field.annotation))
    ]
    meaning = re.sub(r"^`\[[^`]+\]`[:.] ", "", from_docstring(section.__doc__ or ""))
    settings = table(("setting", "type", "default", "meaning"), rows)
    return f"## `[{name}]`\n\n{meaning[:1].upper()}{meaning[1:]}\n\n{settings}"


def _type(annotation: Any) -> str:
    if annotation in _TYPES:
        return _TYPES[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return ", ".join(f"`{value.value}`" for value in annotation)
    if origin is not None and inspect.isclass(origin) and issubclass(origin, Mapping):
        return f"table of {_type(arguments[1])}"
    if origin in (tuple, list, set, frozenset):
        return f"list of {_type(arguments[0])}"
    if arguments:  # a union, or Annotated
        kinds = [
            kind
            for argument in arguments
            if hasattr(argument, "__mro__") or get_args(argument)
            if (kind := _type(argument))
        ]
        return " or ".join(dict.fromkeys(kinds))
    return getattr(annotation, "__name__", str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "has to be set"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | frozenset | set):
        return ", ".join(f"`{part}`" for part in value)
    return f"`{value.value if isinstance(value, Enum) else value}`"


@cache
def _described(section: type[BaseModel]) -> Mapping[str, str]:
    """What stands below each setting in the source, of the class and of those that it inherits from."""
    found: dict[str, str] = {}
    for owner in reversed(section.__mro__):
        if not issubclass(owner, BaseModel) or owner is BaseModel:
            continue
        (definition,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(owner))).body
        assert isinstance(definition, ast.ClassDef)
        for before, after in zip(definition.body, definition.body[1:], strict=False):
            if (
                isinstance(before, ast.AnnAssign)
                and isinstance(before.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[before.target.id] = from_docstring(str(after.value.value))
    return found
