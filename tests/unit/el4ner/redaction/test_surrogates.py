"""Made-up values in the place of names: the same for the same name, sane where they stand, and nothing of the name."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import el4ner.redaction.redactor as redactor_module
from el4ner.errors import ConfigError
from el4ner.redaction.key_ring import KeyRing
from el4ner.redaction.redaction_settings import RedactionSettings
from el4ner.redaction.redactor import Detection, Redacted, Redactor
from tests.support.written_forms import document
from tests.unit.el4ner.redaction.test_redactor import LETTERS, left_of, names, plain

faker = pytest.importorskip("faker")

KEYS = KeyRing.parse("first:" + "0f" * 32, "test")
SURROGATES = Redactor(RedactionSettings(action="surrogate"), KEYS)


def redacted(text: str, *found: tuple[str, str], redactor: Redactor = SURROGATES) -> Redacted:
    """What comes out of a text in which each surface was detected at its first place, as of a type."""
    places = [(text.index(surface), surface, kind) for surface, kind in found]
    return redactor.redact(text, [Detection(start, start + len(surface), kind) for start, surface, kind in places])


def of(text: str, *surfaces: str, redactor: Redactor = SURROGATES) -> str:
    """The text without the people of these names."""
    return redacted(text, *((surface, "person") for surface in surfaces), redactor=redactor).text


def made_up(surface: str, kind: str, redactor: Redactor = SURROGATES) -> str:
    """What stands in the place of it when there is nothing else."""
    return redacted(surface, (surface, kind), redactor=redactor).text


# --- one name, one value ---


@pytest.mark.parametrize(
    ("locale", "kind", "surface", "value"),
    [
        ("en_US", "person", "Angela Merkel", "Tiffany Mosley"),
        ("en_US", "organization", "Apple Inc", "Richards and Sons"),
        ("en_US", "location", "Berlin", "East Erica"),
        ("en_US", "email", "ada@x.org", "fernando.avila446@example.org"),
        ("de_DE", "person", "Angela Merkel", "Maya Stoll"),
        ("ja_JP", "person", "Angela Merkel", "太田 真綾"),
        ("hu_HU", "location", "Bonn", "Nagykeresztberény"),
    ],
)
def test_these_are_the_values_of_the_locked_version_of_faker(locale: str, kind: str, surface: str, value: str) -> None:
    """If a new version of Faker makes others, CHANGELOG.md has to say so: published texts then differ from new ones."""
    redactor = Redactor(RedactionSettings(action="surrogate", surrogate_locale=locale), KEYS)
    assert made_up(surface, kind, redactor) == value


def test_another_process_makes_the_same() -> None:
    code = (
        "import json, sys\n"
        "from tests.unit.el4ner.redaction.test_surrogates import made_up\n"
        "print(json.dumps([made_up(*each) for each in json.loads(sys.argv[1])]))"
    )
    asked = [["Ada Lovelace", "person"], ["Bank of York", "organization"], ["York", "location"], ["ada", "user"]]
    told = subprocess.run(
        [sys.executable, "-c", code, json.dumps(asked)],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert json.loads(told.stdout) == [made_up(surface, kind) for surface, kind in asked]


def test_what_was_asked_before_makes_no_difference() -> None:
    people = [f"Ada {letter}ovelace" for letter in "BCDFGHJKLMNP"]
    first = {name: made_up(name, "person") for name in people}
    fresh = Redactor(RedactionSettings(action="surrogate"), KEYS)
    assert {name: made_up(name, "person", fresh) for name in reversed(people)} == first
    assert len(set(first.values())) == len(people)


def test_another_key_makes_others_and_is_named() -> None:
    rotated = Redactor(
        RedactionSettings(action="surrogate"), KeyRing.parse(f"new:{'1e' * 32},first:{'0f' * 32}", "test")
    )
    result = redacted("Ada Lovelace", ("Ada Lovelace", "person"), redactor=rotated)
    assert (result.key_id, result.text != of("Ada Lovelace", "Ada Lovelace")) == ("new", True)


def test_all_forms_of_a_name_have_one_value() -> None:
    text = "Ada Lovelace; ADA LOVELACE; ada\u200b lovelace; Lovelace, Ada King; Ada Lovelace's"
    assert of(text, "Ada Lovelace").replace("ADA", "Ada") == (
        "Yolanda Khan; YOLANDA KHAN; yolanda khan; Lovelace, Ada King; Yolanda Khan's"
    )


# --- where it stands ---


def test_a_short_form_has_the_short_form_of_the_value() -> None:
    text = "Angela Merkel spoke. Merkel left, Angela's aide said. MERKEL!"
    assert of(text, "Angela Merkel", "Merkel", "Angela's") == (
        "Tiffany Mosley spoke. Mosley left, Tiffany's aide said. MOSLEY!"
    )
    # Of a document that has the last name alone the rest is not known: it is another name, and still one word.
    assert re.fullmatch(r"[A-Z][a-z]+ spoke\.", of("Merkel spoke.", "Merkel"))


def test_a_genitive_alone_is_the_name_with_its_ending() -> None:
    text = of("Merkel's aide. MERKEL said Merkels. MERKEL'S", "Merkel's")
    last = text.split("'s aide")[0]
    assert re.fullmatch("[A-Z][a-z]+", last)
    assert text == f"{last}'s aide. {last.upper()} said {last}. {last.upper()}'S"


def test_parts_of_a_name_are_parts_of_the_value() -> None:
    parts = Redactor(RedactionSettings(action="surrogate", parts=True), KEYS)
    assert of("Ada Lovelace. Lovelace, Ada; adamant", "Ada Lovelace", redactor=parts) == (
        "Yolanda Khan. Khan, Yolanda; adamant"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("angela.merkel@bund.example", "tiffany.mosley@bund.example"),
        ("https://www.angelamerkel.example/a?b=1", "https://www.tiffanymosley.example/a?b=1"),
        ("https://x.example/Angela%20Merkel/", "https://x.example/Tiffany%20Mosley/"),
        ("/s?q=Angela+Merkel&l=de", "/s?q=Tiffany+Mosley&l=de"),
        (r"C:\files\angela-merkel.pdf", r"C:\files\tiffany-mosley.pdf"),
        ("AngelaMerkel_1.txt", "TiffanyMosley_1.txt"),
        ("#AngelaMerkel", "#TiffanyMosley"),
    ],
)
@pytest.mark.parametrize("locale", ["en_US", "ja_JP"])
def test_in_an_address_it_is_a_word_of_ascii_letters(locale: str, before: str, after: str) -> None:
    redactor = Redactor(RedactionSettings(action="surrogate", surrogate_locale=locale), KEYS)
    assert of(f"Angela Merkel: {before}", "Angela Merkel", redactor=redactor).split(": ", 1)[1] == after


@pytest.mark.parametrize("locale", ["en_US", "fr_FR", "ru_RU", "hi_IN"])
def test_json_stays_json_and_rows_stay_rows(locale: str) -> None:
    redactor = Redactor(RedactionSettings(action="surrogate", surrogate_locale=locale), KEYS)
    for number in range(40):
        company = f"Zyx {number} Works"
        text = json.dumps({"name": company, "row": f"1,{company},2"})
        told = json.loads(redacted(text, (company, "organization"), redactor=redactor).text)
        assert company not in told["name"]
        assert (len(told["row"].split(",")), set("\"'<>&;") & set(told["name"])) == (3, set())


def test_offsets_are_those_of_the_new_text() -> None:
    text = "Ada Lovelace of Acme met Bob in Rome."
    redactor = Redactor(RedactionSettings(action="surrogate", types={"city": "keep", "org": "mask"}), KEYS)
    result = redacted(
        text, ("Ada Lovelace", "person"), ("Acme", "org"), ("Bob", "alias"), ("Rome", "city"), redactor=redactor
    )
    written = [(result.text[each.start : each.end], each.action) for each in result.replacements]
    assert written[:2] == [("Yolanda Khan", "surrogate"), ("[org]", "mask")]
    # Of a type for which nothing can be made up there is the pseudonym, and it says so.
    assert re.fullmatch(r"\[alias:[0-9a-f]{16}\]", written[2][0])
    assert written[2][1] == "pseudonym"
    assert [result.text[each.start : each.end] for each in result.kept] == ["Rome"]
    assert [text[each.old_start : each.old_end] for each in result.replacements] == ["Ada Lovelace", "Acme", "Bob"]


# --- values that nobody has ---


def test_cards_and_accounts_have_right_check_digits_and_are_nobodys() -> None:
    for number in range(50):
        card = made_up(f"411111111111{number:04}", "card")
        digits = [int(digit) for digit in card]
        doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
        assert (len(card), card[:4], (sum(digits[-1::-2]) + sum(doubled)) % 10) == (16, "9999", 0)
        account = made_up(f"DE8937040044053201{number:04}", "iban")
        assert account[:2] == "ZZ"
        assert int("".join(str(int(each, 36)) for each in account[4:] + account[:4])) % 97 == 1
    assert re.fullmatch(r"(\d{4} ){3}\d{4}", made_up("4111 1111 1111 1111", "card"))


def test_telephones_and_addresses_are_kept_for_fiction() -> None:
    phonenumbers = pytest.importorskip("phonenumbers")
    for number in range(50):
        phone = made_up(f"+49 30 1234{number:03}", "phone")
        assert re.fullmatch(r"\+1-\d{3}-555-01\d\d", phone)
        assert phonenumbers.is_valid_number(phonenumbers.parse(phone))
        assert re.fullmatch(r"[a-z]+\.[a-z]+\d{3}@example\.org", made_up(f"ada{number}@x.com", "email"))
        assert re.fullmatch(r"198\.1[89]\.\d{1,3}\.\d{1,3}", made_up(f"10.0.0.{number}", "ip-address"))
        assert re.fullmatch(r"2001:db8(:[0-9a-f]{1,4}){6}", made_up(f"fe80::{number}:a", "IP address"))
        assert re.fullmatch(r"02(:[0-9a-f]{2}){5}", made_up(f"aa:bb:cc:dd:ee:{number:02}", "mac-address"))


# --- nothing of the name ---


def test_a_value_that_another_removed_name_of_the_document_has_is_not_taken() -> None:
    first = made_up("Angela Merkel", "person")
    assert first == "Tiffany Mosley"
    for other in ("Tiffany Mosley", "Mosley", "MOSLEY", "tiffany"):
        text = of(f"Angela Merkel met {other}.", "Angela Merkel", other)
        assert other.lower() not in text.lower()


def test_many_names_that_clash_do_not_make_many_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = 0

    def counted(*found: Any) -> set[int]:
        nonlocal passes
        passes += 1
        return clashing(*found)

    clashing = redactor_module._clashing
    monkeypatch.setattr(redactor_module, "_clashing", counted)
    # Each of these is called as the one before would be.
    people = ["Angela Merkel"]
    for _ in range(9):
        people.append(made_up(people[-1], "person"))
    passes = 0
    text = of(". ".join(people), *people)
    assert (passes, [name for name in people if name in text]) == (1, [])


def test_a_value_that_makes_a_name_with_what_stands_beside_it_is_not_taken() -> None:
    # Tiffany Mosley and what follows would be Mosleyaner.
    text = "Mosleyaner. Angela Merkelaner"
    assert "mosleyaner" not in of(text, "Mosleyaner", "Angela Merkel").lower()


def test_where_every_value_clashes_the_pseudonym_is_written() -> None:
    text = "example.org ada@x.com"
    result = redacted(text, ("example.org", "host"), ("ada@x.com", "email"))
    assert re.fullmatch(r"host-[0-9a-f]{8} \[email:[0-9a-f]{16}\]", result.text)


def clean(result: Redacted, surfaces: Sequence[str], *, spaced: bool = False) -> bool:
    """Whether no surface is in the new text, wherever it came from, by another folding than the code's own.

    ``spaced``: nor is it with something between any two of its letters.
    """
    text = plain(re.sub(r"\[person:[0-9a-f]{16}\]", "[]", result.text))
    for surface in surfaces:
        pieces = re.sub(r"[\W_]", "", plain(surface)) if spaced else re.findall(r"[^\W_]+", plain(surface))
        if re.search(r"[\W_]*".join(map(re.escape, pieces)), text):
            return False
    return True


long_names = names.filter(lambda name: len(re.sub(r"[\W_]", "", plain(name))) > 4)


@given(people=st.lists(long_names, min_size=1, max_size=4), text=st.text(LETTERS + " .-\n", max_size=30))
def test_whatever_the_names_none_of_them_is_in_the_new_text(people: list[str], text: str) -> None:
    whole = "\n\n".join([*people, text])
    starts = [sum(len(name) + 2 for name in people[:number]) for number in range(len(people))]
    found = [Detection(start, start + len(name), "person") for start, name in zip(starts, people, strict=True)]
    result = SURROGATES.redact(whole, found)
    assert clean(result, people), result.text
    assert result == SURROGATES.redact(whole, reversed(found))


def check_documents(count: int) -> None:
    random = Random(17)
    actions: dict[str, int] = {}
    for number in range(count):
        text, planted = document(random)
        found = [Detection(each.start, each.start + len(each.name), "person") for each in planted]
        result = SURROGATES.redact(text, found)
        for each in result.replacements:
            actions[each.action] = actions.get(each.action, 0) + 1
        for each in planted:
            for form in (each.name, *each.forms):
                assert not any(form in piece for piece in left_of(result)), (number, form)
            assert clean(result, [each.name], spaced=True), (number, each.name, result.text)
    assert actions["surrogate"] > 0.99 * sum(actions.values())


def test_over_some_documents_no_form_of_what_was_detected_is_left() -> None:
    check_documents(200)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_over_thousands_of_documents_no_form_of_what_was_detected_is_left(count: int) -> None:
    check_documents(count)


def test_long_texts_take_seconds() -> None:
    text = of("Anna Otto " + "ANNAOTTO" * 10_000, "Anna", "Otto")
    assert not re.search("anna|otto", text, re.IGNORECASE)


# --- what is missing or misspelt ---


def test_a_locale_that_faker_does_not_know_is_told() -> None:
    with pytest.raises(ConfigError, match=r"surrogate_locale.*'de_DD'.*nearest: 'de_DE'"):
        Redactor(RedactionSettings(action="surrogate", surrogate_locale="de_DD"), KEYS)


def test_without_faker_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faker", None)
    Redactor(RedactionSettings(), KEYS)
    with pytest.raises(ConfigError, match=r"pip install 'el4ner\[redact\]'"):
        Redactor(RedactionSettings(types={"person": {"action": "surrogate"}}), KEYS)  # type: ignore[dict-item]


def test_surrogates_take_a_key_and_masks_in_their_place_do_not() -> None:
    settings = RedactionSettings(action="mask", pools={"news": {"person": {"action": "surrogate"}}})  # type: ignore[dict-item]
    assert settings.needs_keys
    with pytest.raises(ConfigError, match="need a key"):
        Redactor(settings, None)
    assert not settings.masked().needs_keys
    assert not settings.masked().has_surrogates


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.filterwarnings("ignore:fr_QC locale is deprecated:UserWarning")
def test_every_locale_makes_the_same_in_every_process() -> None:
    code = (
        "import hashlib, sys\n"
        "from faker.config import AVAILABLE_LOCALES\n"
        "from tests.unit.el4ner.redaction.test_surrogates import KEYS, Redactor, RedactionSettings, made_up\n"
        "for locale in sorted(AVAILABLE_LOCALES):\n"
        "    redactor = Redactor(RedactionSettings(action='surrogate', surrogate_locale=locale), KEYS)\n"
        "    values = [made_up(f'Zyxw{n}', kind, redactor) for n in range(15) for kind in ('person', 'org', 'city')]\n"
        "    print(locale, hashlib.sha256(repr(values).encode()).hexdigest())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1
