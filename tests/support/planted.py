"""Secrets with a marker at both ends, planted wherever one can stand, and the search for what got out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jobs.providers.loopback_replies import Received, Reply, Wire
from support.workplace import Workplace, jwt

MARKER = "MARKED"
CONFIG = """
secret_key: env:OWN_SECRET_KEY
logging: {{level: debug}}
model: openai/quotes
fallback_providers: []
providers:
  openai: {{base_url: "{url}/v1", api_mode: chat_completions}}
  by-variable: {{base_url: "{url}/v1", credentials: [{{label: one, key: "env:BY_VARIABLE"}}]}}
  by-file:
    base_url: "{url}/v1"
    headers: {{X-Api-Key: {header}}}
    credentials: [{{label: one, key: "file:{directory}/planted/key"}}]
  by-systemd: {{base_url: "{url}/v1", credentials: [{{label: one, key: "systemd:key"}}]}}
  openai-codex:
    base_url: "{url}/codex"
    credentials: [{{label: plan, oauth: {{token_url: "{url}/oauth/token"}}}}]
jobs:
"""
INLINE = "{{provider: custom, base_url: '{url}/v1', model: {model}, "
TARGETS = {
    "openai": "openai/{model}",
    "by-variable": "by-variable/{model}",
    "by-file": "by-file/{model}",
    "by-systemd": "by-systemd/{model}",
    "literal": INLINE + "name: literal, api_key: {literal}}}",
    "named": INLINE + "name: named, api_key_env: NAMED_KEY}}",
    "codex": "openai-codex/{model}",
}
JOB = "  - {{name: {name}, schedule: every 10s, model: {target}, prompt: What is my key?}}\n"


def secret(place: str) -> str:
    """Return a secret that tells where it was planted; any part of it that is shown shows the marker."""
    return f"{MARKER}-{place}-0a1b2c3d4e5f-{MARKER}"


@dataclass(frozen=True)
class Planted:
    """A workplace with secrets in it. `files` are those in which the test itself wrote them."""

    workplace: Workplace
    secrets: set[str] = field(default_factory=set)
    files: set[Path] = field(default_factory=set)

    def new(self, place: str) -> str:
        """Make a secret and remember it."""
        made = secret(place)
        self.secrets.add(made)
        return made

    def write(self, path: Path, text: str) -> None:
        """Write a file that may hold secrets."""
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self.files.add(path)

    def leaks(self, texts: Mapping[str, str | bytes]) -> list[str]:
        """Say which texts hold a secret, a part of one, or a token made of one, and around what."""
        needles = [MARKER.encode(), *(each.encode() for each in self.secrets)]
        found = []
        for name, text in texts.items():
            data = text if isinstance(text, bytes) else text.encode()
            at = next((data.find(needle) for needle in needles if needle in data), None)
            if at is not None:
                found.append(f"{name}: {data[max(0, at - 80) : at + 40]!r}")
        return found

    def bytes_written(self) -> dict[str, bytes]:
        """Return every file below the workplace but those where secrets were planted."""
        below = (path for path in self.workplace.directory.rglob("*") if path.is_file())
        return {str(path): _read(path) for path in below if path not in self.files}


def _read(path: Path) -> bytes:
    """Return what stands in a file; one of a running daemon may be gone by now."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def plant(workplace: Workplace, url: str, *, models: Iterable[str]) -> Planted:
    """Put a secret in every place, and make a job for each of them and each model."""
    planted = Planted(workplace)
    workplace.environ |= {
        "OPENAI_API_KEY": planted.new("builtin"),
        "BY_VARIABLE": planted.new("variable"),
        "NAMED_KEY": planted.new("named"),
        "OWN_SECRET_KEY": planted.new("secret-key-of-promptd-itself"),
        "CREDENTIALS_DIRECTORY": str(workplace.directory / "systemd"),
    }
    planted.write(workplace.directory / "planted" / "key", planted.new("file"))
    planted.write(workplace.directory / "systemd" / "key", planted.new("systemd") + "\n")
    known = {"url": url, "literal": planted.new("literal"), "header": planted.new("header")}
    jobs = "".join(
        JOB.format(name=f"{name}-{model}", target=target.format(model=model, **known))
        for name, target in TARGETS.items()
        for model in models
    )
    workplace.configure(CONFIG.format(directory=workplace.directory, **known) + jobs)
    planted.files.update((workplace.config, workplace.directory / "auth.json"))
    access, refresh = planted.new("access"), planted.new("refresh")
    planted.secrets.add(jwt({"aud": ["client-of-the-tool"]}))
    workplace.log_in(access_token=access, refresh_token=refresh, expires_in=-60)
    return planted


def echo(status: int, *, lead: str = "", cut: str = "") -> Reply:
    """Refuse, and quote whatever admitted the request: in message, code, type, body and headers."""

    def wire(received: Received) -> Wire:
        keys = [key for key in (received.key, received.by_name.get("x-api-key")) if key]
        said = " ".join(f"{key[:14]}{cut}{key[-14:]}" if cut else key for key in keys)
        error = {"message": f"{lead}Incorrect key: {said}.", "code": said, "type": said, "param": said}
        headers = {"x-request-id": said, "retry-after": said, "www-authenticate": f"Bearer {said}"}
        return Wire.json(status, {"error": error, "detail": said}, headers)

    return Reply(wire)


def plainly(status: int) -> Reply:
    """Refuse with a page that quotes the key."""
    return Reply(
        lambda received: Wire.of(
            status, f"<html><title>no {received.key}</title></html>".encode(), {"content-type": "text/html"}
        )
    )
