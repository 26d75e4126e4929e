"""The Kafka door's security with real clients: TLS, SASL, client certificates, access rules.

One node has a listener of every kind, and rules in force: `admin` is its super user, everybody else
may do what a test allows. Certificates are made by openssl for the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError as AioKafkaError
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from conftest import Node, binary, eventually, free_low_port
from security import allow, make_certificates, rule

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
PASSWORDS = {"admin": "correct horse", "alice": "pencil", "bob": "battery staple"}
CONFIG = """
[auth]
authorizer = "acl"
super_users = ["User:admin"]
password_hash_memory_bytes = 7340032
failures_max = 100000

[[kafka.listeners]]
name = "SASL"
listen = "127.0.0.1:0"
security = "sasl_plaintext"

[[kafka.listeners]]
name = "SECURE"
listen = "127.0.0.1:0"
advertised = "localhost:{secure_port}"
security = "sasl_ssl"
[kafka.listeners.tls]
certificate_file = "{dir}/node.pem"
private_key_file = "{dir}/node.key"

[[kafka.listeners]]
name = "CERT"
listen = "127.0.0.1:0"
security = "ssl"
[kafka.listeners.tls]
certificate_file = "{dir}/node.pem"
private_key_file = "{dir}/node.key"
client_auth = "required"
client_ca_file = "{dir}/ca.pem"
principal_mapping_rules = "RULE:^CN=([a-z]+).*$/$1/, DEFAULT"
"""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with a listener of every kind and its users."""
    directory = tmp_path_factory.mktemp("secured")
    make_certificates(directory)
    port = free_low_port()
    config = CONFIG.format(dir=directory, secure_port=port)
    # The one that advertises a name of its own must know its port before.
    config = config.replace(
        'name = "SECURE"\nlisten = "127.0.0.1:0"', f'name = "SECURE"\nlisten = "127.0.0.1:{port}"'
    )
    with Node(directory, config=config) as node:
        for name, password in PASSWORDS.items():
            node.create_user(name, password)
        yield node.start()


def options(
    node: Node,
    listener: str,
    user: str = "admin",
    mechanism: str = "SCRAM-SHA-256",
    password: str | None = None,
) -> dict[str, Any]:
    """librdkafka's configuration for a listener."""
    found: dict[str, Any] = {
        "bootstrap.servers": f"localhost:{node.ports[f'kafka/{listener}']}",
        "broker.address.family": "v4",
    }
    if listener != "SASL":
        found["ssl.ca.location"] = str(node.workdir / "ca.pem")
    if listener == "CERT":
        found["security.protocol"] = "ssl"
        found["ssl.certificate.location"] = str(node.workdir / "carol.pem")
        found["ssl.key.location"] = str(node.workdir / "carol.key")
        return found
    return found | {
        "security.protocol": "sasl_plaintext" if listener == "SASL" else "sasl_ssl",
        "sasl.mechanism": mechanism,
        "sasl.username": user,
        "sasl.password": PASSWORDS[user] if password is None else password,
    }


@pytest.fixture
def admin(secured: Node) -> AdminClient:
    """The super user, by TLS."""
    return AdminClient(options(secured, "SECURE"))


def create(admin: AdminClient, topic: str) -> None:
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)


def produce(settings: dict[str, Any], topic: str, values: list[bytes]) -> list[KafkaError]:
    """Sends and returns the errors that deliveries ended with."""
    errors: list[KafkaError] = []
    producer = Producer(settings | {"message.timeout.ms": 20_000})

    def delivered(error: KafkaError | None, _: object) -> None:
        if error is not None:
            errors.append(error)

    for value in values:
        producer.produce(topic, value, on_delivery=delivered)
    assert producer.flush(30) == 0
    return errors


def consume(settings: dict[str, Any], topic: str, group: str, count: int) -> list[bytes]:
    """The first records of a topic, read as a member of a group."""
    consumer = Consumer(settings | {"group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    values: list[bytes] = []
    try:
        while len(values) < count:
            message = consumer.poll(30)
            assert message is not None, f"{len(values)} of {count} records within 30 s"
            if message.error():
                raise KafkaException(message.error())
            values.append(message.value())
        consumer.commit(asynchronous=False)
        return values
    finally:
        consumer.close()


# --- coming in ------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("listener", ("SASL", "SECURE"))
def test_librdkafka_signs_in_by_every_mechanism(
    secured: Node, listener: str, mechanism: str
) -> None:
    settings = options(secured, listener, mechanism=mechanism)
    topic = f"sasl-{listener}-{mechanism}"
    create(AdminClient(settings), topic)
    values = [b"%d " % n + b"x" * 50_000 for n in range(40)]
    assert produce(settings, topic, values) == []
    assert consume(settings, topic, topic, 40) == values


def test_clients_are_told_the_address_of_their_listener(secured: Node) -> None:
    secure = AdminClient(options(secured, "SECURE")).list_topics(timeout=20)
    sasl = AdminClient(options(secured, "SASL")).list_topics(timeout=20)
    (secure_broker,), (sasl_broker,) = secure.brokers.values(), sasl.brokers.values()
    assert (secure_broker.host, secure_broker.port) == ("localhost", secured.ports["kafka/SECURE"])
    assert (sasl_broker.host, sasl_broker.port) == ("127.0.0.1", secured.ports["kafka/SASL"])


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_wrong_password_is_told_to_the_client(secured: Node, mechanism: str) -> None:
    errors: list[KafkaError] = []
    settings = options(secured, "SECURE", "alice", mechanism, password="pen")
    client = AdminClient(settings | {"error_cb": errors.append})

    def refused() -> bool:
        client.poll(0.1)
        return any(error.code() == KafkaError._AUTHENTICATION for error in errors)

    eventually(refused, within_s=20, what="an authentication error")
    # librdkafka makes one line of it; the sentence is Kafka's.
    assert any("Authentication failed" in error.str() for error in errors), errors


def test_a_certificate_names_its_user(secured: Node, admin: AdminClient) -> None:
    topic = "for-carol"
    create(admin, topic)
    settings = options(secured, "CERT")
    (refused,) = produce(settings, topic, [b"x"])
    assert refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    group = rule("carol", AclOperation.READ, "carols", kind=ResourceType.GROUP)
    allow(admin, rule("carol", AclOperation.ALL, topic), group)
    assert produce(settings, topic, [b"x"]) == []
    assert consume(settings, topic, "carols", 1) == [b"x"]


def test_who_has_no_certificate_or_speaks_no_tls_is_not_served(secured: Node) -> None:
    bare = options(secured, "CERT")
    del bare["ssl.certificate.location"], bare["ssl.key.location"]
    plain = {"bootstrap.servers": bare["bootstrap.servers"], "broker.address.family": "v4"}
    for settings in (bare, plain):
        with pytest.raises(KafkaException):
            AdminClient(settings).list_topics(timeout=3)
    lines = secured.stderr_tail()
    assert "the client does not speak TLS, and this listener does" in lines


# --- what may be done -----------------------------------------------------------------------


def test_without_rules_nothing_is_allowed_or_shown(secured: Node, admin: AdminClient) -> None:
    topic = "closed"
    create(admin, topic)
    alice = options(secured, "SASL", "alice")
    (refused,) = produce(alice, topic, [b"x"])
    assert refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    with pytest.raises(KafkaException) as read:
        consume(alice, topic, "alices", 1)
    assert read.value.args[0].code() in (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    )
    client = AdminClient(alice)
    assert topic not in client.list_topics(timeout=20).topics
    with pytest.raises(KafkaException) as made:
        client.create_topics([NewTopic("another", 1, 1)])["another"].result(30)
    assert made.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    # librdkafka keeps the error of this one to itself.
    assert client.describe_acls(every_rule()).result(30) == []
    with pytest.raises(KafkaException) as ruled:
        allow(client, rule("alice", AclOperation.ALL, topic))
    assert ruled.value.args[0].code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED
    anonymous = AdminClient({"bootstrap.servers": secured.bootstrap})
    assert topic not in anonymous.list_topics(timeout=20).topics


def test_prefixes_allow_and_denials_count_more(secured: Node, admin: AdminClient) -> None:
    for topic in ("bobs-open", "bobs-closed"):
        create(admin, topic)
    prefixed = ResourcePatternType.PREFIXED
    deny = AclPermissionType.DENY
    allow(
        admin,
        rule("bob", AclOperation.WRITE, "bobs-", pattern=prefixed),
        rule("bob", AclOperation.WRITE, "bobs-closed", permission=deny),
    )
    bob = options(secured, "SASL", "bob", "PLAIN")
    assert produce(bob | {"enable.idempotence": True}, "bobs-open", [b"x"]) == []
    (refused,) = produce(bob, "bobs-closed", [b"x"])
    assert refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def every_rule(**wanted: Any) -> AclBindingFilter:
    return AclBindingFilter(
        wanted.get("kind", ResourceType.ANY),
        wanted.get("name"),
        wanted.get("pattern", ResourcePatternType.ANY),
        wanted.get("principal"),
        None,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )


def test_rules_are_edited_by_an_admin_client(admin: AdminClient) -> None:
    rules = [
        rule("dave", AclOperation.READ, "daves"),
        rule("dave", AclOperation.READ, "dav", pattern=ResourcePatternType.PREFIXED),
        rule("dave", AclOperation.DESCRIBE, "kafka-cluster", kind=ResourceType.BROKER),
        rule("dave", AclOperation.WRITE, "tx", kind=ResourceType.TRANSACTIONAL_ID),
    ]
    allow(admin, *rules)
    mine = every_rule(principal="User:dave")
    assert set(admin.describe_acls(mine).result(30)) == set(rules)
    covering = every_rule(
        kind=ResourceType.TOPIC, name="daves", pattern=ResourcePatternType.MATCH,
        principal="User:dave",
    )
    assert set(admin.describe_acls(covering).result(30)) == set(rules[:2])
    (deleted,) = admin.delete_acls([mine]).values()
    assert set(deleted.result(30)) == set(rules)
    assert admin.describe_acls(mine).result(30) == []


def test_users_are_made_by_an_admin_client_and_sign_in(secured: Node, admin: AdminClient) -> None:
    mechanism = ScramMechanism.SCRAM_SHA_512
    made = UserScramCredentialUpsertion("erin", ScramCredentialInfo(mechanism, 8192), b"secret")
    admin.alter_user_scram_credentials([made])["erin"].result(30)
    described = admin.describe_user_scram_credentials(["erin"])["erin"].result(30)
    infos = [(i.mechanism, i.iterations) for i in described.scram_credential_infos]
    assert infos == [(mechanism, 8192)]
    for how in ("SCRAM-SHA-512", "PLAIN"):
        erin = options(secured, "SECURE", "erin", how, password="secret")
        assert AdminClient(erin).list_topics(timeout=20).brokers
    gone = UserScramCredentialDeletion("erin", mechanism)
    admin.alter_user_scram_credentials([gone])["erin"].result(30)
    with pytest.raises(KafkaException):
        AdminClient(erin).list_topics(timeout=3)


# --- other clients --------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("listener", ("SASL", "SECURE"))
def test_aiokafka_signs_in(
    secured: Node, admin: AdminClient, listener: str, mechanism: str
) -> None:
    topic = f"aiokafka-{listener}-{mechanism}"
    create(admin, topic)
    is_secure = listener == "SECURE"
    context = ssl.create_default_context(cafile=str(secured.workdir / "ca.pem"))

    def settings(password: str) -> dict[str, Any]:
        return {
            "bootstrap_servers": f"localhost:{secured.ports[f'kafka/{listener}']}",
            "security_protocol": "SASL_SSL" if is_secure else "SASL_PLAINTEXT",
            "ssl_context": context if is_secure else None,
            "sasl_mechanism": mechanism,
            "sasl_plain_username": "admin",
            "sasl_plain_password": password,
        }

    async def round_trip() -> bytes:
        producer = AIOKafkaProducer(**settings(PASSWORDS["admin"]))
        await producer.start()
        try:
            await producer.send_and_wait(topic, b"hello")
        finally:
            await producer.stop()
        consumer = AIOKafkaConsumer(
            topic, auto_offset_reset="earliest", **settings(PASSWORDS["admin"])
        )
        await consumer.start()
        try:
            return (await asyncio.wait_for(consumer.getone(), 30)).value
        finally:
            await consumer.stop()

    async def wrong() -> None:
        producer = AIOKafkaProducer(**settings("wrong"))
        try:
            await producer.start()
        finally:
            await producer.stop()

    assert asyncio.run(round_trip()) == b"hello"
    with pytest.raises(AioKafkaError):
        asyncio.run(wrong())


def holdfast(
    node: Node, listener: str, *command: str, user: str | None = "admin", password: str | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line at a listener."""
    arguments = ["--kafka", f"localhost:{node.ports[f'kafka/{listener}']}"]
    if listener != "SASL":
        arguments += ["--tls-ca", str(node.workdir / "ca.pem")]
    if listener == "CERT":
        arguments += ["--tls-certificate", str(node.workdir / "carol.pem")]
        arguments += ["--tls-key", str(node.workdir / "carol.key")]
    elif user:
        arguments += ["--user", user]
    return subprocess.run(
        [str(binary()), *command, *arguments],
        env={**os.environ, "HOLDFAST_PASSWORD": password or PASSWORDS.get(user or "", "")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_command_line_signs_in(secured: Node, admin: AdminClient, tmp_path: Path) -> None:
    create(admin, "commands")
    allow(admin, rule("carol", AclOperation.ALL, "commands"))
    for listener in ("SASL", "SECURE", "CERT"):
        done = holdfast(secured, listener, "produce", "commands", f"by {listener}")
        assert done.returncode == 0, done.stderr
    done = holdfast(secured, "SECURE", "consume", "commands", "--count", "3", "--format", "value")
    assert done.stdout.splitlines() == ["by SASL", "by SECURE", "by CERT"], done.stderr
    for mechanism in MECHANISMS:
        by_name = holdfast(secured, "SASL", "topics", "list", "--sasl-mechanism", mechanism)
        assert "commands" in by_name.stdout, by_name.stderr
    # What is only known from a file is not in the environment.
    file = tmp_path / "password"
    file.write_text(PASSWORDS["admin"] + "\n")
    listed = holdfast(
        secured, "SASL", "topics", "list", "--password-file", str(file), password="wrong"
    )
    assert "commands" in listed.stdout, listed.stderr


def test_the_command_line_says_why_it_is_not_let_in(secured: Node) -> None:
    wrong = holdfast(secured, "SECURE", "topics", "list", password="wrong")
    assert wrong.returncode == 1 and "SASL_AUTHENTICATION_FAILED" in wrong.stderr
    nobody = holdfast(secured, "SASL", "topics", "list", user=None)
    assert nobody.returncode == 1 and "--user" in nobody.stderr
    denied = holdfast(secured, "SECURE", "topics", "create", "denied", user="alice")
    assert denied.returncode == 1 and "AUTHORIZATION_FAILED" in denied.stderr


@pytest.mark.parametrize("mechanism", ("plain", "scram-sha-256", "scram-sha-512"))
@pytest.mark.parametrize("listener", ("SASL", "SECURE"))
def test_kafkajs_signs_in(
    secured: Node, admin: AdminClient, node_clients: Path, listener: str, mechanism: str
) -> None:
    topic = f"kafkajs-{listener}-{mechanism}"
    create(admin, topic)
    more: dict[str, Any] = {
        "sasl": {"mechanism": mechanism, "username": "admin", "password": PASSWORDS["admin"]}
    }
    if listener == "SECURE":
        more["ssl"] = {"ca": [(secured.workdir / "ca.pem").read_text()]}
    broker = f"localhost:{secured.ports[f'kafka/{listener}']}"
    done = subprocess.run(
        ["node", str(node_clients / "produce.js"), broker, topic, "0", "100"],
        env={**os.environ, "KAFKAJS_OPTIONS": json.dumps(more)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    values = consume(options(secured, listener), topic, topic, 100)
    assert values[-1] == b"value 99"
