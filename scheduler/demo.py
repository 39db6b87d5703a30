"""The demo: the real daemon against two scripted providers, of which the first one's login has expired."""

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from jobs import clock
from jobs.events import Event, Events, RunFinished
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.run import RunState
from jobs.secret import Redactor, Secret
from jobs.store import credentials, tokens
from jobs.store.engine import open_engine
from jobs.store.tokens import SealedTokens
from scheduler import logs
from scheduler.app import ensure_database, open_vault
from scheduler.config.loader import load
from scheduler.config.settings import Settings
from scheduler.daemon import Daemon, run_daemon

_OPENING = """\
The primary's login has expired, and its token endpoint will answer 401. A job runs every 3 seconds.
Look around in another terminal: promptd --config {config} status
Ctrl-C ends the demo.
"""
_CONFIG = """\
# Written by `promptd demo`. Everything here is on loopback and goes away with the demo.
state_dir: {directory}/state
server: {{listen: "127.0.0.1:0"}}
logging: {{level: warning}}
limits: {{drain_timeout: 1s}}
model: openai-codex/gpt-5.5
fallback_providers:
  - {{provider: custom, name: backup, base_url: "{backup}", model: small-but-there, api_key: no-key-required}}
providers:
  openai-codex:
    base_url: {codex}
    credentials:
      - {{label: plan, oauth: {{client_id: demo, token_url: "{token}"}}}}
jobs:
  - name: digest
    schedule: every 3s
    prompt: Summarise the alerts up to {{{{ scheduled_for | localtime }}}}.
"""


def show(environ: Mapping[str, str], *, once: bool) -> int:
    """Run the demo until Ctrl-C, or for one run; return the exit code: 1 when that run had no answer."""
    with tempfile.TemporaryDirectory(prefix="promptd-demo-") as directory:
        return asyncio.run(_show(Path(directory), environ, once=once))


async def _show(directory: Path, environ: Mapping[str, str], *, once: bool) -> int:
    async with Loopback() as primary, Loopback() as backup:
        expired = Reply.token_error(401, "invalid_grant", description="the login has expired")
        primary.script(Endpoint.TOKEN, expired)
        backup.script(Endpoint.CHAT, Reply.text("Nothing burned down tonight. (You asked: {prompt})"))
        config = directory / "promptd.yaml"
        config.write_text(
            _CONFIG.format(
                directory=directory, codex=primary.codex_url, token=primary.token_url, backup=backup.base_url
            )
        )
        settings = load(config, environ=environ, now=clock.utcnow())
        redactor = Redactor()
        logs.configure(settings.log_level, settings.log_format, redactor)
        await asyncio.to_thread(_log_in_long_ago, settings, environ, redactor)
        audience = _Audience(config, once=once)
        print(_OPENING.format(config=config), flush=True)
        await run_daemon(settings, environ=environ, redactor=redactor, attend=audience.attend)
        await audience.leave()
        return audience.code


def _log_in_long_ago(settings: Settings, environ: Mapping[str, str], redactor: Redactor) -> None:
    """Store a login whose access token ended an hour ago."""
    ensure_database(settings)
    keyring = open_vault(settings, environ, redactor).keyring
    primary = settings.registry.provider(settings.chain[0].provider)
    (credential,) = primary.credentials
    now = clock.utcnow()
    login = SealedTokens(
        provider=credential.provider,
        label=credential.label,
        login_id="demo-login",
        generation=1,
        access_token=keyring.seal(Secret("demo-access-token")),
        refresh_token=keyring.seal(Secret("demo-refresh-token")),
        client_id=None,
        account_id="demo-account",
        issued_at=now - timedelta(hours=2),
        expires_at=now - timedelta(hours=1),
    )
    engine = open_engine(settings.database, writes=True)
    with engine.begin() as connection:
        credentials.ensure(connection, credential, (login.login_id,), now=now)
        tokens.save_login(connection, login)
    engine.dispose()


class _Audience:
    """Prints runs as they end; the tables are what the real command line says of the first one."""

    def __init__(self, config: Path, *, once: bool) -> None:
        self._config, self._once = config, once
        self._telling: set[asyncio.Task[None]] = set()
        self._seen = 0
        self.code = 1

    def attend(self, daemon: Daemon, events: Events) -> None:
        """Listen to a daemon that is about to start."""

        def hear(event: Event) -> None:
            if isinstance(event, RunFinished):
                task = asyncio.create_task(self._tell(event, daemon))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

        events.listen(hear)

    async def leave(self) -> None:
        """Finish what is being told."""
        await asyncio.gather(*self._telling)

    async def _tell(self, ended: RunFinished, daemon: Daemon) -> None:
        self._seen += 1
        if ended.outcome.state is RunState.SUCCEEDED:
            self.code = 0
        if self._seen > 1:
            served = ended.outcome.served
            who = f"{served.provider}/{served.model}" if served else "nobody"
            print(f"run {ended.run.id} {ended.outcome.state}, answered by {who}", flush=True)
            return
        for words in (("run", "show", str(ended.run.id)), ("auth", "list")):
            await self._command(*words)
        if self._once:
            daemon.stop()

    async def _command(self, *words: str) -> None:
        print(f"$ promptd {' '.join(words)}", flush=True)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "scheduler.cli",
            "--config",
            str(self._config),
            *words,
            start_new_session=True,
        )
        await process.wait()
        print(flush=True)
