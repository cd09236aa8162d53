"""Evidence that comes prepared: it is used by whoever reads the same model, whatever number type they read in."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from el4ner.config import Settings, load_settings
from el4ner.engines.base import Prompt, StateRequest, StateResult, States
from el4ner.evidence.prepared import STEP, PreparedEvidence, pack, unpack
from el4ner.evidence.sources import described
from el4ner.evidence.weighing import Weighing
from el4ner.loader import pipeline_from
from el4ner.models.progress import NO_PROGRESS
from el4ner.pipeline import Pipeline
from el4ner.pools import Pool
from el4ner.pools.pool import PoolSentence
from el4ner.tagger import Tagger
from el4ner.types import Span
from tests.support.doubles import ScriptedStateEngine, drawn

NAMES = ("Anna", "Berta", "Clara", "Dora", "Elsa", "Frida", "Greta", "Julia")
TEXT = "Then Martha met Anna."


def show(prompt: Prompt, tail: str) -> States:
    states = 0.2 * drawn(prompt.user, tail)
    words = tail.split()
    states[:, 0] += 3.0 * (bool(words) and words[-1].endswith("a"))
    return states


class Member(ScriptedStateEngine):
    """Reads in ``dtype``: the same model in another one is another engine with the same states, but for rounding."""

    def __init__(self, name: str, dtype: str = "float32", *, model: str = "weights") -> None:
        super().__init__(name, show=show)
        self.fingerprint = hashlib.sha256(f"{name} {model} {dtype}".encode()).hexdigest()
        self.states_fingerprint = f"{name} {model}"


class Unread(Member):
    """One that has nothing to read in a pool."""

    def states(self, requests: list[StateRequest]) -> list[StateResult]:  # type: ignore[override]
        raise AssertionError(f"the pool is read: {requests[0].prompt.user}")


def sentence(name: str, other: str) -> PoolSentence:
    text = f"Then {name} met {other} again."
    places = [(text.index(word), word) for word in (name, other)]
    return PoolSentence(text, tuple((Span(at, at + len(word), word), "person") for at, word in places))


POOL = Pool(
    "p",
    {"person": "a name"},
    (*map(sentence, NAMES, NAMES[1:] + NAMES[:1]), *map(sentence, NAMES, NAMES[3:] + NAMES[:3])),
)


def loaded(cache: Path, prepared: PreparedEvidence, *members: Member) -> Pipeline:
    settings = load_settings(
        Settings,
        environ={},
        overrides={
            "ensemble": {"members": [member.name for member in members], "proposer": members[0].name},
            "models": {member.name: {"source": "none"} for member in members},
            "pools": {"default": "p", "paths": {"p": "none"}},
        },
    )
    engines = {member.name: member for member in members}
    return pipeline_from(settings, engines, {"p": POOL}, None, cache_dir=cache, prepared=prepared, progress=NO_PROGRESS)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What somebody who reads in float32 has prepared."""
    folder = tmp_path_factory.mktemp("shipped")
    loaded(tmp_path_factory.mktemp("cache"), PreparedEvidence(folder, fill=True), Member("a"), Member("b"))
    return folder


def test_prepared_evidence_is_used_without_reading_the_pool_in_any_number_type(shipped: Path, tmp_path: Path) -> None:
    prepared = PreparedEvidence(shipped)
    ready = loaded(tmp_path / "1", prepared, Unread("a", "bfloat16"), Unread("b", "int8"))
    read = loaded(tmp_path / "2", PreparedEvidence(tmp_path / "none"), Member("a"), Member("b"))
    assert ready.calibration("p") is not None
    tagger = Tagger(loaded(tmp_path / "1", prepared, Member("a", "bfloat16"), Member("b", "int8")))
    for made in (tagger, Tagger(read)):
        (document,) = made.tag([TEXT])
        assert [(entity.text, entity.type) for entity in document.entities] == [
            ("Martha", "person"),
            ("Anna", "person"),
        ]


def test_all_number_types_share_one_calibration_and_results_name_the_number_type(shipped: Path, tmp_path: Path) -> None:
    prepared = PreparedEvidence(shipped)
    one = loaded(tmp_path / "1", prepared, Unread("a"), Unread("b"))
    other = loaded(tmp_path / "2", prepared, Unread("a", "bfloat16"), Unread("b", "bfloat16"))
    evidence, same = one.evidence("p"), other.evidence("p")
    assert evidence is not None
    assert same is not None
    assert evidence.calibration == same.calibration
    assert one.manifest("classify", "p").members != other.manifest("classify", "p").members


def test_another_model_or_an_edited_pool_is_read(shipped: Path, tmp_path: Path) -> None:
    prepared = PreparedEvidence(shipped)
    other = Member("b", model="other weights")
    loaded(tmp_path, prepared, Unread("a"), other)
    assert other.shown, "the other member reads the pool, and the first one's part is prepared"
    with pytest.raises(AssertionError, match="the pool is read"):
        loaded(tmp_path / "1", prepared, Unread("b"), Unread("a", model="other weights"))


def test_a_combiner_of_other_processes_answers_finds_the_prepared_calibration(shipped: Path, tmp_path: Path) -> None:
    made = loaded(tmp_path / "1", PreparedEvidence(shipped), Unread("a"), Unread("b"))
    evidence = made.evidence("p")
    assert evidence is not None
    speakers = [described(source) for source in evidence.sources]
    empty = tmp_path / "empty"
    assert Weighing("p", empty, even=False).of(speakers, ["a", "b"]) is None
    weighed = Weighing("p", empty, even=False, prepared=shipped).of(speakers, ["a", "b"])
    assert weighed is not None
    assert weighed.combination == evidence.calibration.steps[-1].combination


@pytest.mark.parametrize(
    ("behind", "damaged"),
    [
        (b"PK\x01\x02-\x03", b"\xff"),  # of a later version of the format
        (b"PK\x01\x02-\x03-\x00", b"\x01"),  # it has a password
        (b"PK\x01\x02-\x03-\x00\x00\x00", b"\x63"),  # another compression
        (b"(3,), ", b"("),  # the head of the array ends nowhere
    ],
)
def test_whichever_byte_is_damaged_the_file_is_passed_over(tmp_path: Path, behind: bytes, damaged: bytes) -> None:
    file = tmp_path / "x.npz"
    np.savez(file, numbers=np.zeros(3))
    before, found, after = file.read_bytes().partition(behind)
    assert found
    file.write_bytes(before + behind + damaged + after[len(damaged) :])
    assert PreparedEvidence(tmp_path).find("x.npz") is None


@pytest.mark.parametrize("kept", [0, 100])
def test_a_damaged_file_is_passed_over_and_the_pool_read(shipped: Path, tmp_path: Path, kept: int) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in shipped.iterdir():
        content = file.read_bytes()
        (damaged / file.name).write_bytes(content[:kept] if file.name.startswith("spans") else content)
    members = Member("a"), Member("b")
    made = loaded(tmp_path / "cache", PreparedEvidence(damaged), *members)
    assert made.calibration("p") is not None
    assert all(member.shown for member in members)


def test_what_was_prepared_once_is_prepared_again_to_the_byte(shipped: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    loaded(tmp_path / "cache", PreparedEvidence(again, fill=True), Member("a"), Member("b"))
    assert {file.name: file.read_bytes() for file in shipped.iterdir()} == {
        file.name: file.read_bytes() for file in again.iterdir()
    }


def test_cosines_with_packed_vectors_are_right_on_average() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((2, 200, 640)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    arrays = pack(vectors)
    found = unpack(arrays)
    assert found.shape == vectors.shape
    queries = np.roll(vectors[0], 1, axis=0) + 0.5 * vectors[1]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    errors = (queries @ found[0].T - queries @ vectors[0].T).ravel()
    assert abs(errors.mean()) < 1e-3
    assert errors.std() == pytest.approx(STEP / np.sqrt(12), rel=0.1)
    assert arrays["packed"].nbytes * 8 < 2.8 * vectors.size, "bits a number"


def test_what_is_no_packed_vector_is_refused() -> None:
    arrays = pack(np.eye(4, dtype=np.float32))
    with pytest.raises(ValueError, match="cannot be read"):
        unpack({**arrays, "packed": arrays["packed"][:3]})
    with pytest.raises(KeyError):
        unpack({})
