"""The real ensemble with its members apart: bit by bit what one process with both says."""

from __future__ import annotations

from importlib import resources
from typing import Any

import orjson
import pytest

from el4ner.config import Settings, load_settings
from el4ner.errors import DocumentError
from el4ner.pipeline import Pipeline
from el4ner.serialize import answers_from_json, answers_to_json, dumps
from el4ner.stages.combine import Combiner
from el4ner.types import Document, DocumentAnswers

pytestmark = [pytest.mark.models, pytest.mark.timeout(1200)]


def good(found: Any) -> Any:
    assert not isinstance(found, DocumentError), found
    return found


def test_the_default_members_apart_decide_as_one_process() -> None:
    settings = load_settings(Settings, environ={}, overrides={"ensemble": {"preset": "default"}})
    lines = (resources.files("el4ner") / "samples" / "demo.jsonl").read_bytes().splitlines()[:12]
    documents = [
        Document(str(number), data["text"], data.get("pool")) for number, data in enumerate(map(orjson.loads, lines))
    ]
    # With the whole ensemble first: it reads the pools and weighs the evidence, where that is not on disk.
    with Pipeline.from_settings(settings) as pipeline:
        candidates = [good(found) for found in pipeline.extract(documents)]
        whole = [good(found) for found in pipeline.classify(candidates)]
    said: list[list[tuple[tuple[str, ...], DocumentAnswers]]] = [[] for _ in documents]
    for member in settings.ensemble.members:
        with Pipeline.from_settings(settings, stages=["classify"], members=[member]) as pipeline:
            assert list(pipeline.engines) == [member]
            for own, found in zip(said, pipeline.answer(candidates), strict=True):
                own.append(((member,), answers_from_json(orjson.loads(dumps(answers_to_json(good(found)))))))
    combiner = Combiner.from_settings(settings)
    assert sum(len(item.typed) for one in whole for item in one.sentences) > 50
    for expected, parts in zip(whole, said, strict=True):
        combined = combiner.types(parts[::-1], settings.ensemble.members)
        assert combined.manifest == expected.manifest
        assert combined.sentences == expected.sentences
