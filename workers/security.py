"""What the clients of Kafka and Redis are given so that they connect as the settings say: TLS, users and passwords.

Passwords stay :class:`~pydantic.SecretStr` until here. From here they go into a client and nowhere else. The clients
are kept from logging them: kafka-python logs its whole configuration (:class:`Unshown`), and both Kafka clients what
they send (:class:`HandshakeFilter`).
"""

from __future__ import annotations

import functools
import logging
import ssl
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from typing_extensions import override

from el4ner.errors import ConfigError
from workers.config import KafkaSettings, RedisSettings, RegistrySettings, TlsSection, token_mistake

__all__ = [
    "HandshakeFilter",
    "Unshown",
    "bearer_token",
    "faust_credentials",
    "kafka_options",
    "redis_options",
    "registry_options",
]

log = logging.getLogger(__name__)

_WIRE_LOGGERS: Final = ("aiokafka.conn", "kafka.net.connection", "kafka.protocol.parser")
"""Where the Kafka clients log, at debug, what they send: with PLAIN the password too."""


class Unshown(str):
    """A text that its ``repr`` does not show: that is how configurations, variables and arguments are logged."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'**********'"


class HandshakeFilter(logging.Filter):
    """Drops records that hold a message of an authentication, or bytes as they go over the wire."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else (record.args,)
        return not any(
            isinstance(argument, bytes | bytearray | memoryview) or type(argument).__name__.startswith("Sasl")
            for argument in arguments
        )


_HANDSHAKES: Final = HandshakeFilter()


def kafka_options(settings: KafkaSettings) -> dict[str, Any]:
    """Keyword options for the clients of kafka-python and of aiokafka, which call them by the same names.

    Raises:
        ConfigError: a certificate, key or password file cannot be used; names the key.
    """
    _warn_and_hide(settings)
    options: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.uses_tls:
        options["ssl_context"] = _ssl_context(settings, "kafka")
    if settings.uses_sasl:
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = _password(
            settings.sasl_password, settings.sasl_password_file, "kafka.sasl_password"
        )
    return options


def faust_credentials(settings: KafkaSettings) -> Any:
    """The ``broker_credentials`` of a Faust app, for its consumer and its producer; None without TLS and SASL.

    Raises:
        ConfigError: a certificate, key or password file cannot be used; names the key.
    """
    # Imported here: it takes a second that `el4ner produce` need not pay.
    import faust

    options = kafka_options(settings)
    context = options.get("ssl_context")
    if settings.uses_sasl:
        return faust.SASLCredentials(
            mechanism=options["sasl_mechanism"],
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)


def redis_options(settings: RedisSettings) -> dict[str, Any]:
    """Keyword options for ``from_url`` of a redis-py client or pool, beside ``settings.url``.

    Raises:
        ConfigError: a certificate, key or password file cannot be used; names the key.
    """
    options: dict[str, Any] = {}
    if settings.password is not None or settings.password_file is not None:
        if settings.url.startswith("redis://"):
            _warn_once("redis.url is redis://: the password goes over the network unencrypted; use rediss://")
        options["username"] = settings.username
        options["password"] = _password(settings.password, settings.password_file, "redis.password")
    if settings.uses_tls:
        # The client makes a context of its own at every connection: what is wrong with the files is said here, once.
        _ssl_context(settings, "redis")
        _warn_if_names_are_not_checked(settings, "redis")
        options["ssl_check_hostname"] = settings.ssl_check_hostname
        options["ssl_ca_certs"] = _name(settings.ssl_cafile)
        options["ssl_certfile"] = _name(settings.ssl_certfile)
        options["ssl_keyfile"] = _name(settings.ssl_keyfile)
        options["ssl_password"] = _key_password(settings)
    return options


def registry_options(settings: RegistrySettings) -> dict[str, Any]:
    """Keyword options for a client of httpx that asks the schema registry.

    Raises:
        ConfigError: a certificate, key, password or token file cannot be used; names the key.
    """
    options: dict[str, Any] = {
        "base_url": settings.url,
        "timeout": settings.timeout_seconds,
        "headers": {"Accept": "application/vnd.schemaregistry.v1+json, application/json"},
    }
    if settings.uses_tls:
        options["verify"] = _ssl_context(settings, "kafka.registry")
        _warn_if_names_are_not_checked(settings, "kafka.registry")
    token = bearer_token(settings.token, settings.token_file, "kafka.registry.token")
    if token is not None:
        options["headers"]["Authorization"] = f"Bearer {token}"
    elif settings.username is not None:
        options["auth"] = (
            settings.username,
            _password(settings.password, settings.password_file, "kafka.registry.password"),
        )
    if not settings.uses_tls and (token is not None or settings.username is not None):
        _warn_once("kafka.registry.url is http://: the password goes over the network unencrypted; use https://")
    return options


def bearer_token(given: SecretStr | None, file: Path | None, key: str) -> Unshown | None:
    """A token that HTTP clients show, from the setting ``key`` (such as ``serve.token``) or its file; None: neither is
    set.

    Raises:
        ConfigError: the file cannot be used; names the key.
    """
    if given is None and file is None:
        return None
    token = _password(given, file, key)
    if (mistake := token_mistake(token)) is not None:
        raise ConfigError(f"{key}_file: {file}: {mistake}" if given is None else f"{key}: {mistake}")
    return token


def _ssl_context(settings: TlsSection, section: str) -> ssl.SSLContext:
    """A client's context: TLS 1.2 or newer, and the server's certificate is checked, always."""
    try:
        context = ssl.create_default_context(cafile=_name(settings.ssl_cafile))
    except OSError as error:  # also ssl.SSLError
        raise ConfigError(
            f"{section}.ssl_cafile: {settings.ssl_cafile} holds no certificates in PEM: {error}"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = settings.ssl_check_hostname
    if settings.ssl_certfile is not None:
        key = "ssl_certfile" if settings.ssl_keyfile is None else "ssl_keyfile"
        try:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, _key_password(settings))
        except OSError as error:
            raise ConfigError(
                f"{section}.{key}: {getattr(settings, key)} cannot be used: {error}; it takes a certificate and its "
                f"private key in PEM, and {section}.ssl_key_password if the key is encrypted"
            ) from error
    return context


def _key_password(settings: TlsSection) -> Unshown:
    # Never None: with an encrypted key, OpenSSL would ask for the password on the terminal and wait.
    return Unshown("" if settings.ssl_key_password is None else settings.ssl_key_password.get_secret_value())


def _password(given: SecretStr | None, file: Path | None, key: str) -> Unshown:
    if given is not None:
        return Unshown(given.get_secret_value())
    if file is None:
        raise ConfigError(f"{key} or {key}_file has to be set")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        # Neither the text nor the error, which may quote it.
        raise ConfigError(f"{key}_file: {file} cannot be read as text ({type(error).__name__})") from None
    # Editors and `echo` end a file with a new line; a password ends with none.
    password = text.removesuffix("\n").removesuffix("\r")
    if not password:
        raise ConfigError(f"{key}_file: {file} is empty")
    return Unshown(password)


def _name(path: Path | None) -> str | None:
    return None if path is None else str(path)


@functools.cache
def _warn_once(warning: str) -> None:
    log.warning(warning, extra={"component": "security"})


def _warn_and_hide(settings: KafkaSettings) -> None:
    """Warn of what is not protected, once in a process, and keep the clients from logging passwords."""
    if settings.uses_sasl:
        for name in _WIRE_LOGGERS:
            logging.getLogger(name).addFilter(_HANDSHAKES)
    if settings.security_protocol == "SASL_PLAINTEXT":
        what = "the password and every document go" if settings.sasl_mechanism == "PLAIN" else "every document goes"
        _warn_once(f"kafka.security_protocol is SASL_PLAINTEXT: {what} over the network unencrypted; use SASL_SSL")
    _warn_if_names_are_not_checked(settings, "kafka")


def _warn_if_names_are_not_checked(settings: TlsSection, section: str) -> None:
    if not settings.ssl_check_hostname:
        _warn_once(f"{section}.ssl_check_hostname is off: any server with a certificate of the authority is trusted")
