"""The pipeline on a Kafka and a Valkey that demand TLS and passwords, each part with a user that may do the least."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePattern, ResourceType
from kafka.errors import (
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
)

from el4ner.errors import ConfigError
from tests.integration.secure_services import ADMIN, SecureKafka, SecureValkey, secure_valkey
from tests.integration.stream_harness import ROOT, STAGES, Stream, wait_until
from tests.support.certificates import Authority
from workers import security
from workers.config import RedisSettings, StreamSettings, load_stream_settings
from workers.inputs.documents import NewDocument
from workers.kafka import broker, topic_admin
from workers.kafka.acls import Acl, Role, bindings, check_rights
from workers.produce import ProduceError, produce_documents
from workers.shared_cache.answer_store import RedisAnswerStore
from workers.shared_cache.redis_client import RedisClient
from workers.shared_cache.retrieval_cache import RedisRetrievalCache
from workers.tail import tail_documents
from workers.topics import Topic, TopicError, app_id, changelog_name, topic_name

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

PREFIX = "s."
READERS = "archive"
REDIS_RIGHTS = "~el4ner:* -@all +mget +set"
"""What docs/security.md says that the cache's user needs."""
PASSWORDS = {
    ADMIN: "sekrit-of-the-super-user",
    **{f"{PREFIX}el4ner-{role.value}": f"sekrit-of-{role.value}" for role in Role},
}
PLAIN_USER, PLAIN_PASSWORD = "plain", "sekrit-of-plain"
CERTIFIED = "certified"
WRONG = "sekrit-that-is-wrong"


@dataclass(frozen=True)
class Secured:
    """The two services, and settings for whoever comes to them."""

    kafka: SecureKafka
    valkey: SecureValkey
    authority: Authority

    def sections(self, role: Role | None = None, **kafka: Any) -> dict[str, dict[str, Any]]:
        """Of a configuration file: as the user of ``role``, or as the super user."""
        user = ADMIN if role is None else f"{PREFIX}el4ner-{role.value}"
        return {
            "kafka": {
                "bootstrap_servers": self.kafka.sasl_address,
                "topic_prefix": PREFIX,
                "partitions": 2,
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_username": user,
                "sasl_password": PASSWORDS[user],
                "ssl_cafile": str(self.authority.cafile),
                **kafka,
            },
            "redis": {
                "url": f"rediss://localhost:{self.valkey.port}/0",
                "username": self.valkey.user,
                "password": self.valkey.user_password,
                "ssl_cafile": str(self.authority.cafile),
            },
        }

    def client(self, kind: Any, role: Role | None, **options: Any) -> Any:
        """A kafka-python client as the user of ``role``."""
        return broker.connect(self.settings(role).kafka, kind, TopicError, **options)

    def reader(self, role: Role, group: str | None = None) -> Any:
        """A consumer as the user of ``role``."""
        return self.client(KafkaConsumer, role, group_id=group, isolation_level="read_committed")

    def settings(self, role: Role | None = None, **kafka: Any) -> StreamSettings:
        overrides = self.sections(role, **kafka)
        overrides["kafka"] = {key: value for key, value in overrides["kafka"].items() if value is not None}
        return load_stream_settings(environ={}, overrides=overrides)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Topics made, and exactly the rights of :mod:`workers.kafka.acls` granted."""
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder / "certificates")
    kafka = SecureKafka(folder / "kafka", authority, PASSWORDS, {PLAIN_USER: PLAIN_PASSWORD})
    passwords = ("sekrit-of-the-default-user", "sekrit-of-the-cache")
    with (
        secure_valkey(folder / "valkey", authority, rights=REDIS_RIGHTS, passwords=passwords) as valkey,
        kafka.running(),
    ):
        secured = Secured(kafka, valkey, authority)
        rights = bindings(secured.settings().kafka, reader_group=READERS)
        # Whoever comes with a certificate, or by PLAIN, may produce.
        for principal in (f"User:CN={CERTIFIED}", f"User:{PLAIN_USER}"):
            rights += bindings(secured.settings().kafka, principals={Role.PRODUCER: principal}, roles=[Role.PRODUCER])
        with contextlib.closing(kafka.admin()) as admin:
            done = admin.create_acls([one for acl in rights for one in _acls(acl)])
        assert done["failed"] == []
        topic_admin.create(secured.settings(Role.ADMIN))
        yield secured


def _acls(acl: Acl) -> Iterator[ACL]:
    """As kafka-python has them."""
    resource = ResourcePattern(
        ResourceType[acl.resource.name],
        acl.name,
        ACLResourcePatternType.PREFIXED if acl.prefixed else ACLResourcePatternType.LITERAL,
    )
    for operation in acl.operations:
        name = {"DescribeConfigs": "DESCRIBE_CONFIGS"}.get(operation, operation.upper())
        yield ACL(acl.principal, "*", ACLOperation[name], ACLPermissionType.ALLOW, resource)


def _documents(*ids: str) -> list[NewDocument]:
    return [NewDocument(one, f"Angela Merkel met {one} in Berlin.", None, 1, {}) for one in ids]


# --- the pipeline ---------------------------------------------------------------------------------------------------


def test_a_document_passes_all_stages_each_with_its_own_user_and_no_right_but_its_own(
    secured: Secured, tmp_path: Path
) -> None:
    stream = Stream(secured.kafka.sasl_address, "", PREFIX, tmp_path, secured.sections())
    try:
        for stage in STAGES:
            user = f"{PREFIX}el4ner-{stage}"
            credentials = {"EL4NER_KAFKA__SASL_USERNAME": user, "EL4NER_KAFKA__SASL_PASSWORD": PASSWORDS[user]}
            # At the level at which the clients log the most.
            stream.start(stage, environ={**credentials, "EL4NER_WORKER__LOG_LEVEL": "debug"})
        for worker in stream.workers:
            worker.wait_ready(timeout=150)
        produce_documents(secured.settings(Role.PRODUCER), _documents("Obama", "Macron"))
        reader = secured.settings(Role.READER)
        tailed = list(tail_documents(reader, start="earliest", count=2, seconds=60))
        assert {one.value["id"]: one.status for one in tailed} == {"Obama": "complete", "Macron": "complete"}
        assert [worker.stop() for worker in stream.workers] == [0] * len(STAGES)
        for worker in stream.workers:
            assert any(line.get("level") == "debug" for line in worker.lines())
            _assert_no_secret(secured, worker.log.read_text())
    finally:
        stream.close()


# --- rights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "topic"),
    [
        (Role.EXTRACT, Topic.TAGGED_DOCUMENTS),
        (Role.EXTRACT, Topic.DOCUMENTS),
        (Role.VALIDATE, Topic.TYPED_ENTITIES),
        (Role.AGGREGATE, Topic.DOCUMENTS),
        (Role.PRODUCER, Topic.SPAN_CANDIDATES),
        (Role.READER, Topic.TAGGED_DOCUMENTS),
        (Role.DLQ_OPERATOR, Topic.DEAD_LETTERS),
    ],
)
def test_nobody_writes_what_is_not_theirs(secured: Secured, role: Role, topic: Topic) -> None:
    # Who may write nothing at all is refused earlier, and by another name, when it asks to be idempotent.
    with (
        contextlib.closing(secured.client(KafkaProducer, role, enable_idempotence=False)) as producer,
        pytest.raises(TopicAuthorizationFailedError),
    ):
        producer.send(topic_name(secured.settings().kafka, topic), b"{}").get(timeout=10)


@pytest.mark.parametrize(
    ("role", "topic"),
    [
        (Role.EXTRACT, Topic.TYPED_ENTITIES),
        (Role.AGGREGATE, Topic.DEAD_LETTERS),
        (Role.PRODUCER, Topic.DOCUMENTS),
        (Role.DLQ_OPERATOR, Topic.DOCUMENTS),
    ],
)
def test_nobody_reads_what_is_not_theirs(secured: Secured, role: Role, topic: Topic) -> None:
    name = topic_name(secured.settings().kafka, topic)
    with contextlib.closing(secured.reader(role)) as consumer:
        consumer.assign([TopicPartition(name, 0)])
        with pytest.raises(TopicAuthorizationFailedError):
            _poll(consumer)


@pytest.mark.parametrize(
    ("role", "seen"),
    [
        (Role.PRODUCER, {Topic.DOCUMENTS}),
        (Role.READER, {Topic.TAGGED_DOCUMENTS, Topic.ENTITY_MENTIONS}),
    ],
)
def test_who_is_outside_sees_nothing_of_the_inside(secured: Secured, role: Role, seen: set[Topic]) -> None:
    with contextlib.closing(secured.reader(role)) as consumer:
        assert consumer.topics() == {topic_name(secured.settings().kafka, topic) for topic in seen}


@pytest.mark.parametrize(("group", "welcome"), [(READERS, True), (f"{PREFIX}el4ner-aggregate", False)])
def test_readers_read_results_in_their_own_group_only(secured: Secured, group: str, welcome: bool) -> None:
    name = topic_name(secured.settings().kafka, Topic.TAGGED_DOCUMENTS)
    with contextlib.closing(secured.reader(Role.READER, group)) as consumer:
        # Rights are in force a moment after the broker has taken them. A member that joins its group before it may see
        # the topic gets no partition of it, and looks again after minutes only.
        wait_until(lambda: consumer.partitions_for_topic(name), what="the topic")
        consumer.subscribe([name])
        if welcome:
            wait_until(lambda: consumer.poll(timeout_ms=100) or consumer.assignment(), what="partitions")
        else:
            with pytest.raises(GroupAuthorizationFailedError):
                _poll(consumer)


def test_only_the_aggregator_may_write_in_its_transactions(secured: Secured) -> None:
    settings = secured.settings().kafka
    transaction = {"transactional_id": f"{app_id(settings, 'aggregate')}-0"}
    with contextlib.closing(secured.client(KafkaProducer, Role.AGGREGATE, **transaction)) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic_name(settings, Topic.ENTITY_MENTIONS), b"{}").get(timeout=10)
        producer.send(changelog_name(settings), b"{}", key=b"k").get(timeout=10)
        producer.abort_transaction()
    with (
        contextlib.closing(secured.client(KafkaProducer, Role.EXTRACT, **transaction)) as producer,
        pytest.raises(TransactionalIdAuthorizationFailedError),
    ):
        producer.init_transactions()


def test_a_worker_whose_user_lacks_rights_is_told_which_before_it_starts(secured: Secured) -> None:
    for stage in STAGES:
        check_rights(secured.settings(Role(stage)).kafka, [stage])
    with pytest.raises(TopicError) as raised:
        check_rights(secured.settings(Role.CLASSIFY).kafka, ["classify", "extract"])
    assert str(raised.value).splitlines() == [
        "user 's.el4ner-classify' lacks rights on the broker:",
        "extract needs Read on topic 's.documents'",
        "extract needs Write on topic 's.span-candidates'",
        "extract needs Read on group 's.el4ner-extract'",
        "print what sets them with: el4ner topics acls",
    ]


# --- ways in --------------------------------------------------------------------------------------------------------


def test_a_password_comes_from_a_mounted_file(secured: Secured, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORDS[ADMIN]}\n")
    settings = secured.settings(sasl_password=None, sasl_password_file=str(file))
    assert topic_admin.describe(settings)


def test_plain_is_spoken_over_tls(secured: Secured) -> None:
    settings = secured.settings(sasl_mechanism="PLAIN", sasl_username=PLAIN_USER, sasl_password=PLAIN_PASSWORD)
    assert produce_documents(settings, _documents("plain")).documents == 1


def test_a_certificate_of_ones_own_is_enough_where_the_broker_asks_for_one(secured: Secured) -> None:
    sasl = dict.fromkeys(("sasl_mechanism", "sasl_username", "sasl_password"))
    certificate = secured.authority.issue(CERTIFIED, key_password="sekrit-of-the-key")
    mutual = {**sasl, "bootstrap_servers": secured.kafka.mutual_address, "security_protocol": "SSL"}
    files = {"ssl_certfile": str(certificate.certfile), "ssl_keyfile": str(certificate.keyfile)}
    settings = secured.settings(**mutual, **files, ssl_key_password="sekrit-of-the-key")
    assert produce_documents(settings, _documents("certified")).documents == 1
    with pytest.raises(ConfigError, match=r"kafka\.ssl_keyfile: .* cannot be used"):
        produce_documents(secured.settings(**mutual, **files, ssl_key_password=WRONG), [])
    with pytest.raises(ProduceError, match=r"broke the connection off.*certificate"):
        produce_documents(secured.settings(**mutual), [])


def test_a_broker_is_not_believed_without_a_certificate_for_its_name_of_a_known_authority(
    secured: Secured, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Authority(tmp_path / "other")
    with pytest.raises(TopicError, match=r"certificate .* is not trusted: .*unable to get local issuer"):
        topic_admin.describe(secured.settings(ssl_cafile=str(other.cafile)))
    by_number = {"bootstrap_servers": secured.kafka.sasl_address_by_number}
    with pytest.raises(TopicError, match=r"certificate .* is not trusted: .*not valid for '127\.0\.0\.1'"):
        topic_admin.describe(secured.settings(**by_number))
    assert topic_admin.describe(secured.settings(**by_number, ssl_check_hostname=False))
    assert "kafka.ssl_check_hostname is off" in caplog.text


# --- failures show no secret ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mechanism", "command", "status"),
    [
        ("SCRAM-SHA-512", ["-m", "workers", "extract", "--config"], 2),
        ("PLAIN", ["-m", "workers", "aggregate", "--config"], 2),
        ("PLAIN", ["-m", "workers.cli", "--log-level", "debug", "tail", "--config"], 1),
        ("SCRAM-SHA-512", ["-m", "workers.cli", "--log-level", "debug", "topics", "describe", "--config"], 1),
    ],
)
def test_a_wrong_password_is_told_at_once_and_shown_nowhere(
    secured: Secured, tmp_path: Path, mechanism: str, command: list[str], status: int
) -> None:
    wrong = {"sasl_mechanism": mechanism, "sasl_username": "mallory", "sasl_password": WRONG}
    sections = secured.sections(**wrong)
    sections["worker"] = {"log_level": "debug"}
    stream = Stream(secured.kafka.sasl_address, "", PREFIX, tmp_path, sections)
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("EL4NER_", "KAFKA_", "REDIS_"))
    }
    done = subprocess.run(
        [sys.executable, *command, str(stream.config)],
        cwd=ROOT,
        env=inherited,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    assert "does not let the user 'mallory' in" in " ".join(said.split())
    _assert_no_secret(secured, said)


def test_settings_and_what_is_made_of_them_show_no_secret(secured: Secured) -> None:
    settings = secured.settings()
    client = secured.client(KafkaProducer, None)
    client.close()
    credentials = security.faust_credentials(settings.kafka)
    shown = [settings, settings.model_dump(), settings.model_dump_json(), client.config, vars(credentials)]
    shown += [security.kafka_options(settings.kafka), security.redis_options(settings.redis)]
    for one in shown:
        _assert_no_secret(secured, repr(one))


# --- the cache ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mutual", [False, True])
def test_the_cache_works_over_tls_with_a_user_that_may_do_no_more(secured: Secured, mutual: bool) -> None:
    overrides = secured.sections()["redis"]
    if mutual:
        certificate = secured.authority.issue("cache-client")
        overrides |= {
            "url": f"rediss://localhost:{secured.valkey.mutual_port}/0",
            "ssl_certfile": str(certificate.certfile),
            "ssl_keyfile": str(certificate.keyfile),
        }
    client = RedisClient(_redis(overrides))
    cache = RedisRetrievalCache(client, ttl_seconds=60)
    store = RedisAnswerStore(client, ["classify"], ttl_seconds=60)
    with contextlib.closing(client):
        cache.set_many({"a": b"1", "b": b"2"})
        assert cache.get_many(["a", "b", "c"]) == [b"1", b"2", None]
        store.put_many("classify", {"a": b"3"})
        assert store.get_many("classify", ["a", "b"]) == [b"3", None]
    assert cache.counters.errors == store.counters["classify"].errors == 0
    with redis.Redis(connection_pool=client._pool) as other:
        for forbidden in (lambda: other.flushdb(), lambda: other.set("other", b"1"), lambda: other.keys("*")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                forbidden()
    client._pool.disconnect()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"password": WRONG}, "invalid username-password pair"),
        ({"url": "rediss://localhost:{mutual_port}/0"}, "certificate required|Connection closed|Connection reset"),
        ({"url": "rediss://127.0.0.1:{port}/0"}, "certificate verify failed"),
    ],
)
def test_a_cache_that_lets_nobody_in_is_away_and_says_why_without_the_password(
    secured: Secured, changed: Mapping[str, str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    ports = {"port": secured.valkey.port, "mutual_port": secured.valkey.mutual_port}
    client = RedisClient(
        _redis(secured.sections()["redis"] | {key: value.format(**ports) for key, value in changed.items()})
    )
    cache = RedisRetrievalCache(client, ttl_seconds=60)
    with contextlib.closing(client):
        assert cache.get_many(["a"]) == [None]
    assert cache.counters.errors == 1
    assert re.search(words, caplog.text)
    _assert_no_secret(secured, caplog.text + repr(client._pool) + repr(client._redis))


def _redis(overrides: Mapping[str, Any]) -> RedisSettings:
    # The bound is for a cache beside the worker; two TLS handshakes on a busy test machine take longer.
    return load_stream_settings(environ={}, overrides={"redis": {**overrides, "timeout_seconds": 5.0}}).redis


def _poll(consumer: Any) -> None:
    """Poll until it raises; fails when it does not for long."""
    wait_until(lambda: consumer.poll(timeout_ms=200) and False, timeout=10, what="an error")


def _assert_no_secret(secured: Secured, text: str) -> None:
    secrets = [
        *PASSWORDS.values(),
        PLAIN_PASSWORD,
        WRONG,
        secured.valkey.user_password,
        secured.valkey.default_password,
    ]
    assert [secret for secret in secrets if secret in text] == []
