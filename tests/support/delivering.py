"""What tests of deliveries share: tools as the composition root makes them, messages, certificates."""

import ipaddress
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from jobs.commands import Commands
from jobs.credential import SecretReference
from jobs.delivery.message import Message, RunRow, message_of_run
from jobs.delivery.outgoing import LookUp, Outgoing
from jobs.delivery.own_files import OwnFiles
from jobs.delivery.send import Tools
from jobs.providers.secrets import SecretReader
from jobs.secret import Redactor

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
KEY = "0123456789abcdef0123456789abcdef"


@asynccontextmanager
async def tools_with(look_up: LookUp | None = None, **environ: str) -> AsyncIterator[Tools]:
    """Yield tools whose secrets and commands know these variables, and the search path."""
    redactor = Redactor()
    known = {"PATH": os.environ["PATH"], **environ}
    outgoing = Outgoing(redactor, look_up=look_up)
    try:
        commands = Commands(known, redactor)
        yield Tools(SecretReader(known, redactor), redactor, commands, outgoing, OwnFiles(Path("/nowhere")))
    finally:
        await outgoing.close()


def literal(text: str) -> SecretReference:
    """Return a reference to a text that is written out."""
    return SecretReference("literal", text)


def run_row(**changes: Any) -> RunRow:
    """Return a run that has succeeded."""
    made: dict[str, Any] = {
        "id": 7,
        "job": "morning-digest",
        "scheduled_for": NOW,
        "trigger": "schedule",
        "state": "succeeded",
        "finished_at": NOW + timedelta(seconds=9),
        "output": "All is well.",
        "served_provider": "zai",
        "served_model": "glm-5.1",
        **changes,
    }
    return RunRow(**made)


def message(output: str = "All is well.", **changes: Any) -> Message:
    """Return the message of a run that has answered so."""
    return message_of_run(run_row(output=output, **changes), KEY)


def certificate(directory: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """Return a server's TLS context for these names or addresses, and the file that clients are to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, private = directory / "trusted.pem", directory / "private.pem"
    trusted.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(trusted, private)
    return context, trusted


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
