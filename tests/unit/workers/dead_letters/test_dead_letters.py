"""Dead letters as data, the journal, and the command line around them; without a broker."""

from __future__ import annotations

import base64
import signal
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import workers.dead_letters.listing
import workers.dead_letters.replay
from el4ner.errors import DocumentError
from workers.cli.app import app
from workers.cli.interrupts import interrupt_flag
from workers.cli.moments import parse_moment, shown_moment
from workers.cli.pacing import at_rate
from workers.config import KafkaSettings
from workers.dead_letters.letters import (
    DlqError,
    Letter,
    Wanted,
    headers_to_replay,
    letter_of,
    parse_coordinates,
    plan_replay,
)
from workers.dead_letters.replay import Journal, Replayed
from workers.messages import json_schemas
from workers.messages.envelope import Record, dead_letter, origin_of
from workers.messages.headers import Headers, find
from workers.messages.replay_headers import REPLAY_HEADERS, Replay, carried, read_replay
from workers.topics import Topic

pytestmark = pytest.mark.usefixtures("undisturbed")

SETTINGS = KafkaSettings(topic_prefix="p.")
NOW = 1_764_000_000_000
ORIGINAL: Headers = (("own", b"1"), ("own", b"2"), ("traceparent", b"00-1-2-01"))


def letter(
    *,
    at: tuple[int, int] = (0, 0),
    offset: int = 7,
    topic: Topic = Topic.DOCUMENTS,
    source: str | None = None,
    code: str = "json",
    stage: str = "extract",
    headers: Headers = ORIGINAL,
    written: int = NOW + 5,
    value: bytes | None = b"not JSON",
    document: str | None = "d",
    failed: int = NOW,
) -> Letter:
    """As a stage makes it, as a consumer reads it."""
    record = Record(topic, source or f"p.{topic.value}", 2, offset, 123, b"key", value, headers)
    error = DocumentError("it is wrong", code=code)
    made = dead_letter(record, stage=stage, error=error, document=document, attempts=3, now_ms=failed)
    return letter_of(*at, written, made.key, made.value, made.headers)


def replayed(one: Letter, *, at: tuple[int, int], offset: int, **more: Any) -> Letter:
    """The letter when its message was sent again and failed again, at a later time."""
    headers = tuple((name, value or b"") for name, value in headers_to_replay(one))
    return letter(at=at, offset=offset, headers=headers, failed=NOW + 1_000, written=NOW + 1_005, **more)


def plan(letters: Iterable[Letter], **options: Any) -> Any:
    return plan_replay(letters, SETTINGS, wanted=options.pop("wanted", Wanted()), **options)


# --- what a letter says ---


def test_a_letter_says_what_the_stage_said_and_keeps_the_original_apart() -> None:
    one = letter()
    assert (one.key, one.value, one.headers) == (b"key", b"not JSON", ORIGINAL)
    assert (one.stage, one.code, one.message, one.document, one.attempts) == ("extract", "json", "it is wrong", "d", 3)
    assert one.source == ("p.documents", 2, 7)
    assert one.first_failed_at_ms == NOW
    assert one.replay == Replay()
    assert one.id == "0-0"
    reasons = {f"el4ner-{name}": text for name, text in one.reasons.items()}
    json_schemas.validate("dead-letters", reasons)


def test_original_headers_may_have_any_names_also_those_of_a_letter() -> None:
    mischief: Headers = (
        ("el4ner-stage", b"x"),
        ("el4ner-topic", b"p.elsewhere"),
        ("el4ner-error-code", b"y"),
        *ORIGINAL,
    )
    one = letter(headers=mischief)
    assert one.headers == mischief
    assert (one.topic, one.code, one.stage) == ("p.documents", "json", "extract")


@given(
    st.lists(st.tuples(st.text(max_size=5) | st.sampled_from([*REPLAY_HEADERS, "el4ner-stage"]), st.binary(max_size=5)))
)
def test_whatever_the_original_headers_are_they_come_out_of_the_letter(headers: list[tuple[str, bytes]]) -> None:
    assert list(letter(headers=tuple(headers)).headers) == headers


def test_letters_of_the_first_release_are_read() -> None:
    named = {"stage": "extract", "error-code": "json", "topic": "p.documents", "partition": "2", "offset": "7"}
    headers = [*ORIGINAL, *((f"el4ner-{name}", text.encode()) for name, text in named.items())]
    one = letter_of(0, 0, NOW + 5, None, b"", [*headers, ("el4ner-failed-at", str(NOW).encode())])
    assert one.headers == ORIGINAL
    assert one.first_failed_at_ms == NOW
    assert dict(headers_to_replay(one))["el4ner-first-failed-at"] == str(NOW).encode()


@pytest.mark.parametrize("headers", [[], [("own", None)], [("el4ner-stage", None), ("el4ner-offset", b"-1")]])
def test_what_is_no_letter_is_shown_as_far_as_it_goes(headers: list[tuple[str, bytes | None]]) -> None:
    one = letter_of(0, 0, NOW, None, None, headers)
    assert one.source is None
    assert one.code is None
    assert one.to_json()["first_failed_at"] == NOW
    assert plan([one]).foreign == {"?": 1}


# --- replays ---


def test_a_replay_keeps_the_original_headers_and_says_which_attempt_it_is() -> None:
    one = letter(at=(3, 17))
    headers = headers_to_replay(one)
    assert tuple(headers[:3]) == ORIGINAL
    assert read_replay(headers) == Replay(1, "3-17", NOW)
    again = replayed(one, at=(1, 4), offset=8)
    assert again.replay == Replay(1, "3-17", NOW)
    assert again.reasons["replays"] == "1"
    assert again.first_failed_at_ms == NOW
    assert read_replay(headers_to_replay(again)) == Replay(2, "1-4", NOW)
    assert [name for name, _ in headers_to_replay(again)].count("el4ner-replay") == 1


def test_stages_hand_on_which_failure_it_was_beside_the_origin_and_nothing_else() -> None:
    assert carried(ORIGINAL) == ()
    headers = headers_to_replay(letter(at=(3, 17)))
    record = Record(
        Topic.DOCUMENTS, "p.documents", 2, 8, 123, b"key", b"", tuple((name, one or b"") for name, one in headers)
    )
    handed_on = (*origin_of(record).headers, *carried(headers))
    assert read_replay(handed_on) == read_replay(headers)
    assert not {"own", "traceparent"} & dict(handed_on).keys()


@pytest.mark.parametrize("count", [b"", b"-1", b"x", b"0", b"1" * 40, None])
def test_a_header_that_no_replay_writes_is_none(count: bytes | None) -> None:
    headers = [("el4ner-replay", count), ("el4ner-replay-of", b"3-17"), ("el4ner-first-failed-at", b"5")]
    assert read_replay(headers) == Replay()
    assert (
        find(letter(headers=tuple((name, value or b"") for name, value in headers)).headers, "el4ner-replay")
        is not None
    )


def test_parts_that_no_replay_writes_are_passed_over() -> None:
    assert read_replay(
        [("el4ner-replay", b"2"), ("el4ner-replay-of", b"../x"), ("el4ner-first-failed-at", b"z")]
    ) == Replay(2)


# --- which ones are sent ---


def test_each_message_is_sent_once_however_often_it_was_given_up_on() -> None:
    twice = [letter(at=(0, 0)), letter(at=(0, 1), written=NOW + 9), letter(at=(0, 2), offset=8)]
    found = plan(twice)
    assert list(found.letters) == [(0, 2), (0, 1)]
    assert found.repeated == 1


def test_a_letter_whose_replay_failed_again_is_left_to_the_later_one() -> None:
    first = letter(at=(3, 17))
    second = replayed(first, at=(1, 4), offset=8, code="engine", stage="classify", topic=Topic.SPAN_CANDIDATES)
    third = replayed(second, at=(0, 9), offset=12, topic=Topic.SPAN_CANDIDATES)
    assert list(plan([first, second, third]).letters) == [(0, 9)]
    assert plan([first, second, third]).superseded == 2
    assert list(plan([first, second], wanted=Wanted(codes={"json"})).letters) == []


def test_a_topic_that_was_made_anew_counts_again_and_supersedes_nothing() -> None:
    before = replayed(letter(at=(0, 0)), at=(0, 5), offset=8)
    now = letter(at=(0, 0), offset=9, failed=NOW + 77)
    assert set(plan([now, before]).letters) == {(0, 0), (0, 5)}


def test_the_journal_keeps_messages_from_being_sent_twice() -> None:
    letters = [letter(at=(0, 0)), letter(at=(0, 1)), letter(at=(0, 2), offset=8)]
    found = plan(letters, done={"0-0"})
    assert list(found.letters) == [(0, 2)]
    assert found.done == 1


@pytest.mark.parametrize(
    "source", ["elsewhere", "documents", "p.tagged-documents", "p.entity-mentions", "p.dead-letters", "p.unknown"]
)
def test_nothing_is_sent_to_what_no_stage_of_this_pipeline_reads(source: str) -> None:
    found = plan([letter(source=source)])
    assert found.letters == {}
    assert found.foreign == {source: 1}


def test_the_oldest_come_first_and_no_more_than_wanted() -> None:
    letters = [letter(at=(0, number), offset=number, written=NOW - number) for number in range(5)]
    assert list(plan(letters, limit=2).letters) == [(0, 4), (0, 3)]
    assert plan(letters).counts() == [("extract", "json", "p.documents", 5)]


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (Wanted(), True),
        (Wanted(codes={"json", "schema"}), True),
        (Wanted(codes={"schema"}), False),
        (Wanted(stages={"classify"}), False),
        (Wanted(documents={"d"}), True),
        (Wanted(documents={"e"}), False),
        (Wanted(topics={"p.documents"}), True),
        (Wanted(topics={"documents"}, prefix="p."), True),
        (Wanted(topics={"documents"}), False),
        (Wanted(since_ms=NOW + 5), True),
        (Wanted(since_ms=NOW + 6), False),
        (Wanted(until_ms=NOW + 5), False),
        (Wanted(until_ms=NOW + 6, codes={"json"}), True),
    ],
)
def test_filters(wanted: Wanted, matches: bool) -> None:
    assert wanted.matches(letter()) is matches


@pytest.mark.parametrize("text", ["", "3", "3-", "-17", "3:17", "a-b", "3-17-1", "³-1", "-1--1"])
def test_what_are_no_coordinates_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="expected PARTITION-OFFSET"):
        parse_coordinates(text)


def test_coordinates() -> None:
    assert parse_coordinates("3-17") == (3, 17)


# --- the journal ---


def test_a_journal_goes_on_where_it_was_cut_short(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with Journal(file) as journal:
        journal.add(Replayed("0-1", "p.documents", 0, 9))
        assert journal.done == {"0-1"}
    with file.open("ab") as torn:
        torn.write(b'{"letter": "0-')
    with Journal(file) as journal:
        assert journal.done == {"0-1"}
        journal.add(Replayed("0-2", "p.documents", 0, 10))
    with Journal(file) as journal:
        assert journal.done == {"0-1", "0-2"}


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("remember the milk\n")
    with pytest.raises(DlqError, match=r"notes\.txt:1: is no line of a journal"), Journal(file):
        pass
    assert file.read_text() == "remember the milk\n"
    with pytest.raises(DlqError, match="cannot be used as a journal"), Journal(tmp_path):
        pass


# --- times and rates ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30m", "2026-11-23T13:30:00+00:00"),
        ("2h", "2026-11-23T12:00:00+00:00"),
        ("7d", "2026-11-16T14:00:00+00:00"),
        ("2026-11-23", "2026-11-23T00:00:00+00:00"),
        ("2026-11-23T14:00", "2026-11-23T14:00:00+00:00"),
        ("2026-11-23T14:00:00+02:00", "2026-11-23T12:00:00+00:00"),
    ],
)
def test_moments(text: str, expected: str) -> None:
    now = datetime(2026, 11, 23, 14, tzinfo=UTC)
    assert parse_moment(text, now=now) == int(datetime.fromisoformat(expected).timestamp() * 1000)


def test_what_is_no_moment_is_said() -> None:
    with pytest.raises(ValueError, match="'soon' is no time: expected 30m"):
        parse_moment("soon", now=datetime(2026, 11, 23, tzinfo=UTC))
    assert shown_moment(-1) == "-"
    assert shown_moment(10**18) == "-"
    assert shown_moment(1_764_000_000_000) == "2025-11-24T16:00:00Z"


def test_a_rate_is_kept() -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    times = [now for _ in at_rate(range(4), 2.0, monotonic=lambda: now, sleep=sleep)]
    assert times == [0, 0.5, 1, 1.5]
    assert list(at_rate(range(3), None, monotonic=lambda: now, sleep=sleep)) == [0, 1, 2]


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C as in a terminal: a shell's background job, as this run may be, passes it over."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_the_first_ctrl_c_ends_in_good_order_and_the_second_at_once() -> None:
    with interrupt_flag() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with interrupt_flag(False) as stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert not stop()


# --- the commands ---

Put = Callable[..., list[str]]


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts letters where the commands find them; returns the ids of those that were sent."""
    sent: list[str] = []

    def put(*letters: Letter) -> list[str]:
        def read(_settings: Any, *, since_ms: int | None = None, only: Any = None) -> Iterable[Letter]:
            del since_ms
            return [one for one in letters if only is None or one.coordinates in only]

        def found(_settings: Any, coordinates: Any) -> Letter:
            return next(one for one in letters if one.coordinates == coordinates)

        def send(_settings: Any, chosen: Iterable[Letter], *, delivered: Any, stop: Any) -> int:
            del stop
            for one in chosen:
                sent.append(one.id)
                delivered(Replayed(one.id, str(one.topic), 2, 99))
            return len(sent)

        monkeypatch.setattr(workers.dead_letters.listing, "read_letters", read)
        monkeypatch.setattr(workers.dead_letters.listing, "find_letter", found)
        monkeypatch.setattr(
            workers.dead_letters.replay, "find_letters", lambda settings, named: [found(settings, one) for one in named]
        )
        monkeypatch.setattr(workers.dead_letters.replay, "replay", send)
        return sent

    return put


def run(runner: CliRunner, *arguments: str) -> Any:
    return runner.invoke(app, ["dlq", *arguments], env={"EL4NER_KAFKA__TOPIC_PREFIX": "p."})


def test_the_list_shows_the_latest_and_counts_all(runner: CliRunner, there: Put) -> None:
    there(*(letter(at=(0, number), written=NOW + number) for number in range(60)), letter(at=(1, 0), code="schema"))
    result = run(runner, "list")
    assert result.exit_code == 0
    assert "0-59" in result.stdout
    assert "0-3 " not in result.stdout
    assert "the latest 50 of 61" in result.stderr
    counted = [line.split()[:3] for line in result.stdout.splitlines() if line.strip().startswith("extract")]
    assert counted == [["extract", "json", "60"], ["extract", "schema", "1"]]
    assert len(run(runner, "list", "--format", "json").stdout.splitlines()) == 61
    (only,) = run(runner, "list", "--format", "json", "--limit", "1").stdout.splitlines()
    assert orjson.loads(only)["letter"] == "0-59"


def test_control_characters_do_not_reach_the_terminal(runner: CliRunner, there: Put) -> None:
    there(letter(document="d\x1b[2J", value=b"\x1b[31mred", headers=(("own\x1b", b"\x1b[2J"),)))
    for arguments in (["list"], ["show", "0-0"]):
        result = run(runner, *arguments)
        assert result.exit_code == 0
        assert "\x1b" not in result.stdout
    assert run(runner, "show", "0-0", "--raw").stdout_bytes == b"\x1b[31mred"


def test_bytes_that_are_no_text_are_shown_in_hex(runner: CliRunner, there: Put) -> None:
    there(letter(value=b"Z\xfcrich" + bytes(range(16))))
    result = run(runner, "show", "0-0")
    assert "00000000  5a fc 72 69 63 68 00 01" in result.stdout
    assert "00000010  0a 0b" in result.stdout
    shown = orjson.loads(run(runner, "show", "0-0", "--format", "json").stdout)
    assert base64.b64decode(shown["value_base64"]) == b"Z\xfcrich" + bytes(range(16))
    assert shown["headers"][0] == ["own", "1"]


def test_a_long_value_is_cut_and_a_deletion_has_none(runner: CliRunner, there: Put) -> None:
    there(letter(value="ü".encode() * 20_000))
    result = run(runner, "show", "0-0")
    assert "ü" * 100 in result.stdout
    assert "--raw writes all" in result.stderr
    there(letter(value=None))
    assert "it is a deletion" in run(runner, "show", "0-0").stdout
    raw = run(runner, "show", "0-0", "--raw")
    assert raw.stdout_bytes == b""
    assert "it is a deletion" in raw.stderr


def test_nothing_is_sent_without_yes(runner: CliRunner, there: Put) -> None:
    sent = there(letter(at=(0, 0)), letter(at=(0, 1), offset=8, code="schema"))
    result = run(runner, "replay", "--all")
    assert result.exit_code == 0
    assert "dry run: 2 messages would be sent again; add --yes to do it" in result.stderr
    assert sent == []
    result = run(runner, "replay", "--code", "schema", "--yes")
    assert result.exit_code == 0
    assert "0-1 → p.documents-2-99" in result.stdout
    assert "1 message of 1 sent again" in result.stderr
    assert sent == ["0-1"]


def test_a_letter_is_sent_when_it_is_named_also_if_it_was_sent_before(runner: CliRunner, there: Put) -> None:
    first = letter(at=(3, 17))
    sent = there(first, replayed(first, at=(1, 4), offset=8))
    assert run(runner, "replay", "3-17", "--yes").exit_code == 0
    assert sent == ["3-17"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["replay"], "one of the three"),
        (["replay", "--all", "--code", "json"], "one of the three"),
        (["replay", "0-0", "--code", "json"], "one of the three"),
        (["replay", "0:0"], "PARTITION-OFFSET"),
        (["show", "0:0"], "PARTITION-OFFSET"),
        (["list", "--since", "soon"], "is no time"),
    ],
)
def test_wrong_use_ends_with_2(runner: CliRunner, there: Put, arguments: list[str], said: str) -> None:
    there(letter())
    result = run(runner, *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_nothing_that_matches_ends_with_1(runner: CliRunner, there: Put) -> None:
    there(letter())
    for arguments in (["list", "--code", "schema"], ["replay", "--code", "schema"]):
        result = run(runner, *arguments)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert "no dead letter matches" in result.stderr


def test_letters_that_are_gone_meanwhile_are_told(
    runner: CliRunner, there: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    there(letter())
    read = workers.dead_letters.listing.read_letters
    monkeypatch.setattr(
        workers.dead_letters.listing, "read_letters", lambda settings, **only: [] if "only" in only else read(settings)
    )
    result = run(runner, "replay", "--all", "--yes")
    assert result.exit_code == 1
    assert "0 messages of 1 sent again" in result.stderr
    assert "no longer in the topic" in result.stderr


def test_the_journal_is_kept_by_the_command(runner: CliRunner, there: Put, tmp_path: Path) -> None:
    sent = there(letter(at=(0, 0)), letter(at=(0, 1), offset=8))
    file = str(tmp_path / "journal.jsonl")
    assert run(runner, "replay", "--all", "--limit", "1", "--journal", file, "--yes").exit_code == 0
    assert run(runner, "replay", "--all", "--journal", file, "--yes").exit_code == 0
    assert sent == ["0-0", "0-1"]
    result = run(runner, "replay", "--all", "--journal", file, "--yes")
    assert result.exit_code == 1
    assert "passed over: 2 sent before, says the journal" in result.stderr
