"""What tagged documents lead to: published without names, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest

from el4ner.redaction.key_ring import KeyRing
from el4ner.redaction.redaction_settings import RedactionSettings
from el4ner.redaction.redactor import RedactionError, Redactor
from el4ner.redaction.sealed_originals import RevealError, revealed
from workers.messages import json_schemas
from workers.messages.entity_ids import entity_ids, with_entity_ids
from workers.messages.envelope import Outgoing, Record
from workers.messages.headers import find
from workers.redaction.redacted_messages import RedactedMessages, RedactionTeller
from workers.topics import Topic

KEYS = KeyRing.parse(f"new:{'5e' * 32},old:{'0f' * 32}", "test")
TEXT = "Zoë Schröder joined Acme. SCHRÖDER, zoe.schroder@acme.example"
HEADERS = (
    ("ce_id", b"e-1"),
    ("el4ner-position", b"41"),
    ("traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"),
)


def entity(start: int, end: int, kind: str, confidence: float = 0.9) -> dict[str, Any]:
    more = {"proposed_by": ["chunks"], "votes": {}, "verdict": None}
    return {"start": start, "end": end, "text": TEXT[start:end], "type": kind, "confidence": confidence, **more}


def manifests(*, missing: Sequence[str] = ()) -> dict[str, Any]:
    """Of a classification by an ensemble, of which some members were not there."""
    manifest = {
        "mode": "scored",
        "members": {"small": "1" * 64},
        "prompt_version": "p-1",
        "pool": "news",
        "pool_fingerprint": "1" * 64,
        "retriever": "r-1",
    }
    return {"classify": manifest | ({"missing_members": list(missing)} if missing else {})}


def tagged(**changes: Any) -> dict[str, Any]:
    value = {
        "id": "a-1",
        "revision": 3,
        "text": TEXT,
        "pool": "news",
        "status": "complete",
        "entities": [entity(0, 12, "person"), entity(4, 12, "person"), entity(20, 24, "organization", 0.4)],
        "manifests": {},
        "missing": [],
        "error": None,
        "metadata": {"source": "web", "author": "Zoë"},
    }
    return value | changes


def record(value: Mapping[str, Any] | bytes | None, *, key: bytes | None = b"a-1", offset: int = 7) -> Record:
    data = value if value is None or isinstance(value, bytes) else orjson.dumps(value)
    return Record(Topic.TAGGED_DOCUMENTS, "tagged-documents", 2, offset, 1_000, key, data, HEADERS)


def teller(*, originals_exist: bool = False, **settings: Any) -> RedactionTeller:
    return RedactionTeller(
        RedactionSettings.model_validate(settings),
        KEYS,
        originals_exist=originals_exist,
        clock_ms=lambda: 1_700_000_000_000,
        random=lambda size: bytes(range(size)),
    )


def values(told: RedactedMessages, *, without_letter: bool = False) -> dict[Topic | str, Any]:
    messages = [each for each in told.messages if not without_letter or each.topic is not Topic.DEAD_LETTERS]
    return {each.topic: None if each.value is None else orjson.loads(each.value) for each in messages}


def letter_of(told: RedactedMessages) -> Outgoing:
    (letter,) = [each for each in told.messages if each.topic is Topic.DEAD_LETTERS]
    return letter


def test_a_complete_document_is_published_without_its_names() -> None:
    told = teller(types={"organization": "keep"}).tell(record(tagged()))
    (message,) = told.messages
    value = orjson.loads(message.value or b"")
    json_schemas.validate("redacted-documents", value)
    assert (message.key, message.partition, told.withheld, told.error) == (b"a-1", 2, None, None)
    assert (value["id"], value["revision"], value["pool"], value["key"]) == ("a-1", 3, "news", "new")
    for form in ("Zoë", "Schröder", "SCHRÖDER", "schroder", "zoe"):
        assert form not in (message.value or b"").decode()
    assert [each["text"] for each in value["entities"]] == ["Acme"]
    assert "metadata" not in value
    assert find(message.headers, "ce_type") == b"el4ner.redacted-documents.v1"
    assert find(message.headers, "el4ner-position") == b"41"
    assert b"1" * 32 in (find(message.headers, "traceparent") or b"")


def test_no_id_of_a_name_is_published() -> None:
    entities = [entity(0, 12, "person"), entity(26, 34, "person", 0.1), entity(20, 24, "organization")]
    document = tagged(entities=entities)
    removed, *kept = ids = entity_ids(document)
    assert removed == kept[0], "what stays may have the id of the long name that is removed"
    rules = {"organization": "keep", "person": {"action": "pseudonym", "floor": 0.5}}
    (message,) = teller(types=rules).tell(record(with_entity_ids(document, ids))).messages
    value = orjson.loads(message.value or b"")
    assert [each["text"] for each in value["entities"]] == ["Acme", "SCHRÖDER"]
    everything = b"".join([message.value or b"", *(part for _, part in message.headers)])
    assert b"entity_id" not in everything
    assert not [each for each in ids if each.encode() in everything]


def test_metadata_is_passed_on_where_it_is_listed() -> None:
    (value,) = values(teller(metadata=["source", "missing"]).tell(record(tagged()))).values()
    assert value["metadata"] == {"source": "web"}


def test_the_same_message_gives_the_same_id_and_text() -> None:
    first, second = (teller().tell(record(tagged())).messages[0] for _ in range(2))
    assert (first.value, find(first.headers, "ce_id")) == (second.value, find(second.headers, "ce_id"))
    later = teller().tell(record(tagged(), offset=8)).messages[0]
    assert find(later.headers, "ce_id") != find(first.headers, "ce_id")


@pytest.mark.parametrize("status", ["partial", "failed"])
def test_a_document_that_is_not_complete_takes_back_what_was_there(status: str) -> None:
    told = teller(reversible=True).tell(record(tagged(status=status)))
    assert values(told) == {Topic.REDACTED_DOCUMENTS: None, Topic.REDACTED_ORIGINALS: None}
    assert {(each.key, each.partition) for each in told.messages} == {(b"a-1", 2)}
    assert (told.withheld, told.error) == (status, None)


def test_a_document_that_a_member_did_not_answer_is_withheld_as_partial() -> None:
    """The others' answer counts as complete, but the member may have known a name."""
    json_schemas.validate("tagged-documents", tagged(manifests=manifests(missing=["large"])))
    told = teller(reversible=True).tell(record(tagged(manifests=manifests(missing=["large"]))))
    assert values(told) == {Topic.REDACTED_DOCUMENTS: None, Topic.REDACTED_ORIGINALS: None}
    assert (told.withheld, told.error) == ("partial", None)
    assert teller().tell(record(tagged(manifests=manifests()))).withheld is None


def test_a_deletion_reaches_the_original_too() -> None:
    told = teller(reversible=True).tell(record(None))
    assert values(told) == {Topic.REDACTED_DOCUMENTS: None, Topic.REDACTED_ORIGINALS: None}
    assert told.withheld is None
    assert values(teller().tell(record(None))) == {Topic.REDACTED_DOCUMENTS: None}


def test_a_document_that_cannot_be_redacted_is_a_dead_letter_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RedactionError("looking for phone took longer than 10 s")

    monkeypatch.setattr(Redactor, "redact", fails)
    given = record(tagged())
    told = teller(reversible=True).tell(given)
    letter = letter_of(told)
    assert (letter.key, letter.value, letter.headers[: len(HEADERS)]) == (given.key, given.value, HEADERS)
    assert find(letter.headers, "el4ner-stage") == b"redact"
    assert find(letter.headers, "el4ner-error-code") == b"redaction"
    assert values(told, without_letter=True) == {Topic.REDACTED_DOCUMENTS: None, Topic.REDACTED_ORIGINALS: None}
    assert told.withheld == "error"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"not JSON", "json"),
        (b'{"id": "a-1"}', "schema"),
        (orjson.dumps(tagged(text=None)), "schema"),
        (orjson.dumps(tagged(id="another")), "schema"),
        (orjson.dumps(tagged(entities=[{**entity(0, 12, "person"), "end": 999}])), "redaction"),
    ],
)
def test_a_message_that_makes_no_sense_is_not_published(value: bytes, code: str) -> None:
    told = teller().tell(record(value))
    assert find(letter_of(told).headers, "el4ner-error-code") == code.encode()
    assert values(RedactedMessages(told.record, None, told.messages[1:], told.trace)) == {
        Topic.REDACTED_DOCUMENTS: None
    }
    assert "Schröder" not in str(told.error)


def test_a_message_without_a_readable_key_is_a_dead_letter_alone() -> None:
    told = teller().tell(record(tagged(), key=b"\xff"))
    assert [each.topic for each in told.messages] == [Topic.DEAD_LETTERS]


# --- originals ---


def test_the_key_holder_gets_the_original_back_byte_for_byte() -> None:
    given = orjson.dumps(tagged(), option=orjson.OPT_INDENT_2) + b"\n"
    sealed = values(teller(reversible=True).tell(record(given)))[Topic.REDACTED_ORIGINALS]
    json_schemas.validate("redacted-originals", sealed)
    assert sealed["key"] == "new"
    assert "Schr" not in str(sealed)
    assert revealed(sealed, "a-1", KEYS) == given
    # After a rotation, as long as the key is among the others.
    later = KeyRing.parse(f"newest:{'77' * 32},new:{'5e' * 32}", "test")
    assert revealed(sealed, "a-1", later) == given


def test_an_original_does_not_open_elsewhere_or_changed_or_by_another_key() -> None:
    sealed = values(teller(reversible=True).tell(record(tagged())))[Topic.REDACTED_ORIGINALS]
    without, other = KeyRing.parse(f"x:{'5e' * 32}", "test"), KeyRing.parse(f"new:{'aa' * 32}", "test")
    changed = sealed["ciphertext"]
    changed = ("B" if changed[0] == "A" else "A") + changed[1:]
    for message, document, keys, reason in (
        (sealed, "a-2", KEYS, "another document"),
        ({**sealed, "id": "a-2"}, "a-2", KEYS, "was changed"),
        ({**sealed, "revision": 4}, "a-1", KEYS, "was changed"),
        ({**sealed, "ciphertext": changed}, "a-1", KEYS, "was changed"),
        ({**sealed, "ciphertext": "?"}, "a-1", KEYS, "was changed"),
        (sealed, "a-1", without, "key 'new', which is not among x"),
        (sealed, "a-1", other, "another one of that name"),
    ):
        with pytest.raises(RevealError, match=reason) as caught:
            revealed(message, document, keys)
        assert "5e5e" not in str(caught.value)


def test_without_being_asked_for_no_original_is_kept() -> None:
    assert set(values(teller().tell(record(tagged())))) == {Topic.REDACTED_DOCUMENTS}


@pytest.mark.parametrize("value", [None, tagged(status="partial"), b"not JSON", tagged(revision=4)])
def test_once_no_more_originals_are_kept_those_that_are_there_still_go_with_their_documents(value: Any) -> None:
    told = teller(originals_exist=True).tell(record(value))
    found = values(told, without_letter=True)
    assert found.keys() == {Topic.REDACTED_DOCUMENTS, Topic.REDACTED_ORIGINALS}
    assert found[Topic.REDACTED_ORIGINALS] is None
    assert (found[Topic.REDACTED_DOCUMENTS] is not None) == (value == tagged(revision=4))
