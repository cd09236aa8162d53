"""Documents that cannot be read, and documents that an engine fails on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import orjson

from tests.chaos.faults import ANNOUNCED, KINDS, STAGES, word
from tests.chaos.run import Check, Message, Outcome, Run, document, message
from workers.messages.headers import find

__all__ = ["BROKEN_SECTIONS", "FAULT_SECTIONS", "broken_documents", "engine_faults"]

BROKEN_SECTIONS = {"method": {"max_document_chars": 2_000}}
FAULT_SECTIONS = {
    # Every stage asks the engine: for spans, for types, for verdicts.
    "method": {"repeats": "off", "proposals": ["chunks", "models"], "validation": "soft"},
    "worker": {"batch_deadline_seconds": 4.0, "max_crashes": 2, "batch_documents": 16, "retry_seconds": 0.1},
}

COUNT = 3_000
HEADER = ("x-from-upstream", b"\x00\xff not text")


def _broken(kind: str, key: str) -> bytes:
    text = f"Ada Lovelace of {key}"
    return {
        "not-json": f"this is not JSON: {key}".encode(),
        "cut-off": orjson.dumps({"id": key, "text": text})[:-3],
        "invalid-utf-8": b'{"id": "' + key.encode() + b'", "text": "Z\xfcrich"}',
        "empty": b"",
        "no-object": orjson.dumps([{"id": key, "text": text}]),
        "no-text": orjson.dumps({"id": key, "title": text}),
        "text-is-no-string": orjson.dumps({"id": key, "text": {"en": text}}),
        "revision-below-0": orjson.dumps({"id": key, "text": text, "revision": -1}),
        "unknown-pool": orjson.dumps({"id": key, "text": text, "pool": "nobody-hosts-this"}),
        "too-long": orjson.dumps({"id": key, "text": text * 200}),
    }[kind]


CODES = {
    "not-json": "json",
    "cut-off": "json",
    "invalid-utf-8": "encoding",
    "empty": "json",
    "no-object": "schema",
    "no-text": "schema",
    "text-is-no-string": "schema",
    "revision-below-0": "schema",
    "unknown-pool": "unknown-pool",
    "too-long": "document-too-long",
}


def broken_documents(run: Run) -> Check | None:
    """1 % broken documents of ten kinds: dead letters byte for byte and failed results, and nothing else affected."""
    places = run.random.sample(range(COUNT), COUNT // 100)
    kinds = {place: list(CODES)[number % len(CODES)] for number, place in enumerate(places)}
    broken = {f"broken-{kind}-{place}": _broken(kind, f"broken-{kind}-{place}") for place, kind in kinds.items()}
    expected = {f"broken-{kind}-{place}": CODES[kind] for place, kind in kinds.items()}

    def messages() -> Iterator[Message]:
        for number in range(COUNT):
            if number in kinds:
                key = f"broken-{kinds[number]}-{number}"
                yield Message((key, 0), key.encode(), broken[key], [HEADER])
            else:
                yield message(document(run.random, number))

    run.deploy()
    run.undecided = {(key, 0) for key in broken}
    run.load(messages(), per_second=150)

    def check(outcome: Outcome) -> None:
        letters = {letter.key.decode(): letter for letter in outcome.dead_letters}
        assert letters.keys() == broken.keys(), (
            f"no dead letter for {sorted(broken.keys() - letters.keys())[:5]}, "
            f"one too many for {sorted(letters.keys() - broken.keys())[:5]}"
        )
        for letter in outcome.dead_letters:
            key = letter.key.decode()
            assert letter.value == broken[key], f"the dead letter of {key} is not what came in: {letter.value[:100]!r}"
            assert letter.headers[0] == HEADER, f"the dead letter of {key} lost its headers: {letter.headers[:1]}"
            code = (find(letter.headers, "el4ner-error-code") or b"").decode()
            assert code == expected[key], f"the dead letter of {key} has the code {code}, not {expected[key]}"
            value = outcome.tagged.get((key, 0))
            assert value is not None, f"{key} has no result"
            assert (value["status"], value["error"]["code"]) == ("failed", code), f"{key} is {value['status']}"

    return check


def engine_faults(run: Run) -> Check | None:
    """Engines that hang, crash, run out of memory and answer garbage: poison documents cost only themselves."""
    # What an engine that scores gets wrong shows in no stage that only has text generated, and the other way round.
    pairs = [
        (kind, stage)
        for kind in KINDS
        for stage in STAGES
        if kind not in {"nan", "positive"} or stage != "extract"
        if kind != "control" or stage == "extract"
    ]
    run.random.shuffle(pairs)
    count = 1_800
    places = dict(zip(sorted(run.random.sample(range(100, count), len(pairs))), pairs, strict=True))
    kinds = {f"d-{number}": kind for number, (kind, _) in places.items()}

    def messages() -> Iterator[Message]:
        for number in range(count):
            value = document(run.random, number)
            if number in places:
                # One sentence: a document of several is never alone with an engine.
                value["text"] = f"{word(*places[number])} of Acme Corp met Ada Lovelace in York"
            yield message(value)

    run.deploy()
    run.undecided = {(name, 0) for name in kinds}
    run.load(messages(), per_second=60)

    def check(outcome: Outcome) -> None:
        run.faults += [
            float(line.removeprefix(ANNOUNCED))
            for log in run.folder.glob("*.log")
            for line in log.read_text(errors="replace").splitlines()
            if line.startswith(ANNOUNCED)
        ]
        seen: Counter[tuple[str, str]] = Counter()
        wrong = []
        for name, kind in kinds.items():
            value = outcome.tagged.get((name, 0))
            status = "nothing" if value is None else value["status"]
            seen[kind, status] += 1
            allowed = {"crowd": {"complete"}, "control": {"complete", "partial", "failed"}}
            if status not in allowed.get(kind, {"partial", "failed"}):
                stage = next(stage for number, (_, stage) in places.items() if f"d-{number}" == name)
                wrong.append(f"{name} ({word(kind, stage)}) is {status}")
        assert not wrong, f"{'; '.join(wrong)} (all: {dict(seen)})"

    return check
