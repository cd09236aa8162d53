"""CoNLL columns as pools have them in the wild: how tokens become a text, comments, CoNLL-U, tokens without a mark."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.errors import PoolError
from el4ner.pools import Pool, Reading, load_pool
from el4ner.pools.joining import aligned, join_of, join_tokens
from el4ner.pools.readers import tag_spans


def write(folder: Path, text: str, name: str = "a.conll") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def columns(text: str, *entities: str, label: str = "X") -> str:
    """Space-separated tokens as lines; those of ``entities`` are labelled."""
    inside = {token: "B" if index == 0 else "I" for name in entities for index, token in enumerate(name.split())}
    return "".join(f"{t}\t{f'{inside[t]}-{label}' if t in inside else 'O'}\n" for t in text.split(" ")) + "\n"


def texts(pool: Pool) -> list[str]:
    return [sentence.text for sentence in pool.sentences]


def entities(pool: Pool) -> list[str]:
    return [span.text for sentence in pool.sentences for span, _ in sentence.spans]


@pytest.mark.parametrize(
    ("tokens", "entity", "text"),
    [
        ("我 在 北 京 大 学 。", "北 京 大 学", "我在北京大学。"),
        ("他 说 ： “ 去 上 海 ！ ”", "上 海", "他说：“去上海！”"),
        ("我 们 用 i P h o n e 1 2 ， 好", "i P h o n e", "我们用iPhone12，好"),
        ("我 用 iPhone 在 北 京", "北 京", "我用 iPhone 在北京"),
        ("北京 在 2021 年 （ 第 3 次 ）", "北京", "北京在2021年（第3次）"),
        ("東京 は 大きい です 。", "東京", "東京は大きいです。"),
        ("ラーメン ・ 東京 へ", "東京", "ラーメン・東京へ"),
        ("แมรี่ ไป กรุงเทพ", "กรุงเทพ", "แมรี่ไปกรุงเทพ"),
        ("서울 에서 만났다 .", "서울", "서울 에서 만났다."),
        ("नई दिल्ली में", "नई दिल्ली", "नई दिल्ली में"),
        ("Ann lives in Rome .", "Ann", "Ann lives in Rome."),
        ("Ann liebt Köln ， sehr", "Köln", "Ann liebt Köln，sehr"),
    ],
)
def test_tokens_are_joined_as_their_script_is_written(tmp_path: Path, tokens: str, entity: str, text: str) -> None:
    pool = load_pool(write(tmp_path, columns(tokens, entity)))
    assert texts(pool) == [text]
    (span, _) = pool.sentences[0].spans[0]
    assert text[span.start : span.end] == span.text


def test_chinese_in_characters_makes_whole_names(tmp_path: Path) -> None:
    path = write(tmp_path, columns("我 在 北 京", "北 京") + columns("A I 公 司", "A I 公 司"))
    pool = load_pool(path)
    assert (texts(pool), entities(pool)) == (["我在北京", "AI公司"], ["北京", "AI公司"])
    assert texts(load_pool(path, reading=Reading(join="space"))) == ["我 在 北 京", "A I 公 司"]
    assert texts(load_pool(write(tmp_path, columns("Ann ran", "Ann")), reading=Reading(join="none"))) == ["Annran"]


def test_how_tokens_are_joined_may_stand_in_the_pool_toml(tmp_path: Path) -> None:
    write(tmp_path, 'join = "space"\n[types]\nX = "x"\n', "pool.toml")
    write(tmp_path, columns("我 在", "我"))
    assert texts(load_pool(tmp_path, reading=Reading(join="none"))) == ["我 在"]
    write(tmp_path, 'join = "spaces"\n[types]\nX = "x"\n', "pool.toml")
    with pytest.raises(PoolError, match="join is 'script' or 'space' or 'none', not 'spaces'"):
        load_pool(tmp_path)


def test_spaces_may_be_tokens_where_nothing_else_says_where_they_are(tmp_path: Path) -> None:
    path = write(tmp_path, "서\tB-X\n울\tI-X\n \tO\n역\tO\n")
    assert texts(load_pool(path, reading=Reading(join="none"))) == ["서울 역"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ann\tB-X\tSpaceAfter=No\n's\tO\t_\nhat\tO\tSpaceAfter=No\n.\tO\t_\n", "Ann's hat."),
        ("# sent_id = 7\n# text = Ann , who ran\nAnn\tB-X\n,\tO\nwho\tO\nran\tO\n", "Ann , who ran"),
        ("# text = another sentence\nAnn\tB-X\n,\tO\nwho\tO\n", "Ann, who"),
        ("# id 4391 domain=en\nAnn _ _ B-X\nran _ _ O\n", "Ann ran"),
        ("# O\n1 O\nAnn B-X\n", "#1 Ann"),
        ("#\tO\nAnn\tB-X\n", "#Ann"),
        ("-DOCSTART- -X- -X- O\n\nAnn NNP B-NP B-X\nran VBD B-VP O\n", "Ann ran"),
        ("1\tAnn\t_\tPROPN\t_\t_\t0\troot\t_\tNER=B-X|SpaceAfter=No\n2\t!\t_\tX\t_\t_\t1\tp\t_\tNER=O\n", "Ann!"),
        (
            "1\tAnn\t_\t_\t_\t_\t_\t_\t_\tNER=B-X\n2-3\tdel\t_\t_\t_\t_\t_\t_\t_\t_\n2\tde\t_\t_\t_\t_\t_\t_\t_\tNER=O\n"
            "3\tel\t_\t_\t_\t_\t_\t_\t_\tNER=O\n3.1\t_\t_\t_\t_\t_\t_\t_\t_\t_\n4\tRey\t_\t_\t_\t_\t_\t_\t_\tNER=O\n",
            "Ann del Rey",
        ),
        ("# global.columns = ID FORM NER MISC\n1\tAnn\tB-X\tSpaceAfter=No\n2\t.\tO\t_\n", "Ann."),
    ],
)
def test_comments_and_columns_say_how_a_sentence_was_written(tmp_path: Path, text: str, expected: str) -> None:
    pool = load_pool(write(tmp_path, text))
    assert (texts(pool), entities(pool)) == ([expected], ["Ann"])


def test_conllu_without_entities_is_named(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"a\.conllu:1: has no tag: CoNLL-U needs NER=B-person"):
        load_pool(write(tmp_path, "1\tAnn\t_\t_\t_\t_\t_\t_\t_\t_\n", "a.conllu"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("\u00a0\tO", r"nothing to see: it is U\+00A0 \(NO-BREAK SPACE\)"),
        ("\u00a0 O", r"nothing to see: it is U\+00A0 \(NO-BREAK SPACE\)"),
        ("\tO", "nothing to see: it is empty"),
        (" O", "nothing to see: it is empty"),
        ("\u200b\tO", r"U\+200B \(ZERO WIDTH SPACE\)"),
        ("\u200d\u200b\tB-X", r"U\+200D \(ZERO WIDTH JOINER\) U\+200B"),
        ("\x07\tO", r"U\+0007"),
        ("a\x1b[1m\tO", r"'a\\x1b\[1m' has a control character: U\+001B"),
        ("\x1b[1m", r"not '\\x1b\[1m'"),
    ],
)
def test_a_token_that_nobody_can_see_is_shown_and_may_be_left_out(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, f"Ann\tB-X\n\nso\tO\n{line}\nBo\tB-X\n\nCy\tB-X\n")
    with pytest.raises(PoolError, match=message) as raised:
        load_pool(path)
    assert f"{path}:4: " in str(raised.value)
    assert "--on-error skip" in str(raised.value)
    assert "\x1b" not in str(raised.value)
    pool = load_pool(path, reading=Reading(on_error="skip"))
    assert entities(pool) == ["Ann", "Cy"]
    assert [out.where for out in pool.left_out] == [f"{path}:4"]


def test_bytes_that_are_not_utf8_leave_their_sentence_out(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_bytes(b"Ann\tB-X\n\nso\tO\n\xff\tO\n\nCy\tB-X\n")
    pool = load_pool(path, reading=Reading(on_error="skip"))
    assert [(out.where, out.reason) for out in pool.left_out] == [
        (f"{path}:4", "is not UTF-8: invalid start byte at byte 0")
    ]
    path.write_bytes("Ann\tB-X\n".encode("utf-16"))
    with pytest.raises(PoolError, match="is UTF-16, not UTF-8: save it as UTF-8"):
        load_pool(path)


def test_lines_that_end_with_carriage_returns_alone_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_bytes(b"Ann\tB-X\rran\tO\r\rBo\tB-X\r")
    with pytest.raises(PoolError, match=r"a\.conll:1: holds a carriage return without a line feed: `tr "):
        load_pool(path)


def test_numbers_of_words_are_no_words(tmp_path: Path) -> None:
    for first in (0, 1):
        lines = "".join(f"{first + n}\t{cells}\n" for n, cells in enumerate(["Ann\tB-X\tO", "ran\tO\tO", "off\tO\tO"]))
        with pytest.raises(PoolError, match=r"a\.conll:1: its first column numbers.*# global\.columns = ID FORM _ NER"):
            load_pool(write(tmp_path, lines))
        pool = load_pool(write(tmp_path, f"# global.columns = ID FORM NER _\n{lines}"))
        assert (texts(pool), entities(pool)) == (["Ann ran off"], ["Ann"])
    assert texts(load_pool(write(tmp_path, "1\tO\n2\tO\n3\tB-X\n"))) == ["1 2 3"]


def test_a_compressed_file_is_named(tmp_path: Path) -> None:
    for name, data in {"a.conll": gzip.compress(b"Ann\tB-X\n"), "a.jsonl": b"PK\x03\x04\x14\n"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PoolError, match="is compressed, or an archive: unpack it first"):
            load_pool(tmp_path / name, reading=Reading(on_error="skip"))


def test_a_byte_order_mark_is_no_part_of_the_first_entity(tmp_path: Path) -> None:
    pool = load_pool(write(tmp_path, "\ufeffAnn\tB-X\r\nran\tO\r\n\r\n\ufeffBo\tB-X\r\n"))
    assert (texts(pool), entities(pool)) == (["Ann ran", "Bo"], ["Ann", "Bo"])


def test_bilou_is_bioes_with_other_letters() -> None:
    assert tag_spans(["B-a", "I-a", "L-a", "U-b", "O"]) == tag_spans(["B-a", "I-a", "E-a", "S-b", "O"])


TOKENS = st.lists(
    st.text(st.sampled_from("aB1#,.(“”’、。「」ñ我京はカกั้한\u0301\U0001f44d"), min_size=1, max_size=4), max_size=8
)


@given(TOKENS, st.sampled_from(["script", "space", "none"]), st.data())
def test_whatever_the_tokens_each_is_at_its_offsets(tokens: list[str], join: str, data: st.DataObject) -> None:
    glued = data.draw(st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens)))
    text, offsets = join_tokens(tokens, join_of([tokens], join), glued=glued)  # type: ignore[arg-type]
    assert [text[start:end] for start, end in offsets] == tokens
    assert text.replace(" ", "") == "".join(tokens)
    assert aligned(tokens, text) == offsets
    follows = [start == end for (_, end), (start, _) in itertools.pairwise(offsets)]
    assert all(together for together, asked in zip(follows, glued[1:], strict=True) if asked)
