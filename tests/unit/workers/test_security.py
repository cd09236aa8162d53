"""TLS, users and passwords: what the settings refuse, what the clients get, and what nobody gets to see."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import faust
import pytest

from el4ner.errors import ConfigError
from tests.support.certificates import Authority, Certificate
from workers import security
from workers.config import StreamSettings, load_stream_settings
from workers.security import HandshakeFilter, Unshown

SECRET = "sekrit"
SASL = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "u"}


@pytest.fixture(autouse=True)
def nothing_said_yet() -> Iterator[None]:
    """A warning is given once in a process."""
    security._warn_once.cache_clear()
    yield
    for name in security._WIRE_LOGGERS:
        logging.getLogger(name).removeFilter(security._HANDSHAKES)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue("client", key_password=SECRET)


def load(kafka: Mapping[str, Any] | None = None, redis: Mapping[str, Any] | None = None) -> StreamSettings:
    return load_stream_settings(environ={}, overrides={"kafka": kafka or {}, "redis": redis or {}})


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kafka", "words"),
    [
        ({**SASL, "sasl_username": None, "sasl_password": SECRET}, ["SASL_SSL needs sasl_username"]),
        ({**SASL, "sasl_mechanism": None, "sasl_password": SECRET}, ["SASL_SSL needs sasl_mechanism: PLAIN, SCRAM"]),
        (SASL, ["SASL_SSL needs sasl_password or sasl_password_file"]),
        ({"sasl_password": SECRET}, ["sasl_password has no effect with security_protocol PLAINTEXT", "SASL_SSL"]),
        ({**SASL, "security_protocol": "SSL"}, ["sasl_mechanism has no effect with security_protocol SSL"]),
        ({"ssl_check_hostname": False}, ["ssl_check_hostname has no effect with security_protocol PLAINTEXT"]),
        ({"security_protocol": "SSL", "ssl_cafile": "/no/ca.pem"}, ["kafka.ssl_cafile", "file that exists", "/no/ca"]),
        ({"security_protocol": "SSL", "ssl_keyfile": __file__}, ["ssl_keyfile is of no use without ssl_certfile"]),
        ({"security_protocol": "TLS"}, ["kafka.security_protocol", "'SASL_SSL'"]),
        ({**SASL, "sasl_password": ""}, ["kafka.sasl_password", "is empty"]),
        ({**SASL, "sasl_password": 1234567}, ["kafka.sasl_password", "put it in quotes"]),
        ({**SASL, "sasl_pasword": SECRET}, ["kafka.sasl_pasword", "no such setting"]),
        ({**SASL, "sasl_password": SECRET, "sasl_password_file": __file__}, ["are both set"]),
    ],
)
def test_wrong_kafka_settings_are_named_and_no_secret_is(kafka: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        load(kafka)
    for word in words:
        assert word in str(raised.value)
    _assert_hidden(raised.value, SECRET, "1234567")


@pytest.mark.parametrize(
    ("redis", "words"),
    [
        ({"username": "u"}, ["a username needs password or password_file"]),
        ({"url": f"redis://:{SECRET}@cache/0", "password": SECRET}, ["a password in url and another one beside it"]),
        ({"url": f"http://u:{SECRET}@cache"}, ["redis.url", "expected redis://"]),
        ({"url": f"u:{SECRET}@cache:1"}, ["redis.url", "expected redis://"]),
        ({"url": f"redis://u:p/{SECRET}@cache:1/0"}, ["percent-encoded"]),
        ({"url": f"redis://u:{SECRET}@cache:port/0"}, ["redis.url", "no number up to 65535"]),
        ({"url": "redis://cache", "ssl_check_hostname": False}, ["ssl_check_hostname has no effect without TLS"]),
        ({"url": 5}, ["redis.url"]),
    ],
)
def test_wrong_redis_settings_are_named_and_no_secret_is(redis: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        load(redis=redis)
    for word in words:
        assert word in str(raised.value)
    _assert_hidden(raised.value, SECRET)


def _assert_hidden(error: BaseException | None, *secrets: str) -> None:
    """In none of the errors that a traceback shows."""
    while error is not None:
        assert [secret for secret in secrets if secret in f"{error} {error!r}"] == []
        error = error.__cause__ or error.__context__


# --- where passwords come from --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "password", ["007", "true", '"quoted"', "2026-01-01", "[1]", "a\\b\tc\x7f", "käse \N{KEY}", "#x"]
)
def test_a_password_in_a_variable_is_taken_as_it_is(password: str) -> None:
    environ = {
        "EL4NER_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "EL4NER_KAFKA__SASL_MECHANISM": "PLAIN",
        "EL4NER_KAFKA__SASL_USERNAME": "42",
        "EL4NER_KAFKA__SASL_PASSWORD": password,
        "EL4NER_REDIS__PASSWORD": password,
    }
    settings = load_stream_settings(environ=environ)
    options = security.kafka_options(settings.kafka)
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("42", password)
    assert security.redis_options(settings.redis)["password"] == password


@pytest.mark.parametrize(("content", "password"), [("a b", "a b"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n")])
def test_one_line_end_after_a_password_in_a_file_does_not_count(tmp_path: Path, content: str, password: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(content.encode())
    settings = load({**SASL, "sasl_password_file": str(file)}, {"password_file": str(file)})
    assert security.kafka_options(settings.kafka)["sasl_plain_password"] == password
    assert security.redis_options(settings.redis)["password"] == password


@pytest.mark.parametrize(("content", "words"), [(b"\n", "is empty"), (b"\xff\xfe", "cannot be read as text")])
def test_a_password_file_that_holds_none_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"kafka.sasl_password_file: {file} {words}"):
        security.kafka_options(load({**SASL, "sasl_password_file": str(file)}).kafka)


@pytest.mark.parametrize(
    ("url", "bare", "username", "password"),
    [
        ("rediss://u:p%40ss@cache:1/2?db=3", "rediss://cache:1/2?db=3", "u", "p@ss"),
        ("redis://:p@cache", "redis://cache", None, "p"),
        ("redis://cache:1/0?password=p&timeout=2", "redis://cache:1/0?timeout=2", None, "p"),
        ("unix:///run/redis.sock?username=u&password=p", "unix:///run/redis.sock", "u", "p"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1", None, None),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0", None, None),
    ],
)
def test_user_and_password_leave_the_address_of_redis(
    url: str, bare: str, username: str | None, password: str | None
) -> None:
    settings = load_stream_settings(environ={"REDIS_URL": url}).redis
    assert settings.url == bare
    assert settings.username == username
    options = security.redis_options(settings)
    assert options.get("password") == password
    assert password is None or f"'{password}'" not in f"{settings!r} {settings.model_dump()} {options}"


# --- what the clients get -------------------------------------------------------------------------------------------


def test_without_security_clients_are_told_so_and_nothing_else() -> None:
    settings = load()
    assert security.kafka_options(settings.kafka) == {"security_protocol": "PLAINTEXT"}
    assert security.faust_credentials(settings.kafka) is None
    assert security.redis_options(settings.redis) == {}


def test_tls_checks_the_certificate_and_the_name_unless_told_otherwise(authority: Authority) -> None:
    tls = {"security_protocol": "SSL", "ssl_cafile": str(authority.cafile)}
    context = security.kafka_options(load(tls).kafka)["ssl_context"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    (trusted,) = context.get_ca_certs()
    assert trusted["subject"] == ((("commonName", authority.name),),)
    context = security.kafka_options(load({**tls, "ssl_check_hostname": False}).kafka)["ssl_context"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, False)


def test_faust_gets_the_same_as_the_other_clients() -> None:
    credentials = security.faust_credentials(load({**SASL, "sasl_password": SECRET}).kafka)
    assert isinstance(credentials, faust.SASLCredentials)
    assert (credentials.protocol.value, credentials.mechanism.value) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (credentials.username, credentials.password) == ("u", SECRET)
    assert isinstance(credentials.ssl_context, ssl.SSLContext)
    assert SECRET not in f"{credentials!r} {vars(credentials)}"
    plain = security.faust_credentials(
        load({**SASL, "security_protocol": "SASL_PLAINTEXT", "sasl_password": "p"}).kafka
    )
    assert (plain.protocol.value, plain.ssl_context) == ("SASL_PLAINTEXT", None)
    assert isinstance(security.faust_credentials(load({"security_protocol": "SSL"}).kafka), faust.SSLCredentials)


@pytest.mark.parametrize("password", [None, "wrong"])
def test_an_encrypted_key_without_its_password_is_named_and_nobody_is_asked(
    certificate: Certificate, password: str | None
) -> None:
    tls = {"ssl_certfile": str(certificate.certfile), "ssl_keyfile": str(certificate.keyfile)}
    tls |= {} if password is None else {"ssl_key_password": password}
    settings = load({"security_protocol": "SSL", **tls}, {"url": "rediss://cache", **tls})
    with pytest.raises(ConfigError, match=r"kafka\.ssl_keyfile: .*client.key.pem cannot be used: .*ssl_key_password"):
        security.kafka_options(settings.kafka)
    with pytest.raises(ConfigError, match=r"redis\.ssl_keyfile: .* cannot be used"):
        security.redis_options(settings.redis)


def test_an_encrypted_key_with_its_password_is_used(certificate: Certificate) -> None:
    tls = {"ssl_certfile": str(certificate.certfile), "ssl_keyfile": str(certificate.keyfile)}
    settings = load({"security_protocol": "SSL", **tls, "ssl_key_password": SECRET})
    assert isinstance(security.kafka_options(settings.kafka)["ssl_context"], ssl.SSLContext)
    assert SECRET not in repr(settings)


def test_a_file_of_authorities_that_holds_none_is_named() -> None:
    with pytest.raises(ConfigError, match=r"kafka\.ssl_cafile: .* holds no certificates"):
        security.kafka_options(load({"security_protocol": "SSL", "ssl_cafile": __file__}).kafka)


# --- what is said ---------------------------------------------------------------------------------------------------


def test_what_is_not_protected_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    settings = load(
        {**SASL, "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_password": SECRET},
        {"url": "redis://cache", "password": SECRET},
    )
    for _ in range(2):
        security.kafka_options(settings.kafka)
        security.redis_options(settings.redis)
    kafka, redis = (record.message for record in caplog.records)
    assert "SASL_PLAINTEXT: the password and every document go over the network unencrypted" in kafka
    assert "redis.url is redis://: the password goes over the network unencrypted" in redis


def test_with_a_user_the_clients_loggers_drop_what_authenticates(caplog: pytest.LogCaptureFixture) -> None:
    class SaslAuthenticateRequest:
        def __str__(self) -> str:
            return SECRET

    security.kafka_options(load({**SASL, "sasl_password": SECRET}).kafka)
    for name in ("aiokafka.conn", "kafka.net.connection", "kafka.protocol.parser"):
        caplog.set_level(logging.DEBUG, logger=name)
        client = logging.getLogger(name)
        client.debug("Request %d: %s", 1, SaslAuthenticateRequest())
        client.debug("Send: %r", SECRET.encode())
        client.debug("Request %d: %s", 2, "MetadataRequest")
    assert [record.getMessage() for record in caplog.records] == ["Request 2: MetadataRequest"] * 3


def test_records_without_arguments_pass() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "plain", None, None)
    assert HandshakeFilter().filter(record)


def test_an_unshown_text_is_a_text_but_for_its_repr() -> None:
    password = Unshown(SECRET)
    assert password == SECRET
    assert (f"{password}", password.encode(), "".join(["", password])) == (SECRET, SECRET.encode(), SECRET)
    assert SECRET not in repr({"password": password})
