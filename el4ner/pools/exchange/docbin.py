"""spaCy's DocBin (``.spacy``): written and read by spaCy, which is no dependency and has to be installed for that.

It is read as far as this needs: texts and entities. What a file may have beside them (user data, heads) is not given to
spaCy's own reader, which trusts it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from el4ner.errors import PoolError
from el4ner.pools.exchange.labelled_documents import DocumentItem, LabelledDocument
from el4ner.pools.labelled import quoted
from el4ner.pools.pool import LeftOut, PoolSentence
from el4ner.types import Span

if TYPE_CHECKING:
    from spacy.language import Language

__all__ = ["DocBinWriter", "docbin_documents"]

_LARGEST: Final = 1 << 30
"""Bytes of an unpacked file: a small one may unpack to whatever size."""
_MISSING, _INSIDE, _OUTSIDE, _BEGIN = 0, 1, 2, 3
"""The values of ENT_IOB."""
_NO_GROUPS: Final = b"\x90"
"""An empty list of msgpack: what a document without span groups has for them; nothing, before spaCy 3.1."""


def docbin_documents(path: Path) -> Iterator[DocumentItem]:
    """The documents of a file, with the place ``file: document 3``.

    Raises:
        PoolError: spaCy is not installed, or the file is no DocBin.
    """
    spacy = _spacy("read")
    try:
        message = _unpacked(path)
        strings = spacy.strings.StringStore(message["strings"])
        attributes = list(message["attrs"])
        tokens = np.frombuffer(message["tokens"], dtype="uint64").reshape(-1, len(attributes))
        spaces = np.frombuffer(message["spaces"], dtype=bool)
        lengths = np.frombuffer(message["lengths"], dtype="int32")
        flags = message.get("flags") or [{}] * len(lengths)
        groups = [len(group) > len(_NO_GROUPS) for group in message.get("span_groups") or ()]
        ids = spacy.attrs.IDS
        orth = attributes.index(ids["ORTH"])
        entity_columns = [attributes.index(ids[name]) for name in ("ENT_IOB", "ENT_TYPE") if ids[name] in attributes]
    except PoolError:
        raise
    except Exception as error:  # whatever a library says of bytes that are something else
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PoolError(f"{path}: is no DocBin that spaCy {spacy.__version__} wrote: {quoted(reason)}") from error
    if sum(map(int, lengths)) != len(tokens) or len(tokens) != len(spaces) or min(lengths, default=0) < 0:
        raise PoolError(f"{path}: is no DocBin: its documents are not as long as its tokens are many")
    if len(entity_columns) < 2:
        raise PoolError(f"{path}: was written without entities: DocBin(attrs=[…]) needs ENT_IOB and ENT_TYPE")
    position = 0
    for number, length in enumerate(map(int, lengths), start=1):
        rows = slice(position, position + length)
        position += length
        where = f"{path}: document {number}"
        try:
            unknown = number <= len(flags) and bool(flags[number - 1].get("has_unknown_spaces"))
            words = [strings[int(word)] for word in tokens[rows, orth]]
            glued = [not space for space in spaces[rows]] if not unknown else [False] * length
            labels = [(int(iob), strings[int(label)]) for iob, label in tokens[rows, entity_columns]]
            if number <= len(groups) and groups[number - 1] and not any(label for _, label in labels):
                yield LeftOut(where, "has span groups and no entities: only entities are read: set doc.ents first")
                continue
            yield _document(words, glued, labels, where)
        except PoolError as error:
            yield LeftOut(where, str(error))
        except (KeyError, AttributeError, TypeError) as error:
            yield LeftOut(where, f"refers to a text that the file does not have: {error}")


def _document(
    words: Sequence[str], glued: Sequence[bool], labels: Sequence[tuple[int, str]], where: str
) -> LabelledDocument:
    if not any(word.strip() for word in words):
        raise PoolError("the text is empty")
    if any(iob == _MISSING for iob, _ in labels):
        raise PoolError(
            "of its tokens, some or all have no entity annotation, so that nobody said what is no entity: "
            "doc.set_ents([…], default='outside') says it"
        )
    places, position = [], 0
    for word, ends_glued in zip(words, glued, strict=True):
        places.append((position, position + len(word)))
        position += len(word) + (not ends_glued)
    text = "".join(word if ends_glued else word + " " for word, ends_glued in zip(words, glued, strict=True))
    spans: list[tuple[int, int, str]] = []
    inside = False
    for (start, end), (iob, label) in zip(places, labels, strict=True):
        if iob == _INSIDE and inside and label == spans[-1][2]:
            spans[-1] = (spans[-1][0], end, label)
        elif iob in (_BEGIN, _INSIDE) and label:
            spans.append((start, end, label))
        inside = iob in (_BEGIN, _INSIDE) and bool(label)
    return LabelledDocument(text, tuple((Span(s, e, text[s:e]), label) for s, e, label in spans), where)


def _unpacked(path: Path) -> Any:
    import srsly

    try:
        packed = path.read_bytes()
    except OSError as error:
        raise PoolError(f"{path}: cannot be read: {error.strerror}") from error
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(packed, _LARGEST)
    if unpacker.unconsumed_tail:
        raise PoolError(f"{path}: unpacks to more than {_LARGEST >> 20} MiB: split the file")
    return srsly.msgpack_loads(content)


class DocBinWriter:
    """Makes a DocBin of sentences, each a document. Its tokens are spaCy's, cut where an entity's edge is in one."""

    def __init__(self) -> None:
        self._spacy = _spacy("write")
        self._blank: Language = self._spacy.blank("xx")
        self._bin = self._spacy.tokens.DocBin(attrs=["ENT_IOB", "ENT_TYPE"], store_user_data=False)

    def add(self, sentence: PoolSentence) -> None:
        """One more document.

        Raises:
            PoolError: spans overlap, which a Doc's entities cannot.
        """
        spans = sorted(sentence.spans)
        for (left, _), (right, _) in pairwise(spans):
            if right.start < left.end:
                raise PoolError(
                    f"span {quoted(right.text)} overlaps {quoted(left.text)}, which spaCy's entities cannot"
                )
        words, spaces = self._tokens(sentence.text, [span for span, _ in spans])
        doc = self._spacy.tokens.Doc(self._blank.vocab, words=words, spaces=spaces)
        entities = [doc.char_span(span.start, span.end, label=label) for span, label in spans]
        if doc.text != sentence.text or any(entity is None for entity in entities):
            raise PoolError("spaCy cannot hold this text as tokens")
        doc.set_ents(entities, default="outside")
        self._bin.add(doc)

    def content(self) -> bytes:
        """The file."""
        written: bytes = self._bin.to_bytes()
        return written

    def _tokens(self, text: str, spans: Iterable[Span]) -> tuple[list[str], list[bool]]:
        """Words, and whether a space follows each; a space at a span's edge is a word by itself."""
        cuts: set[int] = {0, len(text)}
        marked: set[int] = set()
        for token in self._blank.make_doc(text):
            cuts.update((token.idx, token.idx + len(token.text)))
        for span in spans:
            cuts.update((span.start, span.end))
            marked.update((span.start, span.end - 1))
        words: list[str] = []
        spaces: list[bool] = []
        for start, end in pairwise(sorted(cuts)):
            follows_word = bool(words) and not spaces[-1] and not words[-1].isspace()
            if text[start:end] == " " and follows_word and start not in marked:
                spaces[-1] = True
            else:
                words.append(text[start:end])
                spaces.append(False)
        return words, spaces


def _spacy(verb: str) -> Any:
    try:
        import spacy
        import spacy.attrs
        import spacy.strings
        import spacy.tokens
    except ImportError as error:
        raise PoolError(
            f"a .spacy file is spaCy's DocBin, which only spaCy can {verb}: `pip install spacy`, or use JSON instead: "
            '[text, {"entities": [[start, end, "label"]]}] in a .jsonl file'
        ) from error
    return spacy
