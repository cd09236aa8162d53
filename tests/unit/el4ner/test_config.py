"""Configuration: sources in order, and errors that name the key and where it was set."""

from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    ("text", "environ", "message"),
    [
        (
            '[methd]\nmode = "paper"',
            {},
            r"methd \(in .*\): there is no such setting; nearest: 'method'; there are: ens",
        ),
        ("[retrieval]\nkind_ = 1", {}, r"retrieval\.kind_ .*; nearest: 'kind'; there are: kind, k, embedder"),
        ("[method]\nk = 3", {}, r"method\.k .*no such setting; there is retrieval\.k; there are: mode, "),
        (
            '[models.x]\nsource = "a"\n[models.x.exllama]\ncache_token = 3',
            {},
            r"models\.x\.exllama\.cache_token .*; nearest: 'cache_tokens'; there are: cache_tokens, cache_bits",
        ),
        ('[models.x]\nsorce = "a"', {}, r"models\.x\.source: is missing.*\nmodels\.x\.sorce .*; nearest: 'source'"),
        ("", {"EL4NER_METHD__MODE": "x"}, r"methd \(from EL4NER_METHD__MODE\): .*nearest: 'method'"),
        (
            "",
            {"EL4NER_METHOD__MDOE": "x"},
            r"method\.mdoe \(from EL4NER_METHOD__MDOE\): .*nearest: 'mode'; there are: m",
        ),
        (
            "",
            {"EL4NER_METHOD_MODE": "paper"},
            r"EL4NER_METHOD_MODE: .*; nearest: EL4NER_METHOD__MODE, with two underscores",
        ),
        ('[ensemble]\npreset = "defualt"', {}, r"no preset 'defualt'; nearest: 'default'; there are: default, gemma3"),
        (
            '[ensemble]\nmembers = ["smollm"]',
            {},
            r"^ensemble\.members: .*'smollm'; nearest: 'smollm2-135m'; there are: ",
        ),
        ('[pools]\ndefault = "new"', {}, r"nearest: 'news'; there are: logs, news"),
    ],
)
def test_a_misspelt_name_is_named_with_the_nearest_and_all(
    tmp_path: Path, text: str, environ: dict[str, str], message: str
) -> None:
    path = tmp_path / "el4ner.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_settings(Settings, path, environ=environ, passed_over=frozenset({"kafka"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method = 3", r"method \(in .*\): has to be a table: \[method\] and its settings below it, not 3$"),
        ("[retrieval]\nk = 'x'", r"has to be a whole number, not 'x'$"),
        ("[retrieval]\nk = 1.5", r"has to be a whole number, not 1\.5$"),
        ("[method]\nadaptive = 'maybe'", r"has to be true or false, not 'maybe'$"),
        ("[method]\nproposals = 'chunks'", r"has to be a list, such as .*, not 'chunks'$"),
        ("[method]\nproposals = []", r"needs at least 1 item, not \[\]$"),
        ("[method]\nproposals = ['chunk']", r"^method\.proposals\.0 [^\n]*'models', not 'chunk'$"),
        ("[method]\nvalidation = true", r"'hard', not true$"),
        (f"[method]\nmode = '{'x' * 1_000}'", r"not 'x{199}…$"),
    ],
)
def test_a_wrong_value_is_shown_once_beside_what_is_allowed(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "el4ner.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_settings(Settings, path, environ={})


def test_variables_that_contradict_each_other_are_named() -> None:
    with pytest.raises(ConfigError, match="EL4NER_RETRIEVAL__K__Z: another variable sets 'k' to a value"):
        load_settings(Settings, environ={"EL4NER_RETRIEVAL__K": "3", "EL4NER_RETRIEVAL__K__Z": "1"})
    environ = {"EL4NER_KAFKA_PORT": "9092", "EL4NER_GPU_SMALL": "x", "EL4NER_CACHE_DIR": "/tmp"}
    assert load_settings(Settings, environ=environ).retrieval.k == 5


def test_a_wrong_key_of_a_server_is_not_shown() -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(Settings, environ={"EL4NER_MODELS__X__SERVER__API_KEY": "12345678"})
    assert "api_key" in str(raised.value)
    assert "12345678" not in str(raised.value)


def test_a_byte_order_mark_before_the_file_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "el4ner.toml"
    path.write_text("[retrieval]\nk = 3\n", encoding="utf-8-sig")
    assert load_settings(Settings, path, environ={}).retrieval.k == 3


def test_in_scored_mode_the_pool_decides_and_nobody_validates_unless_told_to() -> None:
    scored = load_settings(Settings, environ={}).method
    assert scored.proposals == ("boundaries", "chunks", "lexicon")
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


STATES = {name: {"source": "none", "engine": "transformers"} for name in ("a", "b")}
MODELS = {**STATES, "far": {"source": "none", "engine": "instant"}}


def proposer_of(members: list[str], *, proposer: str | None = None, **method: Any) -> str | None:
    ensemble = {"members": members, **({} if proposer is None else {"proposer": proposer})}
    overrides = {"ensemble": ensemble, "models": MODELS, "method": method}
    return load_settings(Settings, environ={}, overrides=overrides).proposer


def test_the_last_member_that_shows_states_reads_boundaries_unless_another_one_is_named() -> None:
    assert proposer_of(["a", "b"]) == "b"
    assert proposer_of(["a", "b", "far"]) == "b"
    assert proposer_of(["a", "b"], proposer="a") == "a"
    assert proposer_of(["far"]) is None, "an engine without hidden states"


@pytest.mark.parametrize(
    "method", [{"mode": "paper"}, {"encoder": "embedder"}, {"proposals": ["chunks", "lexicon", "models"]}], ids=str
)
def test_nobody_reads_boundaries_where_nobody_would_use_them(method: dict[str, Any]) -> None:
    assert proposer_of(["a", "b"], **method) is None


@pytest.mark.parametrize(
    ("members", "proposer", "message"),
    [
        (["a"], "b", r"ensemble\.proposer: .*no member 'b'.*ensemble\.members"),
        (
            ["a", "far"],
            "far",
            r"ensemble\.proposer: 'far' runs on engine 'instant', which shows no hidden states; .*trans",
        ),
        (["boundaries"], None, r"no member can be called 'boundaries'.*rename \[models\.boundaries\]"),
    ],
)
def test_a_proposer_that_cannot_be_one_is_refused(members: list[str], proposer: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        proposer_of(members, proposer=proposer)


def test_a_proposer_among_the_presets_or_the_files_members_is_not_meant_for_others(tmp_path: Path) -> None:
    path = tmp_path / "el4ner.toml"
    path.write_text('[ensemble]\nmembers = ["a", "b"]\nproposer = "a"\n[models]\na.source = "/a"\nb.source = "/b"\n')
    assert load_settings(Settings, path, environ={}).proposer == "a"
    assert load_settings(Settings, path, environ={"EL4NER_ENSEMBLE__MEMBERS": '["b"]'}).proposer == "b"


def test_members_of_ones_own_need_no_verifier_named(tmp_path: Path) -> None:
    path = tmp_path / "el4ner.toml"
    path.write_text('[ensemble]\nmembers = ["mine"]\n[models.mine]\nsource = "/models/mine"\n')
    assert load_settings(Settings, path, environ={}).verifier == "mine"
