"""The ground that tests of the command line stand on: a configuration, a real database, the CLI itself."""

import io
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from jsonschema import Draft202012Validator
from referencing import Registry as Schemas
from referencing import Resource
from sqlalchemy import Connection
from support.ledger import NOW, url_of

from jobs.attempt import Purpose, Step, Wait
from jobs.credential import Readable
from jobs.errors import ErrorClass
from jobs.names import ProviderName
from jobs.providers.answer import WaitHint
from jobs.providers.pool import Habits
from jobs.providers.secrets import Keyring, SecretReader, make_secret_key
from jobs.providers.settle import Opened, open_attempt, record_unsent, settle_failure, settle_success
from jobs.providers.vault import Vault
from jobs.run import ClaimedRun, Outcome, Served, Trigger
from jobs.secret import Redactor, Secret
from jobs.store import instances, migrate, runs, tokens
from jobs.store import jobs as job_verbs
from jobs.store.attempts import Failure, Place
from jobs.store.engine import open_engine, sqlite_path
from jobs.store.tokens import SealedTokens
from jobs.target import Target
from scheduler.cli import main
from scheduler.config.loader import load

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
KEY = "zai-secret-value-that-nobody-may-see"
CONFIG = """\
timezone: Europe/Berlin
state_dir: state
model: openai-codex/gpt-5.5
fallback_providers:
  - zai/glm-5.1
  - {provider: custom, name: house, base_url: "http://localhost:8080/v1", model: m, api_key: no-key-required}
providers:
  GLM:
    credentials:
      - {label: main, key: "env:MAIN_KEY"}
      - {label: spare, key: "env:SPARE_KEY"}
jobs:
  - {name: digest, schedule: "0 7 * * mon-fri", prompt: "hello {{ job }}", description: the news}
  - {name: tick, schedule: every 90s, prompt: tick}
  - {name: off, schedule: "@daily", prompt: never, enabled: false}
  - {name: by-hand, schedule: null, prompt: now}
"""
KEYS = {"MAIN_KEY": KEY, "SPARE_KEY": "another-" + KEY}


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


class World:
    """One configuration with a database of its own; `run` is the command line."""

    def __init__(
        self, home: Path, *, config: str = CONFIG, environ: Mapping[str, str] = KEYS, migrated: bool = True
    ) -> None:
        self.home, self.file = home, home / "promptd.yaml"
        self.file.write_text(config)
        self.environ = {"HOME": str(home), **environ}
        self.now = datetime.now(UTC)
        if migrated:
            self.settings = load(self.file, environ=self.environ, now=self.now)
            _migrate(self.settings.database, now=self.now)
            make_secret_key(self.settings.state_dir / "secret.key")
            reader = SecretReader(self.environ, Redactor())
            self.keyring = Keyring([reader.read(key) for key in self.settings.secret_keys])
            self.vault = Vault(reader, self.keyring)

    def run(self, *args: str, stdin: bytes = b"") -> Said:
        """Run one command in this process, with this world's configuration and environment."""
        out, err = io.StringIO(), io.StringIO()
        given = io.TextIOWrapper(io.BytesIO(stdin))
        with redirect_stdout(out), redirect_stderr(err), mock.patch.object(sys, "stdin", given):
            code = main(["--config", str(self.file), *args], environ=self.environ)
        return Said(code, out.getvalue(), err.getvalue())

    def json(self, schema: str, *args: str, code: int = 0, stdin: bytes = b"") -> Any:
        """Run a command with --json, and return what it printed once it has met its schema."""
        said = self.run(*args, "--json", stdin=stdin)
        assert said.code == code, said
        return valid(schema, json.loads(said.out))

    @contextmanager
    def ledger(self) -> Iterator[Connection]:
        """Give a writing connection in one transaction."""
        engine = open_engine(self.settings.database, writes=True)
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()

    def target(self, number: int) -> Target:
        """Return one target of the main chain."""
        return self.settings.chain[number]

    def begin(self, connection: Connection, job: str = "digest") -> ClaimedRun:
        """Add a run and start its first try."""
        instance = instances.register(connection, kind="command", version="1", now=self.now)
        run = runs.add(connection, job=job, trigger=Trigger.MANUAL, instance_id=instance, now=self.now)
        primary = self.target(0)
        return runs.start(connection, run, primary=primary, instance_id=instance, now=self.now)

    def log_in(self, connection: Connection) -> None:
        """Store a login for openai-codex that ended an hour ago."""
        provider = self.settings.registry.provider(ProviderName("openai-codex"))
        self.vault.open(connection, provider, now=self.now)
        sealed = self.keyring.seal(Secret("access-token-nobody-may-see"))
        login = SealedTokens(
            "openai-codex",
            "login",
            "login-1",
            1,
            sealed,
            sealed,
            None,
            None,
            self.now - timedelta(hours=2),
            self.now - timedelta(hours=1),
        )
        tokens.save_login(connection, login)

    def refuse_refresh(self, connection: Connection, run: ClaimedRun) -> int:
        """Write that the login's refresh was answered with invalid_grant; return the attempt's id."""
        target = self.target(0)
        provider = self.settings.registry.provider(target.provider)
        (readable,) = self.vault.open(connection, provider, now=self.now)
        assert isinstance(readable, Readable)
        settled = record_unsent(
            connection,
            self.vault,
            provider,
            target,
            Place(run.id, 1, Purpose.MAIN, 0),
            readable,
            Failure(ErrorClass.AUTH_DEAD, "*/invalid_grant", "the grant is not valid", code="invalid_grant"),
            onward=Step.NEXT_TARGET,
            habits=Habits(),
            now=self.now,
        )
        return settled.attempt.id

    def fail(
        self,
        connection: Connection,
        run: ClaimedRun,
        failure: Failure,
        *,
        number: int = 1,
        wait: WaitHint | None = None,
    ) -> int:
        """Write a failed request to a target of the chain, with the mark it earns; return its id."""
        attempt = self._sent(connection, run, number)
        provider = self.settings.registry.provider(self.target(number).provider)
        settle_failure(
            connection,
            self.vault,
            provider,
            attempt.attempt,
            failure,
            wait=wait,
            chosen=Step.NEXT_CREDENTIAL,
            onward=Step.NEXT_TARGET,
            habits=Habits(),
            now=self.now,
        )
        return attempt.attempt.id

    def succeed(self, connection: Connection, run: ClaimedRun, *, number: int, answer: str) -> None:
        """Write a good answer of a target, and the run's end."""
        attempt = self._sent(connection, run, number)
        settle_success(connection, attempt.attempt, http_status=200, request_id="r-1", latency=0.25)
        target = attempt.attempt.target
        served = Served(target.provider, target.model, attempt.attempt.credential.label)
        reason = ErrorClass.AUTH_DEAD if number else None
        outcome = Outcome.succeeded(answer, served=served, fallback=number > 0, fallback_reason=reason)
        runs.finish(connection, run, outcome, now=self.now + timedelta(seconds=3))

    def see_jobs(self, connection: Connection) -> None:
        """Give every job its row, first seen now."""
        job_verbs.see(connection, dict.fromkeys(self.settings.jobs, ""), now=self.now)

    def _sent(self, connection: Connection, run: ClaimedRun, number: int) -> Opened:
        target = self.target(number)
        opened = open_attempt(
            connection,
            self.vault,
            self.settings.registry.provider(target.provider),
            target,
            Place(run.id, 1, Purpose.MAIN, number),
            habits=Habits(),
            refreshes=lambda _label: False,
            wait=Wait(1.5, "backoff"),
            recovery=None,
            now=self.now,
        )
        assert isinstance(opened, Opened)
        return opened


def _migrate(url: str, *, now: datetime) -> None:
    """Migrate a database; a new file is a copy of one that was migrated before."""
    path = sqlite_path(url)
    if path is None or path.exists():
        migrate.upgrade(url, now=now)
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_bytes(_migrated())


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "promptd.db"
        migrate.upgrade(url_of(path), now=NOW)
        return path.read_bytes()


def valid(schema: str, document: Any) -> Any:
    """Return a document that meets `docs/schemas/<schema>.json`; raises ValidationError for another."""
    Draft202012Validator({"$ref": f"{schema}.json"}, registry=_schemas()).validate(document)
    return document


@cache
def _schemas() -> Schemas[Any]:
    return Schemas().with_resources((path.name, _resource(path)) for path in SCHEMAS.glob("*.json")).crawl()


def _resource(path: Path) -> Resource[Any]:
    return Resource.from_contents(json.loads(path.read_text()))


def test_a_fresh_world_has_no_runs_and_no_marks(tmp_path: Path) -> None:
    """The ground is firm."""
    world = World(tmp_path)
    assert world.json("run-list", "run", "list") == []
    assert world.json("auth-why", "auth", "why", "zai") == []
