import pickle
import traceback
from pathlib import Path

import pytest

from el4ner.errors import ConfigError
from el4ner.redaction.key_ring import KeyRing, load_keys
from el4ner.redaction.redaction_settings import RedactionSettings

SECRET = "c0ffee" * 10 + "0042"
LINE = f"2026-11:{SECRET}"


def test_the_first_key_is_the_one_that_makes_what_is_new() -> None:
    keys = KeyRing.parse(f"# rotated in November\n{LINE}  # new\n\n2025:{'00' * 32}\n", "keys")
    assert (keys.current.id, list(keys)) == ("2026-11", ["2026-11", "2025"])


def test_a_variable_has_commas_between_keys() -> None:
    keys = load_keys(RedactionSettings.model_validate({"keys": f"{LINE},2025:{'00' * 32}"}))
    assert keys is not None
    assert list(keys) == ["2026-11", "2025"]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "there is no key"),
        (SECRET, "key 1: expected ID:KEY"),
        (f"a:{SECRET}ff", "key 1"),
        (f"a:{SECRET[:-1]}g", "key 1"),
        (f"a b:{SECRET}", "key 1"),
        (f"{LINE}\n{LINE}", "key 2: there is one with this id"),
    ],
)
def test_what_is_no_key_is_said_and_not_shown(text: str, mistake: str) -> None:
    with pytest.raises(ConfigError, match=mistake) as caught:
        KeyRing.parse(text, "redaction.keys")
    assert SECRET[:12] not in "".join(traceback.format_exception(caught.value))


def test_nothing_shows_a_key() -> None:
    settings = RedactionSettings.model_validate({"keys": LINE})
    keys = load_keys(settings)
    assert keys is not None
    shown = [repr(settings), str(settings.model_dump()), settings.model_dump_json(), repr(keys), repr(dict(keys))]
    shown += [str(keys.current), str(vars(keys))]
    assert not any(SECRET[:12] in each for each in shown)
    with pytest.raises(TypeError, match="not written down"):
        pickle.dumps(keys.current)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_file_for_its_owner_and_group(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "keys"
    file.write_text(LINE + "\n")
    file.chmod(mode)
    keys = load_keys(RedactionSettings.model_validate({"keys_file": file}))
    assert keys is not None
    assert keys.current.id == "2026-11"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o602])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "keys"
    file.write_text(LINE)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=r"others may read or change it .*chmod 600"):
        load_keys(RedactionSettings.model_validate({"keys_file": file}))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"\xff\xfe")
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="is no text"):
        load_keys(RedactionSettings.model_validate({"keys_file": file}))


def test_keys_are_needed_by_pseudonyms_and_originals_alone() -> None:
    assert load_keys(RedactionSettings(action="mask")) is None
    for settings in (
        RedactionSettings(),
        RedactionSettings(action="mask", reversible=True),
        RedactionSettings.model_validate({"action": "keep", "pools": {"news": {"person": "pseudonym"}}}),
    ):
        with pytest.raises(ConfigError, match="el4ner redact keygen"):
            load_keys(settings)


def test_keys_in_two_places_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(LINE)
    with pytest.raises(ValueError, match="leave one of them out"):
        RedactionSettings.model_validate({"keys": LINE, "keys_file": file})


def test_keys_for_different_purposes_are_different() -> None:
    key = KeyRing.parse(LINE, "test").current
    assert len({key.derived("pseudonym"), key.derived("original"), bytes.fromhex(SECRET)}) == 3
