"""Records of JSON in the layouts of annotation tools, as labelled texts or tokens.

Ours, doccano's, Prodigy's, Label Studio's (``label_studio``), spaCy's and that of Hugging Face data sets. A key that is
not known is an error: what was misspelt, or is another tool's, would turn a labelled sentence into one that shows what
is *not* an entity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from el4ner.errors import PoolError
from el4ner.nearest import nearest
from el4ner.pools import label_studio
from el4ner.pools.conll import Tokens, token_error, wrong_tag
from el4ner.pools.labelled import (
    Labelled,
    Rejected,
    known_keys,
    known_span_keys,
    list_in,
    listed_span,
    quoted,
    span_of,
    text_in,
)
from el4ner.pools.units import RawSpan

__all__ = ["LAYOUTS_OF_TOOLS", "OURS", "PRODIGY", "Layout", "Parsed", "layout_of"]

Parsed: TypeAlias = Labelled | Rejected | Tokens | list[Tokens]


@dataclass(frozen=True, slots=True)
class Layout:
    """A way to write labelled text. ``parse`` raises :class:`PoolError` without the record's place.

    ``strict``: it takes any object, and names the keys that it does not know. ``units_differ``: what its offsets count
    depends on who wrote them. ``has_tokens``: its texts are made of tokens.
    """

    name: str
    parse: Callable[[Any], Parsed]
    strict: bool = False
    units_differ: bool = False
    has_tokens: bool = False


_OTHERS_KEYS: Final[Mapping[str, str]] = {
    "label": "doccano",
    "labels": "doccano",
    "entities": "doccano and spaCy",
    "ents": "spaCy",
    "annotation": "DataTurks",
    "content": "DataTurks",
    "annotations": "Label Studio",
    "result": "Label Studio",
    "answer": "Prodigy",
    "ner_tags": "Hugging Face data sets",
    "tags": "Hugging Face data sets",
    "tokens": "Hugging Face data sets and Prodigy",
}
_PRODIGY_MARKS: Final = ("answer", "_input_hash", "_task_hash", "_view_id", "_session_id")


def layout_of(value: Any) -> Layout:
    """The layout that a record looks like; ours where it looks like none.

    Raises:
        PoolError: it is no object, and no pair of spaCy's.
    """
    match value:
        case [str(), {}]:
            return _SPACY_PAIR
        case {}:
            return _layout_of_object(value)
        case _:
            raise PoolError('needs an object with a "text" that is not empty, or a layout that docs/pools.md lists')


def _layout_of_object(record: Mapping[str, Any]) -> Layout:
    if label_studio.is_task(record):
        return _LABEL_STUDIO
    if label_studio.is_min_record(record):
        return _LABEL_STUDIO_MIN
    if "paragraphs" in record:
        return _SPACY_TRAINING
    if "ents" in record:
        return _SPACY_DOC
    if isinstance(record.get("tokens"), list) and any(key in record for key in _TAG_KEYS):
        return _HUGGING_FACE
    if any(key in record for key in _PRODIGY_MARKS) or _has_labelled_spans(record.get("spans")):
        return PRODIGY
    if "spans" not in record and any(key in record for key in _DOCCANO_LABELS):
        return _DOCCANO
    return OURS


def _has_labelled_spans(spans: Any) -> bool:
    return isinstance(spans, list) and any(
        isinstance(item, Mapping) and "label" in item and "type" not in item for item in spans
    )


def _ours(record: Mapping[str, Any]) -> Labelled:
    known = ("text", "spans", "id", "meta", "metadata")
    hints = ((key, nearest(key, _OTHERS_KEYS)) for key in record if key not in known)
    # A slip leaves a key about as long as it was: 'ner' is none for 'answer'.
    likes = (like for key, like in hints if like is not None and abs(len(like) - len(key)) <= 2)
    hint = next((f"; {like!r} is a key of {_OTHERS_KEYS[like]}" for like in likes), "")
    known_keys(record, known, OURS.name, hint)
    spans = []
    text = text_in(record)
    for item in list_in(record, "spans") if "spans" in record else ():
        known_span_keys(item, ("start", "end", "type", "text"), OURS.name)
        spans.append(span_of(item, label="type"))
    return Labelled(text, tuple(spans))


_DOCCANO_LABELS: Final = ("label", "labels", "entities")
_DOCCANO_KEYS: Final = (
    "text", "label", "labels", "entities", "relations", "id", "data", "meta", "metadata", "cats", "comments",
    "Comments", "annotation_approver", "username",
)  # fmt: skip
_DOCCANO_SPAN_KEYS: Final = ("id", "label", "start_offset", "end_offset", "user", "created_at", "updated_at", "prob")


def _doccano(record: Mapping[str, Any]) -> Labelled:
    entities = record.get("entities")
    if isinstance(entities, list) and any(isinstance(item, Mapping) and "type" in item for item in entities):
        raise PoolError('"entities" with a "type" are what `el4ner tag` writes: in a pool they are "spans"')
    if isinstance(record.get("annotations"), list):
        raise PoolError(
            'has "annotations", whose labels are numbers: an export of an older doccano; '
            "its JSONL with text labels has their names"
        )
    known_keys(record, _DOCCANO_KEYS, _DOCCANO.name)
    text = text_in(record, "data" if "data" in record and "text" not in record else "text")
    lists = {key: list_in(record, key) for key in _DOCCANO_LABELS if key in record}
    filled = [key for key, items in lists.items() if items]
    if len(filled) > 1:
        raise PoolError(f"has labels under {' and '.join(map(repr, filled))}: one of them has to go")
    spans = tuple(_doccano_span(item) for item in lists[filled[0]]) if filled else ()
    return Labelled(text, spans, "auto")


def _doccano_span(item: Any) -> RawSpan:
    if isinstance(item, str):
        raise PoolError(f"{quoted(item)} is a label of a whole text, of a text classification: a span needs offsets")
    if isinstance(item, Mapping):
        if "start_offset" in item or "end_offset" in item:
            known_span_keys(item, _DOCCANO_SPAN_KEYS, _DOCCANO.name)
            return span_of(item, start="start_offset", end="end_offset", text=None)
        known_span_keys(item, ("start", "end", "label", "text", "id"), _DOCCANO.name)
        return span_of(item)
    return listed_span(item)


_PRODIGY_KEYS: Final = (
    "text", "spans", "answer", "tokens", "meta", "options", "accept", "config", "html", "image", "id", "relations",
    "score", "priority", "versions", "sessions", "view_id",
)  # fmt: skip
_PRODIGY_SPAN_KEYS: Final = (
    "start", "end", "label", "token_start", "token_end", "text", "source", "input_hash", "score", "priority", "pattern",
    "id", "kb_id", "answer", "hidden", "rank", "attributes",
)  # fmt: skip


def _prodigy(record: Mapping[str, Any]) -> Labelled | Rejected:
    known_keys({key: None for key in record if not key.startswith("_")}, _PRODIGY_KEYS, PRODIGY.name)
    answer = record.get("answer", "accept")
    if answer in ("reject", "ignore"):
        return Rejected("rejected in Prodigy" if answer == "reject" else "ignored in Prodigy")
    if answer != "accept":
        raise PoolError(f'"answer" is accept, reject or ignore, not {quoted(answer)}')
    if record.get("_is_binary") is True:
        raise PoolError("is a yes to one span, by a binary recipe: what else the text names was not asked")
    text = text_in(record)
    if "spans" not in record and "answer" not in record:
        raise PoolError('has neither "spans" nor an "answer": nobody has annotated it')
    if "spans" not in record and ("options" in record or "accept" in record):
        raise PoolError('has "options" and no "spans": choices about a whole text, nobody was asked for its entities')
    spans = []
    for item in list_in(record, "spans") if "spans" in record else ():
        known_span_keys(item, _PRODIGY_SPAN_KEYS, PRODIGY.name)
        spans.append(span_of(item))
    return Labelled(text, tuple(spans))


def _spacy_pair(pair: Any) -> Labelled:
    text, annotations = pair
    known_keys(annotations, ("entities", "cats", "links", "heads", "deps", "tags", "spans"), _SPACY_PAIR.name)
    if "entities" not in annotations:
        raise PoolError('needs {"entities": [[start, end, "label"], …]} beside the text; [] if it has none')
    if annotations.get("spans"):
        raise PoolError('has "spans" beside "entities": only entities are read')
    spans = tuple(listed_span(item) for item in list_in(annotations, "entities"))
    return Labelled(text_in({"text": text}), spans)


def _spacy_doc(record: Mapping[str, Any]) -> Labelled:
    if record.get("spans") and not record["ents"]:
        raise PoolError('has "spans" and no "ents": only entities are read: set doc.ents from doc.spans first')
    spans = tuple(replace(span_of(item), surface=None) for item in list_in(record, "ents"))
    return Labelled(text_in(record), spans)


def _spacy_training(record: Mapping[str, Any]) -> list[Tokens]:
    """spaCy 2's training format: documents of paragraphs of sentences of tokens, with BILUO tags."""
    return [
        _spacy_sentence(sentence)
        for paragraph in list_in(record, "paragraphs")
        for sentence in list_in(_with(paragraph, "sentences"), "sentences")
    ]


def _spacy_sentence(record: Any) -> Tokens:
    sentence = Tokens("")
    space = ""
    for token in list_in(_with(record, "tokens"), "tokens"):
        tag = _with(token, "ner")["ner"]
        if tag == "-":
            raise PoolError('a token\'s "ner" is "-": nobody has said whether it belongs to an entity')
        sentence.glued.append(bool(sentence.tokens) and space == "")
        space = token.get("space", " ")
        _append(sentence, token.get("orth"), tag)
    return sentence


_TAG_KEYS: Final = ("ner_tags", "tags", "labels")
_HUGGING_FACE_KEYS: Final = (
    "tokens", "ner_tags", "tags", "labels", "id", "pos_tags", "chunk_tags", "lang", "langs", "spans", "doc_id",
    "document_id", "sent_id", "sentence_id", "text", "meta", "metadata",
)  # fmt: skip


def _hugging_face(record: Mapping[str, Any]) -> Tokens:
    known_keys(record, _HUGGING_FACE_KEYS, _HUGGING_FACE.name)
    key = next(key for key in _TAG_KEYS if key in record)
    tokens, tags = list_in(record, "tokens"), list_in(record, key)
    if any(isinstance(tag, int) for tag in tags):
        raise PoolError(
            f'"{key}" holds numbers, whose names are in the data set\'s features alone: write the names instead '
            f'(features["{key}"].feature.int2str)'
        )
    if len(tokens) != len(tags):
        raise PoolError(f'has {len(tokens)} "tokens" and {len(tags)} "{key}"')
    if not tokens:
        raise PoolError('"tokens" is empty')
    sentence = Tokens("")
    for token, tag in zip(tokens, tags, strict=True):
        sentence.glued.append(False)
        _append(sentence, token, tag)
    text = record.get("text")
    sentence.text = text if isinstance(text, str) else None
    return sentence


def _append(sentence: Tokens, token: Any, tag: Any) -> None:
    if not isinstance(token, str) or not isinstance(tag, str):
        raise PoolError(f"a token and its tag have to be texts, not {quoted(token)} and {quoted(tag)}")
    if mistake := token_error(token, "script") or wrong_tag(tag):
        raise PoolError(mistake)
    sentence.tokens.append(token)
    sentence.tags.append(tag)


def _with(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or key not in value:
        raise PoolError(f'needs an object with "{key}", not {quoted(value)}')
    return value


OURS: Final = Layout("el4ner's own layout", _ours, strict=True)
_DOCCANO: Final = Layout("doccano's layout", _doccano, strict=True, units_differ=True)
PRODIGY: Final = Layout("Prodigy's layout", _prodigy, strict=True)
_LABEL_STUDIO: Final = Layout("Label Studio's JSON", label_studio.parse_task, units_differ=True)
_LABEL_STUDIO_MIN: Final = Layout("Label Studio's JSON-MIN", label_studio.parse_min_record, units_differ=True)
_SPACY_PAIR: Final = Layout("spaCy's pairs of text and entities", _spacy_pair)
_SPACY_DOC: Final = Layout("spaCy's Doc.to_json", _spacy_doc)
_SPACY_TRAINING: Final = Layout("spaCy 2's training format", _spacy_training, has_tokens=True)
_HUGGING_FACE: Final = Layout("the layout of Hugging Face data sets", _hugging_face, has_tokens=True)

LAYOUTS_OF_TOOLS: Final[Mapping[str, tuple[Layout, ...]]] = {
    "labelstudio": (_LABEL_STUDIO, _LABEL_STUDIO_MIN),
    "doccano": (_DOCCANO,),
    "prodigy": (PRODIGY,),
    "spacy": (_SPACY_PAIR, _SPACY_DOC, _SPACY_TRAINING),
}
"""By the name of the tool, the layouts that it has, the likeliest first."""
