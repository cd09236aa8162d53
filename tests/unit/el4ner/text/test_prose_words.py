"""What a word of prose is, by Unicode's rules."""

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from el4ner.text.boundaries import MAX_CLUSTER, boundaries
from el4ner.text.chunks import chunks
from el4ner.text.icu import characters
from el4ner.text.prose_words import word_surfaces

LETTERS = st.sampled_from(
    "aA1é\u0301\u0308\u0323नम\u094d\u093e\u0902अא\u05b8ب\u064e가각ᄒ\u1161中กำ\u0e48\u200c\u200d\u00ad'.- \n😀🏽🇩🇪"
)
TEXTS = st.text(st.one_of(LETTERS, st.characters(codec="utf-8")), max_size=60)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Andre\u0301 Morvan of Malmo\u0308", ["Andre\u0301", "Morvan", "of", "Malmo\u0308"]),
        ("Nguye\u0302\u0303n Va\u0306n Ho\u0300a", ["Nguye\u0302\u0303n", "Va\u0306n", "Ho\u0300a"]),
        ("नरेन्द्र मोदी ने क्\u200dष कहा", ["नरेन्द्र", "मोदी", "ने", "क्\u200dष", "कहा"]),
        ("বাংলাদেশের ঢাকা, தமிழ்நாடு", ["বাংলাদেশের", "ঢাকা", "தமிழ்நாடு"]),
        ("מְדִינַת יִשְׂרָאֵל, צה\u05f4ל, תל\u05beאביב", ["מְדִינַת", "יִשְׂרָאֵל", "צה\u05f4ל", "תל\u05beאביב"]),
        ("مُحَمَّدٌ في القَاهِرَة", ["مُحَمَّدٌ", "في", "القَاهِرَة"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("New\u00adcastle Berlin\u200e.", ["New\u00adcastle", "Berlin"]),
        ("col·laborar", ["col·laborar"]),
        ("iPhone在上海发布", ["iPhone", "在", "上海", "发布"]),
        ("สมชายไปกรุงเทพ", ["สมชาย", "ไป", "กรุงเทพ"]),
        ("กำ :ำ กำลัง", ["กำ", "กำลัง"]),
        ("ジョン・スミスが東京タワーで", ["ジョン", "スミス", "が", "東京タワー", "で"]),
        ("서울에서 만난 김민준", ["서울에서", "만난", "김민준"]),
        ("О. Бендер, É. Zola, E\u0301. Zola", ["О.", "Бендер", "É.", "Zola", "E\u0301.", "Zola"]),
        ("𝒜𠮷野家", ["𝒜", "𠮷", "野家"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert word_surfaces(text) == words


@settings(deadline=None)
@given(TEXTS, st.sampled_from(["NFC", "NFD"]))
def test_how_marks_are_written_makes_no_difference(text: str, form: str) -> None:
    normal = unicodedata.normalize("NFC", text)
    written = unicodedata.normalize(form, normal)  # type: ignore[arg-type]
    assert [unicodedata.normalize("NFC", word) for word in word_surfaces(written)] == word_surfaces(normal)


@settings(deadline=None)
@given(TEXTS, st.sampled_from(["prose", "log"]))
@example(":ำ", "prose")
@example("xຳ", "prose")
@example("且ำ", "prose")
@example("؂テ", "prose")
@example("\u0600\u0601\u0602a", "prose")
def test_no_word_and_no_proposal_cuts_a_character_in_two(text: str, kind: str) -> None:
    edges = {0, *(end for _, end in characters(text))}
    at = 0
    for word in word_surfaces(text):
        at = text.index(word, at)
        assert {at, at + len(word)} <= edges
        at += len(word)
    if kind == "prose":
        for chunk in chunks(text):
            assert {chunk.span.start, chunk.span.end} <= edges


def test_a_character_of_more_marks_than_unicode_allows_is_no_text() -> None:
    zalgo = "a" + "\u0301" * MAX_CLUSTER
    assert word_surfaces(f"{zalgo} {zalgo[:-1]}") == [zalgo[:-1]]
    assert not boundaries(f"see {zalgo} there").allow(0, len(zalgo) + 4)
