"""Configuration: sources in order, and errors that name the key and where it was set."""

from pathlib import Path

import pytest

from el4ner.config import Settings, load_settings, preset_names
from el4ner.errors import ConfigError
from el4ner.types import Mode


def test_presets_load() -> None:
    for name in preset_names():
        settings = load_settings(Settings, environ={}, overrides={"ensemble": {"preset": name}})
        assert settings.ensemble.preset == name
        assert settings.verifier in settings.ensemble.members


def test_environment_beats_the_file_and_options_beat_both(tmp_path: Path) -> None:
    path = tmp_path / "el4ner.toml"
    path.write_text('[method]\nmode = "paper"\n[retrieval]\nk = 3\n')
    settings = load_settings(
        Settings, path, environ={"EL4NER_RETRIEVAL__K": "4"}, overrides={"method": {"mode": "scored"}}
    )
    assert settings.retrieval.k == 4
    assert settings.method.mode is Mode.SCORED


def test_a_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "el4ner.toml"
    path.write_text("[retrieval]\nk = 3\n")
    assert load_settings(Settings, environ={"EL4NER_CONFIG": str(path)}).retrieval.k == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[retrieval]\nk = 0", r"retrieval\.k \(in .*el4ner\.toml\): .*greater than 0, not 0"),
        ("[retrieval]\nkk = 1", r"retrieval\.kk \(in .*el4ner\.toml\): there is no such setting"),
        ('[method]\nmode = "x"', r"method\.mode .*'paper' or 'scored', not 'x'"),
        (
            '[method]\nevidence = ["guesses"]',
            r"method\.evidence\.0 \(in .*el4ner\.toml\): .*'neighbours', 'prototypes' or 'in_context'",
        ),
        ("[method]\nproposals = []", r"method\.proposals .*at least 1 item"),
        ("[method]\nrepeat_cache_sentences = 0", r"method\.repeat_cache_sentences .*greater than 0, not 0"),
        ('[ensemble]\nmembers = ["gpt"]\nverifier = "gpt"', r"there is no \[models\.gpt\]"),
        ('[ensemble]\npreset = "huge"', r"ensemble\.preset: there is no preset 'huge'; there are: .*default"),
        ('[pools]\ndefault = "law"', r"default pool 'law' is not in pools\.paths"),
        ("[retrieval", "is not valid TOML"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "el4ner.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_settings(Settings, path, environ={})


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"retrieval\.k \(from EL4NER_RETRIEVAL__K\)"):
        load_settings(Settings, environ={"EL4NER_RETRIEVAL__K": "many"})
    with pytest.raises(ConfigError, match=r"method\.proposals\.1 \(from EL4NER_METHOD__PROPOSALS\)"):
        load_settings(Settings, environ={"EL4NER_METHOD__PROPOSALS": '["chunks", "dice"]'})


def test_in_scored_mode_the_pool_decides_and_nobody_validates_unless_told_to() -> None:
    scored = load_settings(Settings, environ={}).method
    assert scored.proposals == ("chunks", "lexicon")
    assert scored.evidence == ("neighbours", "prototypes")
    assert (scored.encoder, scored.weights, scored.adaptive) == ("members", "calibrated", False)
    assert (scored.repeats, scored.repeat_cache_sentences) == ("templates", 20_000)
    assert scored.validation_kind == "off"
    paper = load_settings(Settings, environ={"EL4NER_METHOD__MODE": "paper"}).method
    assert paper.validation_kind == "hard"
    for mode in Mode:
        told = load_settings(Settings, environ={}, overrides={"method": {"mode": mode, "validation": "soft"}}).method
        assert told.validation_kind == "soft"


def test_kinds_of_evidence_are_listed_in_the_file_or_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "el4ner.toml"
    path.write_text('[method]\nevidence = ["in_context"]\nweights = "even"\n')
    assert load_settings(Settings, path, environ={}).method.evidence == ("in_context",)
    environ = {"EL4NER_METHOD__EVIDENCE": '["prototypes", "in_context"]', "EL4NER_METHOD__ADAPTIVE": "true"}
    settings = load_settings(Settings, path, environ=environ).method
    assert settings.evidence == ("prototypes", "in_context")
    assert (settings.adaptive, settings.weights) == (True, "even")


def test_members_of_ones_own_need_no_verifier_named(tmp_path: Path) -> None:
    path = tmp_path / "el4ner.toml"
    path.write_text('[ensemble]\nmembers = ["mine"]\n[models.mine]\nsource = "/models/mine"\n')
    assert load_settings(Settings, path, environ={}).verifier == "mine"
