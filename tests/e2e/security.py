"""What the tests of security share: certificates made by openssl for the run, and access rules."""

from __future__ import annotations

from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from conftest import run

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
OF_NODE = "subjectAltName=DNS:localhost,IP:127.0.0.1"
OF_CLIENT = "extendedKeyUsage=clientAuth"


def make_authority(directory: Path) -> None:
    """`ca.pem` and its key."""
    authority = [str(directory / "ca.pem"), "-keyout", str(directory / "ca.key")]
    run(
        ["openssl", "req", "-x509", *NEW_KEY, "-out", *authority]
        + ["-subj", "/CN=authority", "-days", "2"]
    )


def issue(directory: Path, name: str, extension: str, authority: Path | None = None) -> None:
    """`NAME.pem` and `NAME.key`, by the authority of the directory or of another one."""
    key, request, signed = (str(directory / f"{name}.{end}") for end in ("key", "csr", "pem"))
    authority = authority or directory
    run(
        ["openssl", "req", *NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/O=Test/CN={name}"]
    )
    (directory / f"{name}.ext").write_text(extension + "\n")
    run(
        ["openssl", "x509", "-req", "-in", request, "-out", signed, "-days", "2"]
        + ["-CA", str(authority / "ca.pem"), "-CAkey", str(authority / "ca.key")]
        + ["-CAcreateserial", "-extfile", str(directory / f"{name}.ext")]
    )


def make_certificates(directory: Path) -> None:
    """An authority, the node's certificate, and one of the client `carol`."""
    make_authority(directory)
    issue(directory, "node", OF_NODE)
    issue(directory, "carol", OF_CLIENT)


def rule(
    user: str,
    operation: AclOperation,
    name: str,
    *,
    kind: ResourceType = ResourceType.TOPIC,
    pattern: ResourcePatternType = ResourcePatternType.LITERAL,
    permission: AclPermissionType = AclPermissionType.ALLOW,
) -> AclBinding:
    return AclBinding(kind, name, pattern, f"User:{user}", "*", operation, permission)


def allow(admin: AdminClient, *rules: AclBinding) -> None:
    for made in admin.create_acls(list(rules)).values():
        made.result(30)
