import logging
import sys

import pytest

from el4ner.errors import ConfigError
from el4ner.redaction.personal_data import NATIONAL_IDS, PersonalData
from el4ner.redaction.redaction_settings import RedactionSettings
from el4ner.redaction.redactor import RedactionError, Redactor

pytestmark = pytest.mark.slow  # Presidio brings spaCy's code, which takes seconds to load

ALL = ("email", "card", "iban", "phone", "national_id")


@pytest.fixture(scope="module")
def personal_data() -> PersonalData:
    pytest.importorskip("presidio_analyzer")
    return PersonalData(RedactionSettings(action="mask", patterns=ALL))


def found(personal_data: PersonalData, text: str) -> set[tuple[str, str]]:
    return {(each.type, text[each.start : each.end]) for each in personal_data.find(text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail ada.l+news@example.co.uk now", ("email", "ada.l+news@example.co.uk")),
        ("mail ada@intranet.corp now", ("email", "ada@intranet.corp")),
        ("card 4111 1111 1111 1111.", ("card", "4111 1111 1111 1111")),
        ("card 5500-0000-0000-0004.", ("card", "5500-0000-0000-0004")),
        ("to DE89 3704 0044 0532 0130 00 today", ("iban", "DE89 3704 0044 0532 0130 00")),
        ("to DE89370400440532013000 2 days ago", ("iban", "DE89370400440532013000")),
        ("to gb82west12345698765432 today", ("iban", "gb82west12345698765432")),
        ("call +49 30 901820 soon", ("phone", "+49 30 901820")),
        ("call (212) 736-5000 soon", ("phone", "(212) 736-5000")),
        ("PESEL 44051401359.", ("national_id", "44051401359")),
        ("NHS 943 476 5919.", ("national_id", "943 476 5919")),
        ("NIF 12345678Z.", ("national_id", "12345678Z")),
        ("SSN 536-90-4399.", ("national_id", "536-90-4399")),
    ],
)
def test_it_is_found_by_its_form(personal_data: PersonalData, text: str, expected: tuple[str, str]) -> None:
    assert expected in found(personal_data, text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("order 4111 1111 1111 1112", "card"),
        ("DE89 3704 0044 0532 0130 01", "iban"),
        ("NIF 12345678A", "national_id"),
        ("PESEL 44051401358", "national_id"),
        ("call 12345", "phone"),
        ("me at example.org", "email"),
    ],
)
def test_wrong_check_digits_are_none(personal_data: PersonalData, text: str, kind: str) -> None:
    assert kind not in {each.type for each in personal_data.find(text)}


def test_what_is_found_is_redacted_like_any_entity(personal_data: PersonalData) -> None:
    settings = RedactionSettings(action="mask", floor=0.99)
    text = "ada@example.org, 4111 1111 1111 1111; ADA@EXAMPLE.ORG and 4111111111111111"
    redacted = Redactor(settings, None).redact(text, personal_data.find(text))
    assert redacted.text == "[email], [card]; [email] and [card]"


def test_only_what_is_asked_for() -> None:
    pytest.importorskip("presidio_analyzer")
    cards = PersonalData(RedactionSettings(action="mask", patterns=("card",)))
    assert found(cards, "4111 1111 1111 1111 ada@example.org") == {("card", "4111 1111 1111 1111")}
    assert PersonalData(RedactionSettings(action="mask")).find("ada@example.org") == []


def test_presidio_has_every_kind_of_number() -> None:
    presidio = pytest.importorskip("presidio_analyzer.predefined_recognizers")
    assert [name for name in NATIONAL_IDS if not hasattr(presidio, name)] == []


def test_no_network_and_no_text_in_logs(
    personal_data: PersonalData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("nothing has to be asked of anybody"))
    with caplog.at_level(logging.DEBUG):
        personal_data.find("ada@example.org DE89 3704 0044 0532 0130 00 4111 1111 1111 1111 +49 30 901820 GB82ÄÄÄÄ")
    assert not any("ada" in record.getMessage() or "4111" in record.getMessage() for record in caplog.records)


def test_a_pattern_that_takes_too_long_fails_the_document(
    personal_data: PersonalData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr("regex.finditer", slow)
    with pytest.raises(RedactionError, match="took longer"):
        personal_data.find("anything")


def test_without_presidio_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(ConfigError, match=r"pip install 'el4ner\[redact\]'"):
        PersonalData(RedactionSettings(action="mask", patterns=("card",)))
