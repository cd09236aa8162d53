"""What is wrong with a configuration, in the words of who wrote it: the key, where it was set, what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from el4ner.nearest import choices, nearest_hint

__all__ = ["ENV_PREFIX", "UNSHOWN_INPUT", "Sources", "explain", "settings_of"]

ENV_PREFIX: Final = "EL4NER_"
UNSHOWN_INPUT: Final = "unshown_input"
"""Type of a :class:`pydantic_core.PydanticCustomError` about a value that no message may show, such as a password."""

_LONGEST_VALUE: Final = 200
_EXPECTED: Final[Mapping[str, str]] = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of a sensible size",
    "int_type": "a whole number",
    "list_type": 'a list, such as ["one", "two"]',
    "path_type": "a path, as a text",
    "string_type": "a text, in quotes",
    "tuple_type": 'a list, such as ["one", "two"]',
}
_TABLES: Final = frozenset({"dict_type", "mapping_type", "model_attributes_type", "model_type"})
_LENGTHS: Final = frozenset({"too_short", "too_long"})


class Sources:
    """Where settings come from: a file, if there is one, and variables of the environment."""

    def __init__(self, path: Path | None, in_file: Mapping[str, Any], in_environ: Mapping[str, Any]) -> None:
        self._path = path
        self._in_file = in_file
        self._in_environ = in_environ

    def of(self, keys: Sequence[str]) -> str:
        """`` (in FILE)`` or `` (from VARIABLE)``, whichever counts; nothing where neither has the setting."""
        value = _at(self._in_environ, keys)
        if value is not None:
            return f" (from {ENV_PREFIX}{'__'.join([*keys, *_way_to_a_leaf(value)]).upper()})"
        if self._path is not None and _at(self._in_file, keys) is not None:
            return f" (in {self._path})"
        return ""


def explain(error: ValidationError, model: type[BaseModel], sources: Sources, further: Sequence[str] = ()) -> str:
    """A line for each thing that is wrong. ``further``: sections of the file that are read by somebody else."""
    problems = error.errors(include_url=False)
    places = [problem["loc"] for problem in problems]
    lines = []
    for problem in problems:
        place = problem["loc"]
        if problem["type"] in _LENGTHS and any(elsewhere[:-1] == place for elsewhere in places if elsewhere):
            continue  # of a list whose items were refused
        keys = [key for key in place if isinstance(key, str)]  # an item of a list is set with its list
        name = ".".join(map(str, place))
        description = _description(problem, model, further)
        lines.append(f"{name}{sources.of(keys)}: {description}" if name else description)
    return "\n".join(lines)


def settings_of(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """The settings that there are at a place of the configuration; none where it is no table of settings."""
    kind = _kind_of(model, place)
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _kind_of(model: type[BaseModel], place: Sequence[str | int]) -> Any:
    """The type of a setting; None where there is no such setting."""
    current: Any = model
    for key in place:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(key))
            current = None if field is None else _without_none(field.annotation)
        elif get_origin(current) is not None and get_args(current):
            current = _without_none(get_args(current)[-1])  # of a mapping the values, of a list the items
        else:
            return None
    return current


def _is_secret(model: type[BaseModel], place: Sequence[str | int]) -> bool:
    kind = _kind_of(model, place)
    return isinstance(kind, type) and issubclass(kind, SecretStr)


def _description(problem: ErrorDetails, model: type[BaseModel], further: Sequence[str]) -> str:
    kind, message = problem["type"], problem["msg"].removeprefix("Value error, ")
    place = problem["loc"]
    if kind == "extra_forbidden":
        return _no_such_setting(place, model, further)
    if kind == "missing":
        return "is missing, and has no default"
    if kind == UNSHOWN_INPUT:
        return message
    demand = _demand(problem, message)
    value = problem.get("input")
    # A check of our own that does not begin so has said what the value is, or is of several settings.
    unshown = kind == "value_error" and not message.startswith("expected")
    if unshown or _is_secret(model, place) or (isinstance(value, Mapping) and kind not in _EXPECTED):
        return demand
    return f"{demand}, not {_shown(value)}"


def _demand(problem: ErrorDetails, message: str) -> str:
    """What the setting has to be."""
    kind = problem["type"]
    if kind in _TABLES:
        return f"has to be a table: [{'.'.join(map(str, problem['loc']))}] and its settings below it"
    if kind in _EXPECTED:
        return f"has to be {_EXPECTED[kind]}"
    if kind in _LENGTHS:
        context = problem.get("ctx", {})
        least, most = context.get("min_length"), context.get("max_length")
        return (
            f"needs at least {least} item{'s' * (least != 1)}" if kind == "too_short" else f"needs at most {most} items"
        )
    return message.replace("Input should be", "has to be").replace("String should", "has to")


def _no_such_setting(place: Sequence[str | int], model: type[BaseModel], further: Sequence[str]) -> str:
    *parents, key = map(str, place)
    known = settings_of(model, parents) + (list(further) if not parents else [])
    elsewhere = [
        ".".join([*path, key]) for path in _tables(model) if list(path) != parents and key in settings_of(model, path)
    ]
    hint = nearest_hint(key, known) or (f"; there is {' and '.join(elsewhere)}" if elsewhere else "")
    return f"there is no such setting{hint}; there are: {choices(known)}"


def _tables(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """The sections of the file."""
    yield ()
    for name in model.model_fields:
        if settings_of(model, (name,)):
            yield (name,)


def _without_none(annotation: Any) -> Any:
    """What an optional setting is if it is there."""
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return parts[0] if len(parts) == 1 and type(None) in get_args(annotation) else annotation


def _shown(value: Any) -> str:
    """As it would be written in the file."""
    line = str(value).lower() if isinstance(value, bool) else repr(value)
    return line if len(line) <= _LONGEST_VALUE else f"{line[:_LONGEST_VALUE]}…"


def _at(table: Mapping[str, Any], keys: Sequence[str]) -> Any:
    if not keys:
        return None
    value: Any = table
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def _way_to_a_leaf(value: Any) -> Iterator[str]:
    """The keys from a table to the first value in it."""
    while isinstance(value, Mapping) and value:
        key = next(iter(value))
        yield key
        value = value[key]
