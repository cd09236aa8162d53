"""Pools from files: a folder with a ``pool.toml``, JSON in several layouts, or CoNLL columns.

Every error names the file and the line, what is wrong there and how to mend it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Final

from el4ner.config import PoolsSettings
from el4ner.errors import PoolError
from el4ner.nearest import choices, nearest_hint, no_such
from el4ner.pools.conll import conll_items, tag_spans
from el4ner.pools.description import read_description
from el4ner.pools.joining import join_tokens
from el4ner.pools.json_items import json_items
from el4ner.pools.pool import LeftOut, Pool, PoolSentence, mistake_in
from el4ner.pools.read_options import Item, OnError, Reading

__all__ = [
    "describe",
    "join_tokens",
    "load_pool",
    "load_pools",
    "pool_types",
    "read_conll",
    "read_jsonl",
    "read_sentences",
    "reading_of",
    "shipped_pools",
    "tag_spans",
    "warn_of_left_out",
]

_log = logging.getLogger(__name__)

SHIPPED = "shipped:"
_JSON_SUFFIXES: Final = frozenset({".json", ".jsonl", ".ndjson"})
_CONLL_SUFFIXES: Final = frozenset({".bio", ".bioes", ".conll", ".conllu", ".iob", ".iob2", ".tsv", ".txt"})
_CONVERTED: Final = {
    ".spacy": "spaCy's DocBin: `el4ner pool import FILE --from spacy --output POOL` makes a pool of it",
    ".ann": "brat's standoff: `el4ner pool import FOLDER --from brat --output POOL` makes a pool of it",
    ".parquet": "a table: write it as JSON Lines, with names instead of numbers as tags",
    ".csv": "a table: export JSON Lines or CoNLL columns instead",
    ".xml": "XML: export JSON Lines or CoNLL columns instead",
}
_NEVER_NOTES: Final = frozenset({".spacy", ".ann", ".parquet"})
"""Labelled data for sure: a folder that has some is not read without it, silently."""
_SHIPPED_READING: Final = Reading()


def shipped_pools() -> list[str]:
    """The pools that come with the package, by name."""
    return sorted(
        folder.name for folder in (resources.files("el4ner") / "pools").iterdir() if (folder / "pool.toml").is_file()
    )


def load_pool(
    source: str | Path,
    *,
    name: str | None = None,
    reading: Reading = _SHIPPED_READING,
    on_error: OnError | None = None,
) -> Pool:
    """A pool from ``shipped:NAME`` (or just a shipped name), a folder with a ``pool.toml``, a JSON or a CoNLL file.

    A bare file has no descriptions: its types are the labels that occur in it, described by their own names. What a
    folder's ``pool.toml`` says about reading wins over ``reading``, and ``on_error`` over both.

    Raises:
        PoolError: names file and line.
    """
    path = _locate(str(source))
    if path.is_dir():
        return _load_folder(path, name, reading, on_error)
    reading = reading if on_error is None else replace(reading, on_error=on_error)
    sentences, left_out = _sorted_out(_items(path, reading), reading)
    labels = sorted({label for sentence in sentences for _, label in sentence.spans})
    if not labels:
        raise PoolError(
            f"{path}: no sentence has a labelled span, so there are no entity types to learn from it{_first(left_out)}"
        )
    types = {label: describe(label) for label in labels}
    return Pool(name=name or path.stem, types=types, sentences=sentences, left_out=left_out)


def pool_types(source: str | Path, reading: Reading) -> Collection[str]:
    """The types of the pool that :func:`load_pool` would read, without its sentences where a ``pool.toml`` lists them.

    Raises:
        PoolError: names file and line.
    """
    path = _locate(str(source))
    return (read_description(path, reading) if path.is_dir() else load_pool(path, reading=reading)).types.keys()


def reading_of(settings: PoolsSettings) -> Reading:
    """How files are read where their ``pool.toml`` does not say."""
    return Reading(settings.on_error, settings.join, settings.offsets, frozenset(settings.ignore))


def load_pools(settings: PoolsSettings) -> dict[str, Pool]:
    """The pools that a configuration names. Sentences that were left out, since it says so, are a warning.

    Raises:
        PoolError: names file and line.
    """
    reading = reading_of(settings)
    pools = {name: load_pool(source, name=name, reading=reading) for name, source in settings.paths.items()}
    for name, pool in pools.items():
        warn_of_left_out(f"pool {name}", pool.left_out)
    return pools


def warn_of_left_out(what: str, left_out: Sequence[LeftOut]) -> None:
    """A log record of how many sentences are missing since they are wrong, if there are any."""
    mistakes = [sentence for sentence in left_out if sentence.mistake]
    if mistakes:
        _log.warning(
            "%s: %d sentences were left out, the first at %s: %s",
            what,
            len(mistakes),
            mistakes[0].where,
            mistakes[0].reason,
        )


def describe(label: str) -> str:
    """A description where there is none: the label as words (``politicalparty`` stays, ``creative-work`` does not)."""
    return re.sub(r"[-_/.]+", " ", label).strip().lower()


def read_jsonl(path: Path, reading: Reading = _SHIPPED_READING) -> Iterator[PoolSentence]:
    """One object a line: ``{"text": …, "spans": [{"start": 0, "end": 5, "type": "person", "text": "Maria"}]}``.

    Offsets are code points, half-open. ``text`` of a span is optional and checked where given. The layouts of other
    tools are read too; docs/pools.md lists them.

    Raises:
        PoolError: names file and line.
    """
    yield from _sorted_out(json_items(path, reading), reading)[0]


def read_conll(path: Path, reading: Reading = _SHIPPED_READING) -> Iterator[PoolSentence]:
    """Token and tag in the first and last column, a blank line between sentences; BIO, BIOES or BILOU.

    Raises:
        PoolError: names file and line.
    """
    yield from _sorted_out(conll_items(path, reading), reading)[0]


def read_sentences(
    path: Path, reading: Reading = _SHIPPED_READING
) -> tuple[tuple[PoolSentence, ...], tuple[LeftOut, ...]]:
    """The labelled sentences of a file, JSON by its name or else CoNLL columns, and what was left out.

    Raises:
        PoolError: names file and line.
    """
    items = json_items if path.suffix.lower() in _JSON_SUFFIXES else conll_items
    return _sorted_out(items(path, reading), reading)


def _sorted_out(
    items: Iterable[Item], reading: Reading, types: Iterable[str] | None = None
) -> tuple[tuple[PoolSentence, ...], tuple[LeftOut, ...]]:
    declared = None if types is None else list(types)
    sentences, left_out = [], []
    for item in items:
        if isinstance(item, PoolSentence) and (mistake := mistake_in(item, declared)):
            item = LeftOut(item.where, mistake)
        if isinstance(item, PoolSentence):
            sentences.append(item)
        elif item.mistake and reading.on_error == "stop":
            raise PoolError(f"{item.where}: {item.reason}{item.advice}")
        else:
            left_out.append(item)
    return tuple(sentences), tuple(left_out)


def _first(left_out: tuple[LeftOut, ...]) -> str:
    if not left_out:
        return ""
    return f"; {len(left_out)} sentences were left out, the first at {left_out[0].where}: {left_out[0].reason}"


def _locate(source: str) -> Path:
    shipped = source.removeprefix(SHIPPED)
    names = shipped_pools()
    if source.startswith(SHIPPED) or (source in names and not Path(source).exists()):
        if shipped not in names:
            raise PoolError(no_such("shipped pool", shipped, names))
        return Path(str(resources.files("el4ner") / "pools" / shipped))
    path = Path(source).expanduser()
    if not path.exists():
        raise PoolError(
            f"{path}: no such pool{nearest_hint(source, names)}; name a file, a folder with a pool.toml, or one of: "
            f"{choices(names)}"
        )
    return path


def _load_folder(folder: Path, name: str | None, reading: Reading, on_error: OnError | None) -> Pool:
    described = read_description(folder, reading)
    reading = described.reading if on_error is None else replace(described.reading, on_error=on_error)
    files = sorted(file for file in folder.iterdir() if file.is_file() and _is_labelled(file))
    if not files:
        raise PoolError(f"{folder}: holds no JSON or CoNLL file with sentences")
    items = (item for file in files for item in _items(file, reading))
    sentences, left_out = _sorted_out(items, reading, described.types)
    if not sentences:
        raise PoolError(f"{folder}: has no sentences{_first(left_out)}")
    return Pool(
        name=name or described.name,
        types=described.types,
        sentences=sentences,
        text_kind=described.text_kind,
        left_out=left_out,
    )


def _is_labelled(file: Path) -> bool:
    """Whether a file of a folder is one of sentences; what would have to be converted is not passed over silently."""
    suffix = file.suffix.lower()
    return not file.name.startswith(".") and (suffix in _JSON_SUFFIXES | _CONLL_SUFFIXES | _NEVER_NOTES)


def _items(path: Path, reading: Reading) -> Iterator[Item]:
    suffix = path.suffix.lower()
    if suffix in _JSON_SUFFIXES:
        return json_items(path, reading)
    if suffix in _CONLL_SUFFIXES:
        return conll_items(path, reading)
    if suffix in _CONVERTED:
        raise PoolError(f"{path}: is not read, since it is {_CONVERTED[suffix]}")
    raise PoolError(
        f"{path}: neither JSON ({', '.join(sorted(_JSON_SUFFIXES))}) nor CoNLL ({', '.join(sorted(_CONLL_SUFFIXES))})"
    )
