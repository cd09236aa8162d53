"""``pool.toml``: a pool's name, its types with a line of description each, and how its files are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

from el4ner.errors import PoolError
from el4ner.nearest import no_such
from el4ner.pools.read_options import JOINS, OFFSETS, ON_ERROR, Reading
from el4ner.text.segment import TextKind
from el4ner.toml_files import read_toml

__all__ = ["Description", "read_description"]

_SETTINGS: Final = ("name", "text", "description", "types", "join", "offsets", "on_error", "ignore")
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "text": ("prose", "log"),
    "join": JOINS,
    "offsets": OFFSETS,
    "on_error": ON_ERROR,
}


@dataclass(frozen=True, slots=True)
class Description:
    """What a ``pool.toml`` says; its settings about reading are in ``reading``, over those that were given."""

    name: str
    types: Mapping[str, str]
    text_kind: TextKind
    reading: Reading


def read_description(folder: Path, reading: Reading) -> Description:
    """Read and check ``folder``'s ``pool.toml``.

    Raises:
        PoolError: it is missing, no TOML, or has a setting that there is not or a wrong value.
    """
    path = folder / "pool.toml"
    if not path.is_file():
        raise PoolError(f"{folder}: a pool's folder needs a pool.toml (name, text, [types])")
    settings = read_toml(path, PoolError)
    for key in settings:
        if key not in _SETTINGS:
            raise PoolError(f"{path}: {no_such('setting', key, _SETTINGS)}")
    for key, allowed in _CHOICES.items():
        if key in settings and settings[key] not in allowed:
            raise PoolError(f"{path}: {key} is {' or '.join(map(repr, allowed))}, not {settings[key]!r}")
    types = settings.get("types")
    if not isinstance(types, dict) or not types or not all(isinstance(line, str) for line in types.values()):
        raise PoolError(f'{path}: needs a table [types] with lines such as person = "a named human being"')
    ignore = settings.get("ignore", [])
    if not isinstance(ignore, list) or not all(isinstance(key, str) for key in ignore):
        raise PoolError(f'{path}: ignore is a list of keys, such as ["source"], not {ignore!r}')
    name = settings.get("name", folder.name)
    if not isinstance(name, str) or not name.strip():
        raise PoolError(f"{path}: name is a text that is not empty, not {name!r}")
    changed = {key: settings[key] for key in ("join", "offsets", "on_error") if key in settings}
    return Description(
        name=name,
        types=dict(types),
        text_kind=cast(TextKind, settings.get("text", "prose")),
        reading=replace(reading, **changed, ignore=reading.ignore | set(ignore)),
    )
