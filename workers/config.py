"""The stream's sections of the configuration file, beside the method's own (:mod:`el4ner.config`).

``KAFKA_BOOTSTRAP_SERVERS`` and ``REDIS_URL`` are read too, as every Kafka and Redis client's users expect; el4ner's own
``EL4NER_KAFKA__BOOTSTRAP_SERVERS`` and ``EL4NER_REDIS__URL`` win over them.

Passwords are :class:`~pydantic.SecretStr`: no ``repr``, error or dump shows them. :mod:`workers.security` makes of them
what the clients take.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from el4ner.canonical.entity_settings import EntitySettings
from el4ner.config import UNSHOWN_INPUT, Section, Settings, load_settings
from el4ner.errors import ConfigError
from el4ner.redaction.redaction_settings import RedactionSettings
from workers.value_path import ValuePath

__all__ = [
    "PATHS",
    "KafkaSettings",
    "ListenSection",
    "RedisSettings",
    "RegistrySettings",
    "ServeSettings",
    "StreamSettings",
    "TlsSection",
    "UiSettings",
    "WorkerSettings",
    "load_stream_settings",
    "token_mistake",
]

PositiveInt = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]

LITERAL_VARIABLES: Final = (
    "EL4NER_KAFKA__REGISTRY__PASSWORD",
    "EL4NER_KAFKA__REGISTRY__SSL_KEY_PASSWORD",
    "EL4NER_KAFKA__REGISTRY__TOKEN",
    "EL4NER_KAFKA__REGISTRY__USERNAME",
    "EL4NER_KAFKA__SASL_USERNAME",
    "EL4NER_KAFKA__SASL_PASSWORD",
    "EL4NER_KAFKA__SSL_KEY_PASSWORD",
    "EL4NER_REDACTION__KEYS",
    "EL4NER_REDIS__USERNAME",
    "EL4NER_REDIS__PASSWORD",
    "EL4NER_REDIS__SSL_KEY_PASSWORD",
    "EL4NER_SERVE__TOKEN",
    "EL4NER_UI__READER_TOKEN",
    "EL4NER_UI__SERVE_TOKEN",
    "EL4NER_UI__TEACHER_TOKEN",
)
"""Taken as they are: ``007`` is a password, not the number 7."""


def _text(value: Any) -> Any:
    # Checked before SecretStr does, whose error would show the value.
    if not isinstance(value, str | SecretStr):
        raise PydanticCustomError(UNSHOWN_INPUT, "expected text: put it in quotes")
    if not (value if isinstance(value, str) else value.get_secret_value()):
        raise PydanticCustomError(UNSHOWN_INPUT, "is empty")
    return value


def _readable(path: Path) -> Path:
    if not path.is_file():
        raise ValueError("expected a file that exists")
    if not os.access(path, os.R_OK):
        raise ValueError("expected a file that this user may read")
    return path


def _network(value: str) -> str:
    ipaddress.ip_network(value)  # a ValueError says what is wrong
    return value


Secret = Annotated[SecretStr, BeforeValidator(_text)]
File = Annotated[Path, AfterValidator(_readable)]
Network = Annotated[str, AfterValidator(_network)]


class TlsSection(Section):
    """What a TLS client needs; the files are PEM."""

    ssl_cafile: File | None = None
    """Whose certificates are trusted; without it those that the system trusts."""
    ssl_certfile: File | None = None
    """The client's own certificate (and what it was signed with), where the server asks for one."""
    ssl_keyfile: File | None = None
    """The private key of ``ssl_certfile``; without it the key is expected in that file."""
    ssl_key_password: Secret | None = None
    ssl_check_hostname: bool = True
    """Whether the server's certificate has to name the host that was connected to."""

    @model_validator(mode="after")
    def _key_has_its_certificate(self) -> Self:
        for key in ("ssl_keyfile", "ssl_key_password"):
            if getattr(self, key) is not None and self.ssl_certfile is None:
                raise ValueError(f"{key} is of no use without ssl_certfile: name the certificate too")
        return self

    @property
    def _tls_keys(self) -> list[str]:
        """The keys that were set to anything but their defaults."""
        return [
            key for key in TlsSection.model_fields if getattr(self, key) != TlsSection.model_fields[key].get_default()
        ]


class RegistrySettings(TlsSection):
    """``[kafka.registry]``: the schema registry that says how framed values (Confluent's wire format) are written: Avro
    and Protobuf are read by it. It is asked by the interface that Confluent's, Karapace and Apicurio share."""

    url: str | None = None
    """Such as ``https://registry:8081``; Apicurio's ends in ``/apis/ccompat/v7``."""
    username: Annotated[str, Field(min_length=1)] | None = None
    password: Secret | None = None
    password_file: File | None = None
    """A file that holds the password; one line end after it does not count."""
    token: Secret | None = None
    """A bearer token, instead of a user."""
    token_file: File | None = None
    timeout_seconds: Seconds = 10.0
    """For a connection and for each answer. A question that is not answered is asked again, for as long as it takes."""

    @field_validator("url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "http://localhost")
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            # Not shown: there may be a password in it.
            raise PydanticCustomError(
                UNSHOWN_INPUT, "expected http://HOST:PORT or https://…, without user and password: these are keys here"
            )
        return value

    @model_validator(mode="after")
    def _registry_security_is_whole(self) -> Self:
        set_keys = [key for key in type(self).model_fields if key != "url" and key in self.model_fields_set]
        if self.url is None and set_keys:
            raise ValueError(f"{set_keys[0]} has no effect without url: say where the registry is, or leave it out")
        token = self.token is not None or self.token_file is not None
        user = self.username is not None or self.password is not None or self.password_file is not None
        if token and user:
            raise ValueError("a user and a token are both set: leave one of them out")
        if self.token is not None and self.token_file is not None:
            raise ValueError("token and token_file are both set: leave one of them out")
        if user:
            _exactly_one_password(self.password, self.password_file, "password", "a username")
            if self.username is None:
                raise ValueError("a password needs username: the user's name")
        if self._tls_keys and not self.uses_tls:
            raise ValueError(f"{self._tls_keys[0]} has no effect without TLS: start url with https://, or leave it out")
        return self

    @property
    def uses_tls(self) -> bool:
        """Whether what is sent is encrypted."""
        return self.url is not None and self.url.startswith("https://")


PATHS: Final = ("text_path", "id_path", "revision_path")
"""Settings that say where a message has something."""


class KafkaSettings(TlsSection):
    """``[kafka]``: where the broker is, and what its topics look like."""

    bootstrap_servers: Annotated[str, Field(min_length=1)] = "localhost:9092"
    """``host:port``, several with commas."""
    topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$", max_length=100)] = ""
    """Put before every topic's and every consumer group's name, so that several pipelines share a cluster."""
    partitions: PositiveInt = 4
    replication: PositiveInt = 1
    retention_hours: Seconds = 168.0
    """How long documents, stage messages and results are kept. Dead letters are kept four times as long."""
    max_message_bytes: PositiveInt = 8 * 1024 * 1024
    """The largest document message that comes in (and goes, byte for byte, to the dead letters)."""
    documents_topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=249)] | None = None
    """The topic that documents are read from, as it is called (no prefix is put before it); None: ``documents``."""
    text_path: str | None = None
    """Where the messages of ``documents`` have their text, if they are not el4ner's: ``payload.after.body``."""
    id_path: str | tuple[str, ...] | None = None
    """Where they have the document's id: of several places the first one that has one; without any, the key."""
    revision_path: str | None = None
    """Where they have a number that grows with each new text of a document."""
    registry: RegistrySettings = RegistrySettings()
    value_format: Literal["json", "json-schema", "avro", "protobuf"] = "json"
    """How results are written (tagged documents, mentions, redacted documents, entities, trends): all but ``json`` have
    Confluent's frame, with the id of their schema in ``registry``; behind it ``json-schema`` has the JSON."""
    session_timeout_seconds: Annotated[float, Field(ge=6)] = 10.0
    """A worker that was killed is replaced after this long."""
    max_poll_interval_seconds: Seconds = 3600.0
    """A worker that makes no progress for this long loses its partitions: longer than the slowest batch."""
    request_timeout_seconds: Seconds = 30.0
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How the listener behind ``bootstrap_servers`` is spoken to; both SSL ones are TLS."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: Annotated[str, Field(min_length=1)] | None = None
    sasl_password: Secret | None = None
    sasl_password_file: File | None = None
    """A file that holds the password, such as a mounted secret; one line end after it does not count."""

    @field_validator("bootstrap_servers")
    @classmethod
    def _has_servers(cls, value: str) -> str:
        servers = [server.strip() for server in value.split(",")]
        for server in servers:
            host, colon, port = server.rpartition(":")
            if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
                raise ValueError(f"{server!r} is not host:port; several servers have commas between them")
        return ",".join(servers)

    @field_validator(*PATHS)
    @classmethod
    def _is_path(cls, value: str | tuple[str, ...] | None, info: ValidationInfo) -> str | tuple[str, ...] | None:
        for written in (value,) if isinstance(value, str) else value or ():
            ValuePath.parse(str(info.field_name), written)
        return value

    @model_validator(mode="after")
    def _frames_have_a_registry(self) -> Self:
        if self.value_format != "json" and self.registry.url is None:
            raise ValueError(f"value_format {self.value_format} needs registry.url: where schemas are registered")
        return self

    @model_validator(mode="after")
    def _paths_have_a_text(self) -> Self:
        for key in ("id_path", "revision_path"):
            if getattr(self, key) is not None and self.text_path is None:
                raise ValueError(f"{key} has no effect without text_path: say where the text is, or leave {key} out")
        return self

    @model_validator(mode="after")
    def _security_is_whole(self) -> Self:
        sasl = {key: getattr(self, key) for key in type(self).model_fields if key.startswith("sasl_")}
        if self.uses_sasl:
            _exactly_one_password(self.sasl_password, self.sasl_password_file, "sasl_password", self.security_protocol)
            for key, allowed in (
                ("sasl_mechanism", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
                ("sasl_username", "the user's name"),
            ):
                if sasl[key] is None:
                    raise ValueError(f"security_protocol {self.security_protocol} needs {key}: {allowed}")
        elif set_keys := [key for key, value in sasl.items() if value is not None]:
            # Not passed over: who sets a password must not end up without authentication.
            raise ValueError(
                f"{set_keys[0]} has no effect with security_protocol {self.security_protocol}: "
                "set it to SASL_SSL (or SASL_PLAINTEXT, without TLS), or leave the sasl_ settings out"
            )
        if self._tls_keys and not self.uses_tls:
            raise ValueError(
                f"{self._tls_keys[0]} has no effect with security_protocol {self.security_protocol}: "
                "set it to SSL or SASL_SSL, or leave the ssl_ settings out"
            )
        return self

    @property
    def servers(self) -> list[str]:
        """``bootstrap_servers`` as a list."""
        return self.bootstrap_servers.split(",")

    @property
    def uses_tls(self) -> bool:
        """Whether what is sent is encrypted."""
        return self.security_protocol in ("SSL", "SASL_SSL")

    @property
    def uses_sasl(self) -> bool:
        """Whether a user and a password are shown to the broker."""
        return self.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")


_URL_CREDENTIALS: Final = {"username": "username", "password": "password", "ssl_password": "ssl_key_password"}


class RedisSettings(TlsSection):
    """``[redis]``: what workers keep for each other: answers by content, and, in modes whose prompts show
    demonstrations, which ones a sentence got. Without it everything works, slower.

    A user and a password that ``url`` holds are moved to ``username`` and ``password``: the address may be shown.
    """

    enabled: bool = True
    url: str = "redis://localhost:6379/0"
    """``redis://`` without TLS, ``rediss://`` with it, ``unix://`` for a socket of this machine."""
    username: Annotated[str, Field(min_length=1)] | None = None
    """None: the server's default user, whom a password alone is for."""
    password: Secret | None = None
    password_file: File | None = None
    """A file that holds the password; one line end after it does not count."""
    ttl_seconds: PositiveInt = 86_400
    """How long it is kept which demonstrations a sentence got."""
    share_answers: bool = True
    """A sentence or line template that any worker was asked about is answered by all, also after a restart
    (``method.repeats``)."""
    answer_ttl_seconds: PositiveInt = 604_800
    """How long an answer is kept after it was last written."""
    max_connections: PositiveInt = 8
    timeout_seconds: Seconds = 0.25
    """For a connection and for each answer: a cache that is slower than this is no help."""
    retry_seconds: Annotated[float, Field(ge=0)] = 5.0
    """How long an unreachable cache is left alone before it is tried again."""

    @model_validator(mode="before")
    @classmethod
    def _credentials_leave_the_url(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("url"), str):
            return data
        bare, credentials = _split_credentials(data["url"])
        for key in credentials:
            if any(name in data for name in (key, f"{key}_file")):
                raise ValueError(f"there is a {key} in url and another one beside it: leave one of them out")
        return {**data, **credentials, "url": bare}

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if not value.startswith(("redis://", "rediss://", "unix://")):
            # Not shown: with a wrong beginning, a password in it was not recognised as one.
            raise PydanticCustomError(UNSHOWN_INPUT, "expected redis://HOST:PORT/DB, rediss://… (TLS) or unix://PATH")
        try:
            _ = urlsplit(value).port
        except ValueError:
            raise PydanticCustomError(UNSHOWN_INPUT, "the port is no number up to 65535") from None
        return value

    @model_validator(mode="after")
    def _security_is_whole(self) -> Self:
        if self.password is not None or self.password_file is not None or self.username is not None:
            _exactly_one_password(self.password, self.password_file, "password", "a username")
        if self._tls_keys and not self.uses_tls:
            raise ValueError(
                f"{self._tls_keys[0]} has no effect without TLS: start url with rediss://, or leave it out"
            )
        return self

    @property
    def uses_tls(self) -> bool:
        """Whether what is sent is encrypted."""
        return self.url.startswith("rediss://")


def _exactly_one_password(password: SecretStr | None, file: Path | None, key: str, who: str) -> None:
    if password is None and file is None:
        raise ValueError(f"{who} needs {key} or {key}_file")
    if password is not None and file is not None:
        raise ValueError(f"{key} and {key}_file are both set: leave one of them out")


def _split_credentials(url: str) -> tuple[str, dict[str, str]]:
    """The address, and the user and password that came with it: in front or in the query; redis-py reads both."""
    parts = urlsplit(url)
    userinfo, at, address = parts.netloc.rpartition("@")
    if parts.scheme in ("redis", "rediss") and url.count("@") > bool(at):
        # What is behind the first / ? or # would stay in the address, where everybody sees it.
        raise ValueError("user and password in url have to be percent-encoded: @ is %40, / is %2F, # is %23, ? is %3F")
    username, _, password = userinfo.partition(":")
    credentials = {"username": unquote(username), "password": unquote(password)}
    query = parse_qsl(parts.query, keep_blank_values=True)
    other_options = [(key, value) for key, value in query if key not in _URL_CREDENTIALS]
    credentials |= {_URL_CREDENTIALS[key]: value for key, value in query if key in _URL_CREDENTIALS}
    bare = f"{parts.scheme}://{address}{parts.path}{'?' if other_options else ''}{urlencode(other_options)}"
    credentials = {key: value for key, value in credentials.items() if value}
    return (bare if at or len(other_options) < len(query) else url), credentials


class WorkerSettings(Section):
    """``[worker]``: batching, the join's clock, and the process."""

    batch_documents: PositiveInt = 32
    batch_kb: PositiveInt = 512
    """A batch whose messages are larger than this together is made smaller, down to one document."""
    batch_seconds: Seconds = 0.1
    """How long a batch may wait to become full while the engine works; an idle one is not kept waiting."""
    batches_in_flight: PositiveInt = 4
    """Batches whose answers are still on their way to Kafka while the next one is worked on."""
    batch_deadline_seconds: Seconds = 600.0
    """An engine that has not answered a call by then hangs: the worker ends, to be started again."""
    retries: Annotated[int, Field(ge=0)] = 5
    """How often a call is made again that failed for a reason which may pass."""
    retry_seconds: Seconds = 0.5
    """Before the first retry; doubled for every further one, up to half a minute."""
    max_crashes: PositiveInt = 3
    """A document over which so many workers died is given up; from the second time on it is worked on alone."""
    max_failure_run: PositiveInt = 100
    """So many documents that fail one after another stop the worker."""
    max_failure_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A greater share of the last 500 documents that fail stops the worker."""
    publish_stages: bool = False
    """Of ``el4ner worker pipeline``: the stages' messages go to their topics too, in the document's transaction."""
    lines_ahead: Annotated[int, Field(ge=0)] = 10_000
    """Of ``el4ner worker pipeline``: how far ahead of a document that waits for a model known log lines come out, in
    offsets of their partition; 0: everything comes out in its order."""
    read_ahead: bool = True
    """While nobody asks for anything, the pools that have yet to be read are read."""
    max_held_documents: PositiveInt = 10_000
    max_held_mb: PositiveInt = 64
    """While a pool is read its documents wait, and others pass. When so many wait, or take so much memory, all do."""
    follow_examples: bool = True
    """Pools are taught what the topic ``pool-examples`` has. See docs/teaching.md."""
    members: Annotated[list[str], Field(min_length=1)] | None = None
    """The ensemble's members that this process hosts; none given: all. See docs/streaming.md."""
    deadline_seconds: Seconds = 3600.0
    """A document whose stages have not all answered so long after its first one is emitted with what there is."""
    members_deadline_seconds: Seconds = 60.0
    """Members that have not answered so long after the first one are gone on without."""
    remember_seconds: Seconds = 3600.0
    """How long a finished document is remembered, so that late or repeated messages emit nothing."""
    checkpoint_seconds: Seconds = 30.0
    """A document that is open for longer is written down, so that its messages need not be read again."""
    max_open_documents: PositiveInt = 50_000
    max_open_mb: PositiveInt = 256
    """When so many documents are open, or their messages take so much memory, no new ones are read."""
    data_dir: Path = Path(".el4ner/workers")
    """Where a process notes what it is working on; nothing in it is needed to go on."""
    web_port: Annotated[int, Field(ge=0, lt=65536)] | None = None
    """Port of ``/livez``, ``/readyz``, ``/healthz`` and ``/metrics``; 0 takes a free one; none: no web server."""
    web_host: str = "127.0.0.1"
    stall_seconds: Seconds = 900.0
    """A partition that has messages and has not got on for longer makes ``/livez`` answer 503."""
    tracing: bool = False
    """Export OpenTelemetry spans, as the ``OTEL_*`` variables say; needs ``el4ner[otel]``."""
    shutdown_seconds: Seconds = 30.0
    """How long a stopping worker finishes what it has begun."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """``auto``: console on a terminal, otherwise JSON lines."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _documents_are_written_down_in_time(self) -> Self:
        if self.checkpoint_seconds >= self.stall_seconds:
            raise ValueError(
                f"checkpoint_seconds is {self.checkpoint_seconds:g} and stall_seconds {self.stall_seconds:g}: "
                "a document that waits for an answer would count as a stall; make checkpoint_seconds smaller"
            )
        return self


class ListenSection(Section):
    """Where an HTTP service listens, and what its slow clients may cost. ``section``: its name in the file."""

    section: ClassVar[str]
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """An address or name of this machine."""
    port: Annotated[int, Field(ge=0, lt=65536)]
    """0 takes a free one."""
    max_connections: PositiveInt = 256
    """Further ones are closed at once."""
    read_seconds: Seconds = 10.0
    """How long a client may take for a request's head, again for its body, and to read the answer."""

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can connect to ``host``."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def url_at(self, port: int) -> str:
        """Of the service, for people: it listens on this port."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{port}/"


def _token(value: SecretStr) -> SecretStr:
    if (mistake := token_mistake(value.get_secret_value())) is not None:
        raise PydanticCustomError(UNSHOWN_INPUT, mistake)
    return value


Token = Annotated[Secret, AfterValidator(_token)]


class ServeSettings(ListenSection):
    """``[serve]``: the tagger as an HTTP service. Batches and the process's end are as ``[worker]`` says.

    Any ``host`` but a loopback one takes a token.
    """

    section: ClassVar[str] = "serve"
    port: Annotated[int, Field(ge=0, lt=65536)] = 8088
    token: Token | None = None
    """Clients send it as ``Authorization: Bearer TOKEN``."""
    token_file: File | None = None
    """A file that holds the token; one line end after it does not count."""
    follow_examples: bool = False
    """Pools are taught what the topic ``pool-examples`` has, as workers' are: needs ``[kafka]``."""
    max_texts: PositiveInt = 256
    """In one request."""
    max_request_kb: PositiveInt = 1024
    """The largest body of a request."""
    max_waiting_texts: PositiveInt = 2000
    """Texts that are accepted and not answered yet. Beyond, a request is refused with 429."""
    max_waiting_mb: PositiveInt = 64
    """The same, by the size of the requests' bodies."""
    request_seconds: Seconds = 60.0
    """A request that is not answered so long after it was read is answered with 504, and not worked on any more."""

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise ValueError("token and token_file are both set: leave one of them out")
        if not self.is_loopback and not self.has_token:
            raise ValueError(
                f"host {self.host!r} is more than this machine: set token (better EL4NER_SERVE__TOKEN, or token_file), "
                "or take 127.0.0.1"
            )
        if self.max_texts > self.max_waiting_texts:
            raise ValueError("max_texts is more than max_waiting_texts: such a request would never be accepted")
        if self.max_request_kb > self.max_waiting_mb << 10:
            raise ValueError("max_request_kb is more than max_waiting_mb: such a request would never be accepted")
        return self

    @property
    def has_token(self) -> bool:
        """Whether clients have to show one."""
        return self.token is not None or self.token_file is not None


class UiSettings(ListenSection):
    """``[ui]``: the page. Any ``host`` but a loopback one takes a token, or a proxy that says who asks.

    On a loopback address without either, whoever can connect is a teacher.
    """

    section: ClassVar[str] = "ui"
    port: Annotated[int, Field(ge=0, lt=65536)] = 8090
    max_connections: PositiveInt = 128
    reader_token: Token | None = None
    """Who shows it sees everything, and changes nothing."""
    reader_token_file: File | None = None
    teacher_token: Token | None = None
    """Who shows it may also teach, merge and split entities, and send dead letters again."""
    teacher_token_file: File | None = None
    proxy_user_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] | None = None
    """The header in which an OpenID proxy says who asks, such as ``X-Forwarded-Email``."""
    proxy_addresses: Annotated[tuple[Network, ...], Field(min_length=1)] = ("127.0.0.1/32", "::1/128")
    """Addresses of that proxy: from no other one is anything answered then."""
    teachers: tuple[str, ...] = ()
    """Those users of the proxy who are teachers; the others are readers."""
    hosts: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Names by which the page is asked for (``Host``); none given: any, where who asks has to show who they are."""
    serve_url: str | None = None
    """Where `el4ner serve` tags the texts that are tried."""
    serve_token: Secret | None = None
    serve_token_file: File | None = None
    metrics_urls: tuple[str, ...] = ()
    """Workers' ``/metrics``: what the page shows of their health."""
    live_documents: Annotated[int, Field(gt=0, le=200)] = 20
    """The most documents that a viewer is sent in a second; of more, these are a sample."""
    keep_documents: PositiveInt = 500
    """How many of the latest documents are kept, in memory."""
    keep_mb: PositiveInt = 32
    """The same, by their size."""
    trend_names: Annotated[int, Field(gt=0, le=100_000)] = 1_000
    """How many names are counted in each span of time (docs/ui.md says what that costs)."""
    keep_entities: PositiveInt = 100_000
    """How many names of the topic entities are held (docs/ui.md says what that costs)."""

    @field_validator("serve_url", "metrics_urls")
    @classmethod
    def _are_urls(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for url in [value] if isinstance(value, str) else value or ():
            if not _is_http_url(url):
                raise PydanticCustomError(UNSHOWN_INPUT, "expected http://HOST:PORT/… or https://…, without a user")
        return value

    @model_validator(mode="after")
    def _access_is_clear(self) -> Self:
        for key in ("reader_token", "teacher_token", "serve_token"):
            if getattr(self, key) is not None and getattr(self, f"{key}_file") is not None:
                raise ValueError(f"{key} and {key}_file are both set: leave one of them out")
        if self.proxy_user_header is not None and self.has_token:
            raise ValueError("proxy_user_header and a token are both set: who asks is told by one of the two")
        if self.teachers and self.proxy_user_header is None:
            raise ValueError("teachers are users of a proxy: set proxy_user_header too, or use teacher_token")
        if self.proxy_user_header is None and not self.has_token and not self.is_loopback:
            raise ValueError(
                f"host {self.host!r} is more than this machine: set reader_token or teacher_token (better "
                "EL4NER_UI__TEACHER_TOKEN, or teacher_token_file), or proxy_user_header, or take 127.0.0.1"
            )
        return self

    @property
    def has_token(self) -> bool:
        """Whether people have to show one."""
        given = (self.reader_token, self.reader_token_file, self.teacher_token, self.teacher_token_file)
        return any(each is not None for each in given)


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:  # the port, or an address in brackets; it would quote what may be a password
        return False
    return named and parts.scheme in ("http", "https") and url.isprintable() and " " not in url


MIN_TOKEN_CHARS: Final = 16


def token_mistake(token: str) -> str | None:
    """Why it is no bearer token (RFC 6750), or one that is easily guessed; None: it is one. Does not quote it."""
    if re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token) is None:
        return "expected letters, digits and ._~+/- alone, such as `openssl rand -hex 32` prints"
    if len(token) < MIN_TOKEN_CHARS:
        return f"expected at least {MIN_TOKEN_CHARS} characters, such as `openssl rand -hex 32` prints"
    return None


class StreamSettings(Settings):
    """The whole file."""

    entities: EntitySettings = EntitySettings()
    kafka: KafkaSettings = KafkaSettings()
    redaction: RedactionSettings = RedactionSettings()
    redis: RedisSettings = RedisSettings()
    worker: WorkerSettings = WorkerSettings()
    serve: ServeSettings = ServeSettings()
    ui: UiSettings = UiSettings()


BOOTSTRAP_VARIABLES: Final = ("EL4NER_KAFKA__BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP_SERVERS")
"""Variables that say where the broker is; the first one wins."""


def load_stream_settings(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Any] | None = None,
) -> StreamSettings:
    """As :func:`el4ner.config.load_settings`, with the stream's sections and the two usual variables.

    Raises:
        ConfigError: names the key (or the variable) and what is allowed.
    """
    usual = {
        "EL4NER_KAFKA__BOOTSTRAP_SERVERS": environ.get("KAFKA_BOOTSTRAP_SERVERS"),
        "EL4NER_REDIS__URL": environ.get("REDIS_URL"),
    }
    merged = {**{name: value for name, value in usual.items() if value}, **environ}
    for name in LITERAL_VARIABLES:
        if name in environ:
            merged[name] = json.dumps(environ[name], ensure_ascii=False).replace("\x7f", "\\u007f")
    try:
        return load_settings(StreamSettings, path, environ=merged, overrides=overrides)
    except ConfigError as error:
        message = str(error)
        for ours, theirs in (
            ("EL4NER_KAFKA__BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP_SERVERS"),
            ("EL4NER_REDIS__URL", "REDIS_URL"),
        ):
            if ours not in environ:
                message = message.replace(f"(from {ours})", f"(from {theirs})")
        raise ConfigError(message) from error
