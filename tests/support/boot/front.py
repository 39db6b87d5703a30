"""A provider's own address within a machine: name, port 443, and an authority that the machine trusts."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.boot.machine import Machine
from support.boot.network import network_of

_PIECE = 64 * 1024
_STARTS_WITHIN = 60.0
_PEM = serialization.Encoding.PEM
_AUTHORITY = "/etc/ssl/certs/authority-of-the-tests.pem"
_TRUST = 'ln -s "$1" "/etc/ssl/certs/$(openssl x509 -hash -noout -in "$1").0"'  # as update-ca-certificates(8)


@contextmanager
def standing_for(name: str, machine: Machine, port: int, *, directory: Path) -> Iterator[None]:
    """Let a machine find this name at home, and what it says there over TLS arrive at one of its ports."""
    authority, server = _certificates(name)
    path = directory / f"{name}.pem"
    path.write_bytes(server)
    machine.put(_AUTHORITY, authority.decode())
    machine.do("sh", "-c", _TRUST, "sh", _AUTHORITY)
    hosts = machine.path("/etc/hosts")
    hosts.write_text(f"{hosts.read_text()}\n127.0.0.1 {name}\n")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    loop = asyncio.new_event_loop()
    with network_of(machine.leader):
        thread = Thread(target=loop.run_forever, name="front", daemon=True)
        thread.start()
    asyncio.run_coroutine_threadsafe(_listen(context, port), loop).result(_STARTS_WITHIN)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(_end_all(), loop).result(_STARTS_WITHIN)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_STARTS_WITHIN)
        loop.close()


async def _listen(context: ssl.SSLContext, port: int) -> None:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))

    server = await asyncio.start_server(pass_on, "127.0.0.1", 443, ssl=context)
    serving = asyncio.ensure_future(server.serve_forever())  # its end closes the server
    serving.add_done_callback(lambda _: None)


async def _end_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError), closing(writer):  # one end has gone: so goes the other
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()


def _certificates(name: str) -> tuple[bytes, bytes]:
    """Return an authority's certificate, and the key and certificate of a server that it has signed."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _certificate("authority of the tests", authority_key, authority_key, "authority of the tests")
    signed = _certificate(name, key, authority_key, "authority of the tests")
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return authority.public_bytes(_PEM), key.private_bytes(_PEM, form, plain) + signed.public_bytes(_PEM)


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer_key: ec.EllipticCurvePrivateKey, issuer: str
) -> x509.Certificate:
    now, is_authority = datetime.now(UTC), key is issuer_key
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
    )
    built = x509.CertificateBuilder(
        _name(issuer),
        _name(name),
        key.public_key(),
        x509.random_serial_number(),
        now - timedelta(hours=1),
        now + timedelta(days=1),
    )
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=is_authority, path_length=None), True),
        (x509.SubjectAlternativeName([x509.DNSName(name)]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False),
    ]
    signs = x509.KeyUsage(
        digital_signature=True, key_cert_sign=is_authority, encipher_only=False, decipher_only=False, **usage
    )
    for extension, critical in (*extensions, (signs, True)):
        built = built.add_extension(extension, critical)
    return built.sign(issuer_key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
