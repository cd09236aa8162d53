"""The stream's sections of the configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.config_errors import settings_of
from el4ner.errors import ConfigError
from workers.config import StreamSettings, load_stream_settings


def test_the_usual_variables_are_read_and_ours_win() -> None:
    usual = {"KAFKA_BOOTSTRAP_SERVERS": "a:1, b:2", "REDIS_URL": "redis://cache:1/0"}
    settings = load_stream_settings(environ=usual)
    assert settings.kafka.servers == ["a:1", "b:2"]
    assert settings.redis.url == "redis://cache:1/0"
    settings = load_stream_settings(environ={**usual, "EL4NER_KAFKA__BOOTSTRAP_SERVERS": "c:3"})
    assert settings.kafka.bootstrap_servers == "c:3"


def test_the_method_shares_the_file(tmp_path: Path) -> None:
    path = tmp_path / "el4ner.toml"
    path.write_text('[method]\nmode = "paper"\n[kafka]\npartitions = 9\n[worker]\nbatch_documents = 2\n')
    settings = load_stream_settings(path, environ={})
    assert (settings.method.mode, settings.kafka.partitions, settings.worker.batch_documents) == ("paper", 9, 2)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["default", "a:1"]),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.sampled_from(["x", "source", "server"]), values),
    max_leaves=6,
)


SETTINGS = [(name, key) for name in StreamSettings.model_fields for key in (*settings_of(StreamSettings, [name]), "x")]


@given(st.sampled_from(SETTINGS), VALUES, VALUES)
def test_any_value_is_a_setting_or_an_error_in_our_words(setting: tuple[str, str], value: Any, section: Any) -> None:
    for overrides in ({setting[0]: {setting[1]: value}}, {setting[0]: section}):
        said = error_of(overrides)
        assert not re.search("Input should|String should|Field required|valid dictionary", said)


def error_of(overrides: dict[str, Any]) -> str:
    try:
        load_stream_settings(overrides=overrides, environ={})
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("servers", ["nosuch", "a:1,nosuch"])
def test_a_wrong_address_is_said_once(servers: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_stream_settings(environ={"KAFKA_BOOTSTRAP_SERVERS": servers})
    assert str(raised.value) == (
        "kafka.bootstrap_servers (from KAFKA_BOOTSTRAP_SERVERS): 'nosuch' is not host:port; "
        "several servers have commas between them"
    )


def test_a_misspelt_setting_of_the_stream_is_named_with_the_nearest_and_all(tmp_path: Path) -> None:
    path = tmp_path / "el4ner.toml"
    path.write_text('[kafka]\nbootstrap_server = "a:1"\n')
    with pytest.raises(ConfigError, match=r"nearest: 'bootstrap_servers'; there are: .*topic_prefix.*partitions"):
        load_stream_settings(path, environ={})


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"KAFKA_BOOTSTRAP_SERVERS": "nowhere"}, ["kafka.bootstrap_servers", "KAFKA_BOOTSTRAP_SERVERS", "host:port"]),
        ({"REDIS_URL": "http://x"}, ["redis.url", "REDIS_URL"]),
        ({"EL4NER_KAFKA__PARTITIONS": "0"}, ["kafka.partitions", "EL4NER_KAFKA__PARTITIONS", "greater than 0"]),
        ({"EL4NER_WORKER__BATCHES": "1"}, ["worker.batches", "no such setting"]),
        ({"EL4NER_KAFKA__TOPIC_PREFIX": "a/b"}, ["kafka.topic_prefix"]),
        ({"EL4NER_WORKER__TABLE_STORE": "rocksdb://"}, ["worker.table_store"]),
        ({"EL4NER_WORKER__JOINS_IN_FLIGHT": "1"}, ["worker.joins_in_flight"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_source(environ: dict[str, str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        load_stream_settings(environ=environ)
    for word in words:
        assert word in str(raised.value)
