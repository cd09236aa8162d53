"""Whether the types and pools that ``[redaction]`` names are any that there are: a misspelt rule holds for nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import get_args

from el4ner.errors import PoolError
from el4ner.nearest import nearest_hint, no_such
from el4ner.pools.readers import pool_types, reading_of
from el4ner.redaction.redaction_settings import PatternKind
from workers.config import StreamSettings

__all__ = ["unknown_names"]


def unknown_names(settings: StreamSettings) -> Iterator[str]:
    """What is named that no pool of ``[pools]`` has, each in a sentence. Of a pool that cannot be read here nothing is
    known, and so nothing is said; nor does anybody know what types pools will be taught."""
    redaction = settings.redaction
    if not redaction.types and not redaction.pools:
        return
    paths = settings.pools.paths
    for pool in redaction.pools:
        if pool not in paths:
            yield f"redaction.pools.{pool}: in pools.paths {no_such('pool', pool, sorted(paths))}"
    try:
        types = {pool: pool_types(source, reading_of(settings.pools)) for pool, source in paths.items()}
    except PoolError:
        return
    everywhere = {name for names in types.values() for name in names}
    yield from _not_among(everywhere, redaction.types, "redaction.types", "no pool of pools.paths has")
    for pool, rules in redaction.pools.items():
        if pool in types:
            yield from _not_among(types[pool], rules, f"redaction.pools.{pool}", "the pool does not have")


def _not_among(known: Collection[str], names: Iterable[str], where: str, who: str) -> Iterator[str]:
    patterns: tuple[str, ...] = get_args(PatternKind)
    for name in names:
        if name not in known and name not in patterns:
            hint = nearest_hint(name, [*known, *patterns])
            yield f"{where}.{name}: {who} this type{hint}; unless a pool is taught it, the rule holds for nothing"
