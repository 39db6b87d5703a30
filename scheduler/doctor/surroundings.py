"""What a process finds around it: Python and its libraries, proxies, certificates, file descriptors."""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from scheduler.doctor.finding import Finding

Version = tuple[int, ...]
OLDEST_SQLITE = (3, 35, 0)  # RETURNING and DROP COLUMN (sqlite.org/changes.html)
WITHOUT_RESET_BUG = ((3, 51, 3), (3, 50, 7), (3, 44, 6))  # sqlite.org/wal.html#walresetbug; backports
DESCRIPTORS_A_RUN = 6
DESCRIPTORS_OF_THE_DAEMON = 64
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[^]]*\])?\s*([^;]*)(?:;(.*))?")
_SCHEMES = ("http", "https")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def sqlite(version: Version) -> Finding:
    """Judge the SQLite library that Python uses."""
    shown = ".".join(map(str, version))
    if version < OLDEST_SQLITE:
        return Finding.fault("sqlite", f"{shown} is too old", "use a Python with SQLite 3.35 or later")
    newest, *backports = WITHOUT_RESET_BUG
    mended = version >= newest or any(version[:2] == each[:2] and version >= each for each in backports)
    if mended:
        return Finding.ok("sqlite", shown)
    return Finding.warning(
        "sqlite",
        f"{shown} has the WAL-reset bug: rarely, two processes that write at once damage the file",
        "use a Python with SQLite 3.51.3 or later (3.50.7, 3.44.6), and keep backups",
    )


def libraries(required: Sequence[str], installed: Callable[[str], str | None]) -> Iterator[Finding]:
    """Judge what is installed by what the package requires, as its metadata says it (PEP 508)."""
    wrong, seen = [], 0
    for text in required:
        parts = _REQUIREMENT.fullmatch(text.strip())
        if parts is None or "extra" in (parts[3] or ""):
            continue
        seen += 1
        found = installed(parts[1])
        if found is None:
            wrong.append(f"{parts[1]} is missing")
        elif not fits(found, parts[2]):
            wrong.append(f"{parts[1]} {found} is not {parts[2].strip()}")
    if wrong:
        yield Finding.fault("libraries", "; ".join(wrong), "run `pip install --upgrade promptd` once more")
    elif seen:
        yield Finding.ok("libraries", f"{seen} are there as they are required")
    else:
        yield Finding.unknown(
            "libraries", "promptd is not installed as a package, so nothing is known of them"
        )


def fits(version: str, wanted: str) -> bool:
    """Say whether a version is within bounds such as `<4,>=3.11.3`; what is no such bound is met."""
    bounds = re.findall(r"(>=|<=|<|>|==)\s*([\d.]+)", wanted)
    own = _numbers(version)
    for sign, bound in bounds:
        other = _numbers(bound)
        size = max(len(own), len(other))
        mine, theirs = own + (0,) * (size - len(own)), other + (0,) * (size - len(other))
        right = {
            ">=": mine >= theirs,
            "<=": mine <= theirs,
            "<": mine < theirs,
            ">": mine > theirs,
            "==": mine == theirs,
        }
        if not right[sign]:
            return False
    return True


def _numbers(version: str) -> Version:
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def descriptors(limit: int, runs: int) -> Finding:
    """Judge how many files may be open at once, for so many runs at once."""
    wanted = DESCRIPTORS_OF_THE_DAEMON + DESCRIPTORS_A_RUN * runs
    seen = f"{limit} files may be open, {runs} runs at once may want {wanted}"
    if limit >= wanted:
        return Finding.ok("descriptors", seen)
    mend = f"set LimitNOFILE={2 * wanted} in the unit (`ulimit -n` in a shell), or lower max_concurrent_runs"
    return Finding.warning("descriptors", seen, mend)


def proxies(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Judge the proxies that the environment names; a proxy's login is not shown."""
    named = {name: value for name in _PROXIES if (value := _variable(environ, name))}
    if not named:
        yield Finding.ok("proxies", "none; providers are asked directly")
    for name, value in named.items():
        where = _proxy(value)
        if where is None:
            mend = f"write {name.upper()}=http://HOST:PORT, or unset it: no provider can be asked through it"
            yield Finding.fault("proxies", f"{name.upper()} is no HTTP proxy", mend)
            continue
        without = _variable(environ, "no_proxy")
        but = f", but for {without}" if without else ""
        yield Finding.ok(
            "proxies",
            f"{name.upper()}: providers and logins are asked through {where}{but}; "
            "webhooks and heartbeats are not",
        )


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _proxy(value: str) -> str | None:
    """Return host and port of a proxy; None for what is none that can be used."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in _SCHEMES and parts.hostname and parts.port != 0
    except ValueError:
        return None
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.hostname}{port}" if usable else None


def certificates(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Judge whose certificates are trusted: OpenSSL's own, or what SSL_CERT_FILE and SSL_CERT_DIR name."""
    file, directory = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    if file:
        yield _certificates_of(Path(file))
    if directory and not Path(directory).is_dir():
        mend = "name a directory that is there, or unset SSL_CERT_DIR: nobody's certificate is trusted so"
        yield Finding.fault("certificates", f"SSL_CERT_DIR={directory} is no directory", mend)
    if not file and not directory:
        yield _own_certificates(ssl.get_default_verify_paths())


def _certificates_of(file: Path) -> Finding:
    try:
        number = len(_loaded(file).get_ca_certs())
    except (OSError, ssl.SSLError) as exc:
        said = (
            exc.strerror if exc.strerror and not isinstance(exc, ssl.SSLError) else "it holds no certificate"
        )
        mend = "name a file of PEM certificates, or unset SSL_CERT_FILE: the daemon does not start with it"
        return Finding.fault("certificates", f"SSL_CERT_FILE={file}: {said}", mend)
    return Finding.ok("certificates", f"SSL_CERT_FILE={file}: {number} authorities")


def _loaded(file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=file)
    return context


def _own_certificates(places: ssl.DefaultVerifyPaths) -> Finding:
    found = places.cafile or places.capath
    if found:
        return Finding.ok("certificates", f"those of the system, in {found}")
    return Finding.fault(
        "certificates",
        f"there are none at {places.openssl_cafile} or {places.openssl_capath}",
        "install the package ca-certificates",
    )
