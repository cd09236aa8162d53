"""Sentences, chunks, mentions, overlaps: offsets are exact whatever the text is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.text.boundaries import MAX_CLUSTER, clusters
from el4ner.text.chunks import COMMON_WEIGHT, PRONOUN_WEIGHT, PROPER_WEIGHT, chunks, span_weight
from el4ner.text.icu import characters
from el4ner.text.mentions import find_mentions
from el4ner.text.segment import segment

TEXTS = st.text(
    alphabet=st.one_of(st.sampled_from("aB é\n.!?,'’-1/:👍İß中"), st.characters(codec="utf-8")), max_size=200
)
KINDS = st.sampled_from(["prose", "log"])


@given(TEXTS, KINDS, st.integers(1, 50))
def test_sentences_hold_every_character_that_is_not_space_exactly_once(text: str, kind: str, limit: int) -> None:
    sentences = segment(text, kind, max_chars=limit)  # type: ignore[arg-type]
    covered = [index for sentence in sentences for index in range(sentence.start, sentence.end)]
    assert len(covered) == len(set(covered))
    assert all(text[index].isspace() for index in set(range(len(text))) - set(covered))
    for sentence in sentences:
        assert text[sentence.start : sentence.end] == sentence.text
        assert sentence.text == sentence.text.strip()
        assert 0 < len(sentence.text) <= limit or len(characters(sentence.text)) == 1
        assert len(sentence.text.encode()) <= limit or len(characters(sentence.text)) == 1
        assert not {sentence.start, sentence.end} & {place for a, b in clusters(text) for place in range(a + 1, b)}


def test_prose_is_segmented_at_sentence_ends_but_not_after_titles() -> None:
    text = "Dr. Okafor 👍 flew to Lagos. She met Mr. Bello.  It rained."
    assert [s.text for s in segment(text)] == ["Dr. Okafor 👍 flew to Lagos.", "She met Mr. Bello.", "It rained."]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("张伟到了。李娜呢？她在上海！好", ["张伟到了。", "李娜呢？", "她在上海！", "好"]),
        ("東京です。京都です。", ["東京です。", "京都です。"]),
        ("राम आया। सीता गई। कब?", ["राम आया।", "सीता गई।", "कब?"]),
        ("هل ذهب علي؟ نعم. هو في بغداد.", ["هل ذهب علي؟", "نعم.", "هو في بغداد."]),
        ("He lives in New\nYork now. Next\n\nOther", ["He lives in New\nYork now.", "Next", "Other"]),
    ],
)
def test_sentences_of_other_scripts_and_over_line_ends(text: str, sentences: list[str]) -> None:
    assert [s.text for s in segment(text)] == sentences


def test_a_sentence_is_never_cut_inside_a_character_whatever_its_length() -> None:
    family = "👨\u200d👩\u200d👧"
    assert [s.text for s in segment(family * 3, max_chars=4)] == [family] * 3
    assert [s.text for s in segment("🇩🇪🇫🇷🇮🇹", max_chars=3)] == ["🇩🇪", "🇫🇷", "🇮🇹"]
    zalgo = "a" + "\u0301" * 100
    pieces = [s.text for s in segment(f"xyz {zalgo}b", max_chars=8)]
    # An overlong character is cut, so that time is bounded; each piece but the last still looks like one.
    assert "".join(pieces) == f"xyz{zalgo}b"
    assert [len(piece) for piece in pieces[1:-1]] == [MAX_CLUSTER + 1] * 3


def test_a_long_sentence_without_spaces_is_split_behind_punctuation() -> None:
    text = "张伟到了北京，李娜到了上海，王芳到了广州，赵敏到了深圳"
    assert [s.text for s in segment(text, max_chars=50)] == [
        "张伟到了北京，李娜到了上海，",
        "王芳到了广州，赵敏到了深圳",
    ]


def test_a_log_line_is_one_sentence_whatever_dots_it_has() -> None:
    text = "10:00:01 db-1 sshd[1]: Failed. Retry.\r\n10:00:02 db-1 cron: done\n"
    assert [s.text for s in segment(text, "log")] == [
        "10:00:01 db-1 sshd[1]: Failed. Retry.",
        "10:00:02 db-1 cron: done",
    ]


def test_a_long_sentence_is_split_at_white_space_and_a_long_word_inside() -> None:
    assert [s.text for s in segment("aaaa bbbb cccccccccccc", "log", max_chars=9)] == ["aaaa bbbb", "ccccccccc", "ccc"]


@given(TEXTS, KINDS)
def test_chunks_are_substrings_and_each_span_stands_once(text: str, kind: str) -> None:
    found = [chunk.span for chunk in chunks(text, kind)]  # type: ignore[arg-type]
    assert len({(span.start, span.end) for span in found}) == len(found)
    for span in found:
        assert span.text == text[span.start : span.end]
        assert span.text.strip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He met Sonia Gandhi in New York.", {"Sonia Gandhi", "New York"}),
        ("The Bank of England's governor", {"Bank of England", "England"}),
        ("President Barack Obama spoke", {"President Barack Obama", "Barack Obama"}),
        ("the Serbian People's Party won", {"Serbian People's Party"}),
        ("Slade Gorton and Al Gore left", {"Slade Gorton", "Al Gore"}),
        ("it is used for speech recognition", {"speech recognition"}),
    ],
)
def test_prose_chunks_hold_the_names(text: str, expected: set[str]) -> None:
    assert expected <= {chunk.span.text for chunk in chunks(text)}


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            r"Open C:\Old files. New ones\list.txt today. Then go.",
            [r"Open C:\Old files. New ones\list.txt today.", "Then go."],
        ),
        (r"He typed \n there. Then he left.", [r"He typed \n there.", "Then he left."]),
        ("See https://example.org/x.Then go. Fine.", ["See https://example.org/x.Then go.", "Fine."]),
    ],
)
def test_no_sentence_ends_in_an_address_or_a_path(text: str, sentences: list[str]) -> None:
    assert [sentence.text for sentence in segment(text)] == sentences


def test_log_chunks_hold_hosts_addresses_paths_and_users() -> None:
    line = 'web-3 sshd[24200]: Failed for root from 192.0.2.7 port 22: user=bob@db.example.com file="/var/log/a.log"'
    expected = {"web-3", "sshd", "root", "192.0.2.7", "bob", "db.example.com", "/var/log/a.log"}
    assert expected <= {chunk.span.text for chunk in chunks(line, "log")}


def test_function_words_alone_are_no_chunk() -> None:
    assert [chunk.span.text for chunk in chunks("It was there before them.")] == []


def test_span_weights_favour_proper_nouns_over_nouns_over_pronouns() -> None:
    assert span_weight("Ada Lovelace") == PROPER_WEIGHT
    assert span_weight("the engine") == COMMON_WEIGHT
    assert span_weight("they") == PRONOUN_WEIGHT


@given(TEXTS, st.data())
def test_every_mention_of_a_surface_is_found_with_its_own_text(text: str, data: st.DataObject) -> None:
    if not text.strip():
        return
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    for span in find_mentions(text[start:end], text):
        assert text[span.start : span.end] == span.text


@pytest.mark.parametrize(
    ("surface", "text", "expected"),
    [
        ("Iran", "Iranian talks with Iran", [(19, 23)]),
        ("iran", "Iran and Iran", [(0, 4), (9, 13)]),
        ('"Iran"', "Iran", [(0, 4)]),
        ("U.S.", "the U.S. Senate", [(4, 8)]),
        ("Paris", "London", []),
        ("", "London", []),
        ("istanbul", "İİ Istanbul", [(3, 11)]),
        ("Andre", "Andre\u0301 met Andre", [(11, 16)]),
        ("André", "Andre\u0301 met andre", [(0, 6)]),
        ("New York", "New\u00a0York, New\n  York, New\tYork, New\n\nYork", [(0, 8), (10, 20)]),
        ("Lena Orf\tKiel", "Lena Orf\tKiel", []),
        ("A B C", "A\nB\nC and A\nB C", [(10, 15)]),
        ("上海", "iPhone在上海发布", [(7, 9)]),
        ("王小明", "昨天王小明去了", [(2, 5)]),
        ("ใจ", "ใจดี กำ", [(0, 2)]),
        ("ก", "กำ", []),
    ],
)
def test_mentions(surface: str, text: str, expected: list[tuple[int, int]]) -> None:
    assert [(span.start, span.end) for span in find_mentions(surface, text)] == expected
