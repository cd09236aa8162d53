"""The stream's sections of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from el4ner.errors import ConfigError
from workers.config import load_stream_settings


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
