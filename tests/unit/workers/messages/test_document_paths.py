"""Documents inside somebody else's messages: where they are, and what is said when they are not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.errors import MessageError
from workers.config import KafkaSettings
from workers.messages.document_paths import DocumentPaths
from workers.value_path import ValuePath

CHANGE = {
    "op": "u",
    "before": None,
    "after": {"id": 7, "body": "Ada met Bob.", "tags": [{"name": "a.b"}]},
    "ts_ms": 1_700_000_000_000,
}


def paths(**settings: Any) -> DocumentPaths:
    found = DocumentPaths.of(KafkaSettings(**settings))
    assert found is not None
    return found


def test_without_a_path_messages_are_as_the_schema_says() -> None:
    assert DocumentPaths.of(KafkaSettings()) is None


@pytest.mark.parametrize(
    ("settings", "document"),
    [
        ({"text_path": "after.body"}, {"text": "Ada met Bob."}),
        ({"text_path": "/after/body"}, {"text": "Ada met Bob."}),
        ({"text_path": "after.tags.0.name"}, {"text": "a.b"}),
        (
            {"text_path": "after.body", "id_path": "after.id", "revision_path": "ts_ms"},
            {"id": "7", "revision": 1_700_000_000_000, "text": "Ada met Bob."},
        ),
    ],
)
def test_what_stands_where(settings: dict[str, str], document: dict[str, Any]) -> None:
    assert paths(**settings).document(CHANGE) == document


def test_null_on_the_way_to_the_text_is_no_text_and_what_is_known_stays() -> None:
    deletion = {**CHANGE, "op": "d", "before": CHANGE["after"], "after": None}
    assert paths(text_path="after.body", id_path="before.id").document(deletion) == {"id": "7"}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("after.boby", "kafka.text_path is 'after.boby': 'after' has no 'boby': did you mean 'body'?"),
        ("value", "the value has no 'value'; it has 'op', 'before', 'after', 'ts_ms'"),
        ("after.tags.1.name", "'after.tags' is an array of 1, which has no '1'"),
        ("ts_ms.text", "'ts_ms' is a number, which has no 'text' in it"),
        ("after", "that is an object; it has to be text"),
        ("ts_ms", "that is a number; it has to be text"),
    ],
)
def test_what_is_not_there_is_said(path: str, reason: str) -> None:
    with pytest.raises(MessageError) as caught:
        paths(text_path=path).document(CHANGE)
    assert reason in str(caught.value)
    assert caught.value.code == "schema"


def test_who_it_is_about_is_told_where_the_text_cannot_be() -> None:
    broken = {"after": {"id": "x", "body": 3}, "ts_ms": -1}
    found = paths(text_path="after.body", id_path="after.id", revision_path="ts_ms").identity(broken)
    assert found == {"id": "x"}
    assert paths(text_path="after.body", id_path="after.id").identity(["x"]) == {}


@pytest.mark.parametrize("path", ["", ".", "a..b", "/", "/a//b"])
def test_an_empty_name_is_no_path(path: str) -> None:
    with pytest.raises(ValueError, match="has a name that is empty"):
        KafkaSettings(text_path=path)


def test_other_paths_need_that_of_the_text() -> None:
    with pytest.raises(ValueError, match="id_path has no effect without text_path"):
        KafkaSettings(id_path="id")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=8,
)


@given(JSON, st.lists(st.sampled_from(["a", "b", "0", "1"]), min_size=1, max_size=3))
def test_any_json_has_it_or_says_so(data: Any, steps: list[str]) -> None:
    here = data
    try:
        for step in steps:
            here = None if here is None else here[int(step)] if isinstance(here, list) else here[step]
    except (KeyError, TypeError, IndexError, ValueError):
        with pytest.raises(MessageError, match=r"^kafka\.text_path is "):
            ValuePath.parse("text_path", ".".join(steps)).find(data)
    else:
        assert ValuePath.parse("text_path", ".".join(steps)).find(data) == here


def test_of_several_places_of_an_id_the_first_one_that_has_one_counts() -> None:
    found = paths(text_path="after.body", id_path=("after.id", "before.id"))
    deletion = {**CHANGE, "before": CHANGE["after"], "after": None}
    assert found.document(CHANGE) == {"id": "7", "text": "Ada met Bob."}
    assert found.document(deletion) == {"id": "7"}
    assert found.document({"after": {"body": "t"}}) == {"text": "t"}


def test_a_deletion_that_does_not_say_of_what_is_an_error() -> None:
    with pytest.raises(MessageError, match=r"deletes a document, and kafka\.id_path \(after\.id\) does not say which"):
        paths(text_path="after.body", id_path="after.id").document({**CHANGE, "after": None})
    assert paths(text_path="after.body").document({**CHANGE, "after": None}) == {}


def test_a_revision_is_a_whole_number_however_it_is_written() -> None:
    found = paths(text_path="t", revision_path="r").document({"t": "", "r": 5.0})
    assert [type(found["revision"]), found["revision"]] == [int, 5]
