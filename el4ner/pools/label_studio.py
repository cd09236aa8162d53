"""Label Studio's exports, JSON and JSON-MIN. It counts as browsers do, in UTF-16, and says what each region covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from el4ner.errors import PoolError
from el4ner.pools.labelled import Labelled, Rejected, list_in, quoted, span_of, text_in
from el4ner.pools.units import RawSpan

__all__ = ["is_min_record", "is_task", "parse_min_record", "parse_task"]

_MIN_KEYS: Final = frozenset({"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"})


def is_task(record: Mapping[str, Any]) -> bool:
    """Whether it looks like a task of the export JSON."""
    return isinstance(record.get("data"), Mapping) and any(
        key in record for key in ("annotations", "completions", "predictions")
    )


def is_min_record(record: Mapping[str, Any]) -> bool:
    """Whether it looks like a record of the export JSON-MIN."""
    return "annotation_id" in record or bool(_region_keys(record))


def parse_task(task: Mapping[str, Any]) -> Labelled | Rejected:
    """The regions of a task's only annotation, or of the one that is marked as ground truth.

    Raises:
        PoolError: nobody has annotated it, or several have, differently.
    """
    if "completions" in task:
        raise PoolError(
            'has "completions": an export of Label Studio before 1.0; import and export it with a newer one'
        )
    usable = []
    annotations = list_in(task, "annotations") if "annotations" in task else []
    for annotation in annotations:
        if not isinstance(annotation, Mapping):
            raise PoolError(f"an annotation has to be an object, not {quoted(annotation)}")
        if not annotation.get("was_cancelled"):
            usable.append(annotation)
    if annotations and not usable:
        return Rejected("skipped in Label Studio")
    if not usable:
        raise PoolError("nobody has annotated this task (predictions do not count): leave it out of the export")
    chosen = [annotation for annotation in usable if annotation.get("ground_truth") is True] or usable
    regions = [_regions(_results(annotation)) for annotation in chosen]
    if any(set(region) != set(regions[0]) for region in regions[1:]):
        raise PoolError(f"has {len(chosen)} annotations that differ: mark one of them as ground truth")
    return Labelled(_text(task["data"], frozenset()), tuple(regions[0]), "auto")


def parse_min_record(record: Mapping[str, Any]) -> Labelled:
    """The regions are under the name of the labelling tag; without any, that key is missing.

    Raises:
        PoolError: several lists of regions.
    """
    keys = _region_keys(record)
    if len(keys) > 1:
        raise PoolError(f"has labels under {' and '.join(map(repr, keys))}: export one labelling tag alone")
    spans = [_region(item) for item in record[keys[0]]] if keys else []
    return Labelled(_text(record, _MIN_KEYS), tuple(spans), "auto")


def _region_keys(record: Mapping[str, Any]) -> list[str]:
    return [
        key
        for key, value in record.items()
        if isinstance(value, list)
        and value
        and all(isinstance(item, Mapping) for item in value)
        and any(_is_region(item, unlabelled="annotation_id" in record) for item in value)
    ]


def _is_region(item: Mapping[str, Any], *, unlabelled: bool) -> bool:
    """Whether it looks like a region: of any labelling tag, or (if ``unlabelled``) one that was given no label."""
    return any(key.endswith("labels") for key in item) or (unlabelled and "start" in item)


def _text(data: Any, passed_over: frozenset[str]) -> str:
    """Under ``text``, or the only string that there is."""
    if not isinstance(data, Mapping):
        raise PoolError(f'"data" has to be an object with a "text", not {quoted(data)}')
    strings = [key for key, value in data.items() if isinstance(value, str) and key not in passed_over]
    if "text" not in data and len(strings) == 1:
        return text_in(data, strings[0])
    if "text" not in data:
        raise PoolError(f'"data" needs a "text", or a single string under another name, not {sorted(strings)}')
    return text_in(data)


def _results(annotation: Mapping[str, Any]) -> list[Any]:
    if "result" not in annotation:
        raise PoolError('an annotation has no "result", not even an empty list: export the tasks as JSON once more')
    return list_in(annotation, "result")


def _regions(results: Sequence[Any]) -> list[RawSpan]:
    spans = []
    for result in results:
        if not isinstance(result, Mapping):
            raise PoolError(f"a result has to be an object, not {quoted(result)}")
        kind = result.get("type", "labels")
        if kind == "labels":
            spans.append(_region(result.get("value")))
        elif isinstance(kind, str) and kind.endswith("labels"):
            raise PoolError(_other_labels(kind))
        # Others are choices, relations, comments, ratings: they say nothing about entities.
    return spans


def _other_labels(kind: str) -> str:
    if kind == "hypertextlabels":
        return "has labels of a HyperText tag: their offsets are places in HTML, not in a text"
    return f'has {quoted(kind)}: only labels of a Text tag are places in a text (type "labels")'


def _region(value: Any) -> RawSpan:
    if isinstance(value, Mapping) and "labels" not in value:
        for kind in value:
            if kind.endswith("labels"):
                raise PoolError(_other_labels(kind))
    labels = value.get("labels") if isinstance(value, Mapping) else None
    if not isinstance(labels, list) or len(labels) != 1:
        raise PoolError(f'a region needs "start", "end" and exactly one of "labels", not {quoted(value)}')
    return span_of({**value, "labels": labels[0]}, label="labels")
