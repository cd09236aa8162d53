"""Pools from files: a folder with a ``pool.toml``, JSON Lines, or CoNLL columns (BIO or BIOES).

Every error names the file and the line, what is wrong there and how to mend it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, cast

import orjson

from el4ner.errors import PoolError
from el4ner.pools.pool import Pool, PoolSentence
from el4ner.text.segment import TextKind
from el4ner.types import Span

__all__ = ["load_pool", "read_conll", "read_jsonl", "shipped_pools"]

SHIPPED = "shipped:"
_CONLL_SUFFIXES = frozenset({".conll", ".txt", ".bio", ".iob", ".tsv"})
_TAG = re.compile(r"^(?:O|([BIES])-(.+))$")
_NO_SPACE_BEFORE = frozenset(".,;:!?%)]}'’”")
_NO_SPACE_AFTER = frozenset("([{$£€“‘#@")


def shipped_pools() -> list[str]:
    """The pools that come with the package, by name."""
    return sorted(
        folder.name for folder in (resources.files("el4ner") / "pools").iterdir() if (folder / "pool.toml").is_file()
    )


def load_pool(source: str | Path, *, name: str | None = None) -> Pool:
    """A pool from ``shipped:NAME`` (or just a shipped name), a folder with a ``pool.toml``, a JSONL or a CoNLL file.

    A bare file has no descriptions: its types are the labels that occur in it, described by their own names.

    Raises:
        PoolError: names file and line.
    """
    path = _locate(str(source))
    if path.is_dir():
        return _load_folder(path, name)
    sentences = tuple(_read_sentences(path))
    labels = sorted({label for sentence in sentences for _, label in sentence.spans})
    if not labels:
        raise PoolError(f"{path}: no sentence has a labelled span, so there are no entity types to learn from it")
    return Pool(name=name or path.stem, types={label: describe(label) for label in labels}, sentences=sentences)


def describe(label: str) -> str:
    """A description where there is none: the label as words (``politicalparty`` stays, ``creative-work`` does not)."""
    return re.sub(r"[-_/.]+", " ", label).strip().lower()


def read_jsonl(path: Path) -> Iterator[PoolSentence]:
    """One object a line: ``{"text": …, "spans": [{"start": 0, "end": 5, "type": "person", "text": "Maria"}]}``.

    Offsets are code points, half-open. ``text`` of a span is optional and checked where given.
    """
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise PoolError(f"{where}: is not JSON: {error}") from error
        if not isinstance(record, dict) or not isinstance(record.get("text"), str) or not record["text"].strip():
            raise PoolError(f'{where}: needs an object with a "text" that is not empty')
        spans = [_json_span(item, record["text"], where) for item in record.get("spans", [])]
        yield PoolSentence(record["text"], tuple(sorted(spans)), where)


def _json_span(item: Any, text: str, where: str) -> tuple[Span, str]:
    match item:
        case {"start": int(start), "end": int(end), "type": str(label)}:
            if not 0 <= start < end <= len(text):
                raise PoolError(f"{where}: span {start}–{end} is not inside the text, which has {len(text)} characters")
            surface = item.get("text", text[start:end])
            if surface != text[start:end]:
                raise PoolError(
                    f"{where}: span {start}–{end} is {text[start:end]!r}, not {surface!r}; "
                    "offsets are Unicode code points, end not included"
                )
            return Span(start, end, surface), label
        case _:
            raise PoolError(f'{where}: a span needs whole numbers "start" and "end" and a string "type", not {item!r}')


def read_conll(path: Path) -> Iterator[PoolSentence]:
    """Token and tag in the first and last column, a blank line between sentences; BIO or BIOES, told apart by itself.

    Tokens are joined to a text with spaces, but for punctuation: ``read_conll_tokens`` keeps them apart.
    """
    for tokens, tags, where in read_conll_tokens(path):
        text, offsets = join_tokens(tokens)
        spans = []
        for first, last, label in tag_spans(tags):
            start, end = offsets[first][0], offsets[last][1]
            spans.append((Span(start, end, text[start:end]), label))
        yield PoolSentence(text, tuple(spans), where)


def read_conll_tokens(path: Path) -> Iterator[tuple[list[str], list[str], str]]:
    """Sentences as tokens and tags, with ``file:line`` of the first token."""
    tokens: list[str] = []
    tags: list[str] = []
    where = f"{path}:1"
    number = 0
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if tokens:
                yield tokens, tags, where
            tokens, tags = [], []
            continue
        columns = line.rstrip("\n").split("\t") if "\t" in line else line.split()
        if len(columns) < 2 or not columns[0].strip():
            raise PoolError(
                f"{path}:{number}: needs a token and a tag, separated by a tab or spaces, not {line.strip()!r}"
            )
        tag = columns[-1].strip()
        if not _TAG.match(tag):
            raise PoolError(
                f"{path}:{number}: {tag!r} is no BIO or BIOES tag such as O, B-person, I-person, E-person, S-person"
            )
        if not tokens:
            where = f"{path}:{number}"
        tokens.append(columns[0].strip())
        tags.append(tag)
    if tokens:
        yield tokens, tags, where


def tag_spans(tags: list[str]) -> list[tuple[int, int, str]]:
    """First token, last token and label of each entity; an I or E that continues nothing begins one."""
    spans: list[tuple[int, int, str]] = []
    start: int | None = None
    label = ""
    for index, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        continues = start is not None and prefix in "IE" and kind == label
        if start is not None and not continues:
            spans.append((start, index - 1, label))
            start = None
        if prefix != "O" and start is None:
            start, label = index, kind
        if start is not None and prefix in "ES":
            spans.append((start, index, label))
            start = None
    return spans


def join_tokens(tokens: list[str]) -> tuple[str, list[tuple[int, int]]]:
    """Tokens as one readable text, and each token's offsets in it."""
    text = ""
    offsets = []
    for token in tokens:
        glued = not text or token[0] in _NO_SPACE_BEFORE or text[-1] in _NO_SPACE_AFTER
        start = len(text) + (0 if glued else 1)
        text += ("" if glued else " ") + token
        offsets.append((start, start + len(token)))
    return text, offsets


def _locate(source: str) -> Path:
    shipped = source.removeprefix(SHIPPED)
    if source.startswith(SHIPPED) or (source in shipped_pools() and not Path(source).exists()):
        if shipped not in shipped_pools():
            raise PoolError(f"there is no shipped pool {shipped!r}; there are: {', '.join(shipped_pools())}")
        return Path(str(resources.files("el4ner") / "pools" / shipped))
    path = Path(source).expanduser()
    if not path.exists():
        raise PoolError(
            f"{path}: no such pool; name a file, a folder with a pool.toml, or one of: {', '.join(shipped_pools())}"
        )
    return path


def _load_folder(folder: Path, name: str | None) -> Pool:
    described = folder / "pool.toml"
    if not described.is_file():
        raise PoolError(f"{folder}: a pool's folder needs a pool.toml (name, text, [types])")
    try:
        meta: Mapping[str, Any] = tomllib.loads(described.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PoolError(f"{described}: is not valid TOML: {error}") from error
    unknown = set(meta) - {"name", "text", "description", "types"}
    if unknown:
        raise PoolError(
            f"{described}: there is no setting {sorted(unknown)[0]!r}; there are: name, text, description, types"
        )
    types = meta.get("types")
    if not isinstance(types, Mapping) or not all(isinstance(line, str) for line in types.values()):
        raise PoolError(f'{described}: needs a table [types] with lines such as person = "a named human being"')
    kind = meta.get("text", "prose")
    if kind not in ("prose", "log"):
        raise PoolError(f'{described}: text is "prose" or "log", not {kind!r}')
    files = sorted(file for file in folder.iterdir() if file.suffix == ".jsonl" or file.suffix in _CONLL_SUFFIXES)
    if not files:
        raise PoolError(f"{folder}: holds no .jsonl or CoNLL file with sentences")
    return Pool(
        name=name or str(meta.get("name", folder.name)),
        types=dict(types),
        sentences=tuple(sentence for file in files for sentence in _read_sentences(file)),
        text_kind=cast(TextKind, kind),
    )


def _read_sentences(path: Path) -> Iterator[PoolSentence]:
    if path.suffix == ".jsonl":
        return read_jsonl(path)
    if path.suffix in _CONLL_SUFFIXES:
        return read_conll(path)
    raise PoolError(f"{path}: neither JSON Lines (.jsonl) nor CoNLL ({', '.join(sorted(_CONLL_SUFFIXES))})")


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    yield raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise PoolError(f"{path}:{number}: is not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise PoolError(f"{path}: cannot be read: {error.strerror}") from error
