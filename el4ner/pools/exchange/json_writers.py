"""A labelled sentence as each tool imports it: one JSON value."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from el4ner.pools.pool import PoolSentence

__all__ = ["doccano_record", "label_studio_task", "our_record", "prodigy_record", "spacy_pair"]


def our_record(sentence: PoolSentence) -> Mapping[str, Any]:
    """As a pool's own files have it."""
    spans = [{"start": span.start, "end": span.end, "type": label, "text": span.text} for span, label in sentence.spans]
    return {"text": sentence.text, "spans": spans}


def label_studio_task(sentence: PoolSentence) -> Mapping[str, Any]:
    """A task with one annotation, for ``<Labels name="label" toName="text">`` and ``<Text name="text" value="$text">``.

    Offsets are code points, as Label Studio has them since its version 1.4.
    """
    regions = [
        {
            "id": f"span-{number}",
            "from_name": "label",
            "to_name": "text",
            "type": "labels",
            "value": {"start": span.start, "end": span.end, "text": span.text, "labels": [label]},
        }
        for number, (span, label) in enumerate(sentence.spans, start=1)
    ]
    return {"data": {"text": sentence.text}, "annotations": [{"result": regions}]}


def doccano_record(sentence: PoolSentence) -> Mapping[str, Any]:
    """For a project of sequence labelling. Offsets are what doccano's page counts: UTF-16."""
    units = list(accumulate((1 + (char > "\uffff") for char in sentence.text), initial=0))
    spans = [[units[span.start], units[span.end], label] for span, label in sentence.spans]
    return {"text": sentence.text, "label": spans}


def prodigy_record(sentence: PoolSentence) -> Mapping[str, Any]:
    """For ``prodigy db-in``, or to be looked through again by ``ner.manual``, which adds the tokens."""
    spans = [{"start": span.start, "end": span.end, "label": label} for span, label in sentence.spans]
    return {"text": sentence.text, "spans": spans, "answer": "accept"}


def spacy_pair(sentence: PoolSentence) -> list[Any]:
    """``[text, {"entities": [[start, end, label]]}]``, what ``Example.from_dict(nlp.make_doc(text), …)`` takes."""
    return [sentence.text, {"entities": [[span.start, span.end, label] for span, label in sentence.spans]}]
