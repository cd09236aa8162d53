import re
import unicodedata
from collections.abc import Callable, Iterator
from random import Random
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from el4ner.errors import ConfigError
from el4ner.redaction.key_ring import KeyRing
from el4ner.redaction.redaction_settings import RedactionSettings
from el4ner.redaction.redactor import Detection, Redacted, RedactionError, Redactor
from el4ner.redaction.surfaces import SearchedText, SoughtSurfaces, SurfaceMatch
from tests.support.written_forms import FORMS, document

KEYS = KeyRing.parse("first:" + "0f" * 32, "test")
PSEUDONYMS = Redactor(RedactionSettings(), KEYS)
MASKS = Redactor(RedactionSettings(action="mask"), None)

LETTERS = "abdeghijklmoprtuäöéßñøł李小김はαжS"
words = st.text(LETTERS, min_size=2, max_size=9)
names = st.lists(words, min_size=1, max_size=3).map(" ".join)


def of(redactor: Redactor, text: str, *surfaces: str, pool: str | None = None) -> str:
    """The text without what was detected at the first place of each surface."""
    found = [Detection(text.index(surface), text.index(surface) + len(surface), "person") for surface in surfaces]
    return redactor.redact(text, found, pool=pool).text


def left_of(redacted: Redacted) -> list[str]:
    """What stands between the replacements."""
    pieces, place = [], 0
    for replacement in redacted.replacements:
        pieces.append(redacted.text[place : replacement.start])
        place = replacement.end
    return [*pieces, redacted.text[place:]]


def plain(text: str) -> str:
    """Another, simpler folding than the code's own: letters, without marks, escapes read."""
    for _ in range(3):
        text = unquote(text)
    kept = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in kept if not unicodedata.combining(c) and unicodedata.category(c) != "Cf")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["Ada Lovelace", "Jürgen Müller", "Zoë Ōe", "Li Na"])
def test_no_form_of_a_name_is_left(name: str, form: str) -> None:
    text = f"Yesterday {name} came.\nThen {FORMS[form](name)} went."
    redacted = MASKS.redact(text, [Detection(10, 10 + len(name), "person")])
    assert len(redacted.replacements) >= 2, redacted.text
    assert redacted.text.count("[person]") == len(redacted.replacements)
    rest = "".join(plain(piece) for piece in left_of(redacted))
    for word in plain(name).split():
        assert word not in rest, redacted.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Adam Smith", "?name=ADAM%20SMITH"),
        ("Edith Müller", "?q=EDITH+M%C3%9CLLER"),
        ("Fabian Núñez", "user=FABIAN%20N%C3%9A%C3%91EZ"),
        ("Edward Snowden", "<a href='/s?q=EDWARD&nbsp;SNOWDEN'>"),
        ("Robert Müller", r'{"path": "C:\\users\\robert m\u00fcller\\a"}'),
        ("Nadia Müller", r"C:\users\nadia%20m%C3%BCller"),
        ("Nadia Müller", r'{"mail": "x\nNadia M=C3=BCller", "path": "\nadia%20m%C3%BCller?q=NADIA%20M=DCLLER"}'),
        ("Regina Kohl", "a&regina%20kohl"),
        ("Jürgen Müller", r"J\303\274rgen M\303\274ller, J\xfcrgen M&uumlller"),
        ("Ada Lovelace", "&lt;b&gt;Ada&lt;/b&gt; Love&lt;wbr&gt;lace"),
    ],
)
def test_an_escape_near_a_name_hides_it_in_no_reading(name: str, text: str) -> None:
    redacted = of(MASKS, f"{name}. {text}", name)
    rest = plain(redacted.replace("[person]", ""))
    assert not any(word in rest for word in plain(name).split()), redacted
    assert not any(end in rest for end in ("ller", "rgen", "lace")), redacted


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Søren Løkke", "Soeren Loekke, Soren Loekke, SØREN LOKKE"),
        ("Soeren", "Søren, Soren, Sören"),
        ("Håkon", "Haakon, Hakon"),
        ("Haakon Kierkegaard", "Håkon Kierkegaard, Haakon Kierkegård, haakonkierkegard"),
        ("Jürgen Schönfeld", "Juergen Schonfeld, jurgen.schoenfeld, Jürgen Schoenfeld"),
        ("Müller-Schönfeld", "Mueller-Schonfeld, Muller-Schoenfeld"),
        ("محمد", "مـحـمـد, محمدـ"),
        ("Merkel", "M̶e̶r̶k̶e̶l̶, M̸erkel̷"),
    ],
)
def test_spellings_and_marks_make_no_difference(name: str, written: str) -> None:
    redacted = of(MASKS, f"{name}: {written}", name)
    assert redacted == f"[person]: {', '.join(['[person]'] * len(written.split(', ')))}"


def test_a_spelling_that_would_be_another_short_word_is_none() -> None:
    assert of(MASKS, "Haas has it. Aaron, aron", "Haas", "Aaron") == "[person] has it. [person], aron"


def test_each_character_of_a_run_of_escapes_is_removed_for_itself() -> None:
    assert of(MASKS, r"李小 \u6211\u662f\u674e\u5c0f\u4e86", "李小") == r"[person] \u6211\u662f[person]\u4e86"


def test_what_only_looks_like_markup_is_no_form_of_its_surface_without_it() -> None:
    assert of(MASKS, "vector<Ada> is a vector", "vector<Ada>") == "[person] is a vector"


@given(name=names, form=st.sampled_from(sorted(FORMS)), before=words, after=words)
@example(name="李", form="host", before="ab", after="李小")
def test_whatever_the_name_no_form_of_it_is_left(name: str, form: str, before: str, after: str) -> None:
    assume(sum(map(len, name.split())) >= 3)
    text = f"{before} {name}. {FORMS[form](name)} {after}"
    start = len(before) + 1
    redacted = MASKS.redact(text, [Detection(start, start + len(name), "person")])
    second = start + len(name) + 2
    written = FORMS[form](name)
    covered = [r for r in redacted.replacements if second < r.old_end and r.old_start < second + len(written)]
    assert covered, redacted.text


@given(
    text=st.text(), spans=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=5), seed=st.integers()
)
def test_whatever_was_detected(text: str, spans: list[tuple[int, int]], seed: int) -> None:
    found = [Detection(start, start + size, f"type{start % 3}") for start, size in spans if start + size <= len(text)]
    redacted = PSEUDONYMS.redact(text, found)
    # Outside of replacements the text is as it was, at the places that the offsets say.
    place = old = 0
    for replacement in redacted.replacements:
        assert redacted.text[place : replacement.start] == text[old : replacement.old_start]
        assert redacted.text[replacement.start : replacement.end].startswith("[type")
        place, old = replacement.end, replacement.old_end
    assert redacted.text[place:] == text[old:]
    for offset in range(len(redacted.text)):
        inside = any(each.start <= offset < each.end for each in redacted.replacements)
        assert inside or redacted.text[offset] == text[redacted.old_offset(offset)]
    # Every detection is in a replacement.
    for each in found:
        assert any(r.old_start <= each.start and each.end <= r.old_end for r in redacted.replacements)
    # The order in which they come makes no difference.
    shuffled = [*found, *found]
    Random(seed).shuffle(shuffled)
    assert PSEUDONYMS.redact(text, shuffled) == redacted


@given(name=names, text=st.text(LETTERS + " .-\n%2B", max_size=60))
def test_doing_it_again_changes_nothing(name: str, text: str) -> None:
    """What is left has no surface of what was taken out: the same name, detected once more, is found nowhere else."""
    redacted = MASKS.redact(f"{name} {text}", [Detection(0, len(name), "99")])
    for piece in left_of(redacted):
        again = MASKS.redact(f"{name}\n\n\n{piece}", [Detection(0, len(name), "99")])
        beyond = [each for each in again.replacements if each.old_start >= len(name) + 3]
        assert not beyond
    names_of_types = plain("99")
    assume(names_of_types not in plain(name))
    first = MASKS.redact(redacted.text, [])
    assert first.text == redacted.text


def test_a_pseudonym_is_one_for_all_forms_documents_and_processes() -> None:
    first = of(PSEUDONYMS, "Ada Lovelace, ADA LOVELACE", "Ada Lovelace")
    assert re.fullmatch(r"(\[person:[0-9a-f]{16}\]), \1", first)
    other_process = Redactor(RedactionSettings(), KeyRing.parse("first:" + "0f" * 32, "test"))
    assert of(other_process, "ada\nlovelace", "ada\nlovelace") == first.split(", ")[0]


def test_a_short_form_has_the_pseudonym_of_the_one_long_form_that_its_document_has() -> None:
    long = of(PSEUDONYMS, "Angela Merkel", "Angela Merkel")
    both = of(PSEUDONYMS, "Merkel's party, said ANGELA MERKEL.", "Merkel's", "ANGELA MERKEL")
    assert both == f"{long} party, said {long}."
    # Of two long forms nobody knows which is meant.
    two = of(PSEUDONYMS, "Merkel, Max Merkel, Angela Merkel", "Merkel", "Max Merkel", "Angela Merkel").split(", ")
    assert (len(set(two)), two[2]) == (3, long)
    apart = Redactor(RedactionSettings(join_short_forms=False), KEYS)
    assert len(set(of(apart, "Merkel, Angela Merkel", "Merkel", "Angela Merkel").split(", "))) == 2


def test_a_pseudonym_is_another_for_another_name_type_and_key() -> None:
    one = PSEUDONYMS.redact("Ada", [Detection(0, 3, "person")]).text
    assert PSEUDONYMS.redact("Ida", [Detection(0, 3, "person")]).text != one
    assert PSEUDONYMS.redact("Ada", [Detection(0, 3, "city")]).text.split(":")[1] != one.split(":")[1]
    rotated = KeyRing.parse(f"second:{'1e' * 32},first:{'0f' * 32}", "test")
    changed = Redactor(RedactionSettings(), rotated).redact("Ada", [Detection(0, 3, "person")])
    assert (changed.text != one, changed.key_id) == (True, "second")


def test_longer_pseudonyms_begin_with_the_shorter_ones() -> None:
    longer = Redactor(RedactionSettings(pseudonym_digits=32), KEYS)
    assert of(longer, "Ada", "Ada").startswith(of(PSEUDONYMS, "Ada", "Ada")[:-1])


@pytest.mark.parametrize(
    ("surface", "text", "left"),
    [
        ("a", "a cat and A. bat, a's x-a", "[person] cat and [person]. bat, [person]'s x-[person]"),
        ("US", "US: us bus U.S. plus", "[person]: [person] bus [person]. plus"),
        ("Ford", "Ford afford Ford's ford.com Fordist", "[person] afford [person]'s [person].com [person]ist"),
        ("Anna", "Anna, Annas Annalle savanna", "[person], [person]s [person]lle savanna"),
        ("Trump", "Trump trumpet", "[person] [person]et"),
        ("李", "李明和李", "[person]明和[person]"),
        ("—", "a — b — c", "a [person] b — c"),
        ("🦊", "🦊 and 🦊!", "[person] and [person]!"),
        ("4111111111111111", "4111111111111111 or 4111 1111-1111 1111", "[person] or [person]"),
    ],
)
def test_short_and_common_surfaces(surface: str, text: str, left: str) -> None:
    """They cut no other words, and stay nowhere as words of their own."""
    assert of(MASKS, text, surface) == left


@pytest.mark.parametrize(
    ("surface", "text", "left"),
    [
        ("Merkel's", "Merkel's … MERKEL said, MERKEL SAID, Merkel—said", "[p] … [p] said, [p] SAID, [p]—said"),
        ("Merkel’s", "Merkel’s aide. Merkel\nsaid Merkel. Merkels", "[p] aide. [p]\nsaid [p]. [p]"),
        ("Merkel&#39;s", "Merkel&#39;s. MERKEL'S; merkel so", "[p]. [p]; [p] so"),
        ("Merkels", "Merkels MERKEL\nsaid Merkel – so", "[p] MERKEL\nsaid Merkel – so"),
        ("Apple Inc", "Apple Inc. Apple increased; APPLE INC", "[p]. Apple increased; [p]"),
        ("Ford Motor Co", "Ford Motor Co. Ford Motor Company; ford motor company", "[p]. [p]; ford motor company"),
        ("Anna K.", "Anna K. Anna Kowalska, Anna knows", "[p] [p], Anna knows"),
        ("Li N.", "Li N. Li nahm", "[p] Li nahm"),
        ("La Repubblica", "La Repubblica, alla Repubblica", "[p], alla Repubblica"),
        ("Boeing 7", "Boeing 7, Boeing 737", "[p], Boeing 737"),
        ("Angela Kohl", "Angela Kohl's Angela Kohls xAngela Kohl, Angela Kohles", "[p]'s [p]s x[p], [p]es"),
        ("Merkel", "Merkel Merk-\nelin Mer-\nkels", "[p] [p]in [p]s"),
        ("Sandin", "Sandin thousand\ninto", "[p] thousand\ninto"),
        ("علي حسن", "علي حسن وعلي حسن", "[p] و[p]"),
        ("J. Merkel", "J. Merkel mj.merkel@x.org", "[p] m[p]@x.org"),
        ("aab aab", "aab aab aab aabb aab aab", "[p] aab aabb [p]"),
    ],
)  # fmt: skip
def test_a_short_word_of_a_name_cuts_no_other_word(surface: str, text: str, left: str) -> None:
    assert of(MASKS, text, surface).replace("[person]", "[p]") == left


def test_the_end_of_a_direction_around_a_name_stays() -> None:
    text = "Hi \u2068Ada Lovelace\u2069, \u202eAda Lovelace\u202c \u2068ADA LOVELACE\u200b\u2069!"
    assert of(MASKS, text, "Ada Lovelace") == ("Hi \u2068[person]\u2069, \u202e[person]\u202c \u2068[person]\u2069!")


small = "abdeklmnors"


@settings(max_examples=100)
@given(
    whole=st.text(small, min_size=5, max_size=7),
    short=st.text(small, min_size=1, max_size=4),
    kind=st.sampled_from(["{whole} {short}", "{short} {whole}", "{whole}'s", "{whole} {short}'s"]),
    gap=st.sampled_from([" ", "\n", " – ", "—", ", ", "'"]),
    before=st.text(small, max_size=3),
    behind=st.text(small, max_size=3) | st.sampled_from(["", "s", "es"]),
    case=st.sampled_from([str.lower, str.upper, str.title]),
)
def test_no_removal_begins_or_ends_inside_a_word_that_is_not_the_names(
    whole: str, short: str, kind: str, gap: str, before: str, behind: str, case: Callable[[str], str]
) -> None:
    name = kind.format(whole=whole, short=short).title()
    written = re.sub(r"[ ']", gap, kind.format(whole=whole, short=short))
    text = f"{name}. {case(before + written + behind)}"
    redacted = MASKS.redact(text, [Detection(0, len(name), "person")])
    for each in redacted.replacements[1:]:
        piece = text[each.old_start : each.old_end]
        words_of = re.findall("[a-z]+", piece.lower())
        enough = 5 if re.search(r"\s", piece) else 3
        glued = re.search("[a-z]$", text[: each.old_start].lower())
        if glued and len(words_of) > 1 and not text[each.old_start - 1 : each.old_start + 1].istitle():
            assert len(words_of[0]) >= enough, redacted.text
        rest = re.match("[a-z]*", text[each.old_end :].lower())
        if rest is not None and rest[0] not in ("", "s", "es") and len(words_of) > 1:
            assert len(words_of[-1]) >= enough, redacted.text
    if not before and behind in ("", "s", "es"):
        base = re.sub("'s$", "", name)
        rest_of_it = " ".join(left_of(redacted)).lower()
        assert not re.search(r"\W*".join(map(re.escape, base.lower().split())), rest_of_it), redacted.text


def test_a_piece_that_becomes_a_word_by_a_removal_is_removed() -> None:
    assert of(MASKS, "Merkelin Berlin in", "Merkel", "in") == "[person][person] Berl[person]"[:16] + " Berlin [person]"


def test_types_of_which_nothing_is_hidden_stay_unless_they_are_a_removed_name() -> None:
    redactor = Redactor(RedactionSettings(action="mask", types={"city": "keep"}), None)
    text = "Paris Hilton likes Rome and Paris."
    found = [Detection(0, 5, "person"), Detection(19, 23, "city"), Detection(28, 33, "city")]
    redacted = redactor.redact(text, found)
    assert redacted.text == "[person] Hilton likes Rome and [person]."
    assert [(redacted.text[each.start : each.end], each.type) for each in redacted.kept] == [("Rome", "city")]


def test_rules_of_pools_and_types_and_floors() -> None:
    rules = {
        "action": "keep",
        "types": {"person": {"action": "mask", "floor": 0.5}},
        "pools": {"logs": {"person": "keep", "host": "mask"}},
    }
    redactor = Redactor(RedactionSettings.model_validate(rules), None)
    found = [Detection(0, 3, "person", 0.7), Detection(4, 7, "person", 0.4), Detection(8, 10, "host")]
    assert redactor.redact("Ada Bob h1", found, pool="news").text == "[person] Bob h1"
    assert redactor.redact("Ada Bob h1", found, pool="logs").text == "Ada Bob [host]"


def test_an_uncertain_mention_goes_with_a_certain_one() -> None:
    redactor = Redactor(RedactionSettings(action="mask", floor=0.5), None)
    assert redactor.redact("Ada. Ada.", [Detection(0, 3, "p", 0.9), Detection(5, 8, "p", 0.1)]).text == "[p]. [p]."


def test_parts_of_a_name_go_with_it_where_that_is_asked_for() -> None:
    redactor = Redactor(RedactionSettings(action="mask", types={"person": {"action": "mask", "parts": True}}), None)
    assert of(redactor, "Ada Lovelace. Lovelace, Ada; adamant", "Ada Lovelace") == (
        "[person]. [person], [person]; adamant"
    )


@pytest.mark.parametrize(
    ("rules", "of_types", "of_pool"),
    [
        ({"parts": True}, (True, 0.0), (True, 0.0)),
        ({"parts": True, "types": {"person": {"action": "mask", "parts": False}}}, (False, 0.0), (False, 0.0)),
        ({"floor": 0.2, "types": {"person": {"action": "mask", "floor": 0.6}}}, (False, 0.6), (False, 0.6)),
        (
            {"floor": 0.2, "pools": {"news": {"person": {"action": "mask", "floor": 0.6, "parts": True}}}},
            (False, 0.2),
            (True, 0.6),
        ),
    ],
)
def test_what_a_rule_does_not_say_it_takes_from_the_more_general_one(
    rules: dict[str, Any], of_types: tuple[bool, float], of_pool: tuple[bool, float]
) -> None:
    base = {"action": "mask", "types": {"person": "mask"}, "pools": {"news": {"person": "mask"}}}
    settings = RedactionSettings.model_validate(base | rules)
    for pool, expected in ((None, of_types), ("logs", of_types), ("news", of_pool)):
        rule = settings.rule(pool, "person")
        assert (rule.action, rule.parts, rule.floor) == ("mask", *expected)


def test_a_type_cannot_break_out_of_its_brackets() -> None:
    assert MASKS.redact("Ada", [Detection(0, 3, "a]b:c\n")]).text == "[a_b_c_]"


@pytest.mark.parametrize(("start", "end"), [(0, 4), (-1, 2), (2, 2), (5, 9)])
def test_an_entity_outside_of_the_text_is_refused(start: int, end: int) -> None:
    with pytest.raises(RedactionError, match="is not in a text of 3") as caught:
        MASKS.redact("Ada", [Detection(start, end, "person")])
    assert "Ada" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "surfaces", "left"),
    [
        ("Anna " + "ANNA" * 50_000, ["Anna"], "[person] " + "[person]" * 50_000),
        ("Anna Otto " + "ANNAOTTO" * 25_000, ["Anna", "Otto"], "[person] [person] " + "[person]" * 50_000),
        ("Anna x" + "anna" * 50_000, ["Anna"], "[person] x" + "anna" * 50_000),
        ("ab" * 200 + " c" + " ab" * 30_000, ["ab" * 200], "[person] c" + " ab" * 30_000),
        ("Anna. " + "a@b.c " * 20_000 + "Annas " * 9_000, ["Anna"],
         "[person]. " + "a@b.c " * 20_000 + "[person]s " * 9_000),
    ],
    ids=["one word", "two in turn", "inside a word", "long and spaced", "many addresses"],
)  # fmt: skip
def test_long_texts_take_seconds(text: str, surfaces: list[str], left: str) -> None:
    """They took hours: each removal was a pass over all of the text."""
    assert of(MASKS, text, *surfaces) == left


def test_only_what_a_removal_left_is_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []
    find_between = SearchedText.find_between

    def counted(self: SearchedText, start: int, end: int, surfaces: SoughtSurfaces) -> Iterator[SurfaceMatch]:
        searched.append(self.text[start:end])
        return find_between(self, start, end, surfaces)

    monkeypatch.setattr(SearchedText, "find_between", counted)
    assert of(MASKS, "Merkel, in. inmerkelan. " + "Berlin " * 9, "Merkel", "in") == (
        "[person], [person]. [person][person]an. " + "Berlin " * 9
    )
    assert searched == [", ", ". in", "an. " + "Berlin " * 9, ". "]


def test_a_text_that_does_not_come_to_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("el4ner.redaction.redactor._MOST_PASSES", 1)
    with pytest.raises(RedactionError, match="still something left"):
        of(MASKS, "Merkel, in. inmerkel", "Merkel", "in")


def test_pseudonyms_without_a_key_are_refused() -> None:
    with pytest.raises(ConfigError, match="need a key"):
        Redactor(RedactionSettings(), None)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_over_thousands_of_documents_no_form_of_what_was_detected_is_left(count: int) -> None:
    random = Random(17)
    for number in range(count):
        text, planted = document(random)
        found = [Detection(each.start, each.start + len(each.name), "person") for each in planted]
        redacted = MASKS.redact(text, found)
        pieces = left_of(redacted)
        folded = [plain(piece) for piece in pieces]
        for each in planted:
            for form in (each.name, *each.forms):
                assert not any(form in piece for piece in pieces), (number, form)
            joined = re.compile(r"[\W_]*".join(map(re.escape, re.sub(r"[\W_]", "", plain(each.name)))))
            assert not any(joined.search(piece) for piece in folded), (number, each.name, redacted.text)
