"""Secrets in files on a disk that gives no answer: named, waited for briefly, and read when it answers."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection
from support.delivering import literal, message, tools_with
from support.hang_guard import LONGEST, wait_ends
from support.hung import hung
from support.ledger import make_database, url_of
from support.workplace import eventually
from test_cli_ground import World

from jobs import clock
from jobs.credential import Credential, CredentialKind, Readable, SecretReference, Unreadable
from jobs.delivery.send import send
from jobs.delivery.target import AppriseTarget, DeliveryTarget, WebhookTarget
from jobs.errors import SecretDelayed, SecretUnreadable, Undeliverable
from jobs.names import ProviderName
from jobs.providers.registry import ApiMode, Provider
from jobs.providers.secret_files import KEPT, LONGEST_SECRET, MOST_LATE, SecretFiles
from jobs.providers.secrets import Keyring, SecretReader
from jobs.providers.vault import Vault
from jobs.secret import Redactor, Secret
from jobs.store.store import Store
from scheduler.app import open_app, reconfigured

pytestmark = pytest.mark.anyio
BRIEFLY = 0.2  # seconds


def file_of(path: Path) -> SecretReference:
    return SecretReference("file", str(path))


def reader(patience: float = BRIEFLY, *, kept: float = KEPT) -> SecretReader:
    return SecretReader({}, Redactor(), files=SecretFiles(patience, kept=kept))


def written(path: Path, text: str = "key-in-a-file") -> Path:
    path.write_text(text)
    return path


def waiting() -> int:
    """Return how many threads wait for a file of secrets."""
    return sum(each.name == "secret file" for each in threading.enumerate())


def none_wait() -> bool:
    return waiting() == 0


def read_soon(secrets: SecretReader, path: Path) -> Secret:
    """Read a file whose disk answers; a machine that stands still may make it late."""

    def ask() -> Secret | None:
        try:
            return secrets.read(file_of(path))
        except SecretDelayed:
            return None

    return eventually(ask)


def test_a_file_whose_disk_gives_no_answer_is_named_with_the_wait(tmp_path: Path) -> None:
    """Waited for each time it would answer in the end: the kernel lets it hang for so long only."""
    path, secrets = written(tmp_path / "key"), reader()
    hangs = int(Path("/proc/sys/fs/lease-break-time").read_text())

    with hung(path):
        for _ in range(round(2 * hangs / BRIEFLY)):
            with pytest.raises(
                SecretUnreadable, match=rf"{path}: its disk gave no answer within 0\.2 s; look"
            ):
                secrets.read(file_of(path))
        assert waiting() == 1
    eventually(none_wait)


def test_after_the_first_other_files_are_waited_for_more_briefly(tmp_path: Path) -> None:
    path, other, secrets = written(tmp_path / "key"), written(tmp_path / "other"), reader(0.6)

    with hung(path, other):
        with pytest.raises(SecretUnreadable, match=r"key: .* within 0\.6 s"):
            secrets.read(file_of(path))
        with pytest.raises(SecretUnreadable, match=r"other: .* within 0\.5 s"):
            secrets.read(file_of(other))
    eventually(none_wait)


def test_a_process_ends_while_a_file_hangs(tmp_path: Path) -> None:
    path = written(tmp_path / "key")
    reads = (
        "import pathlib, sys; from jobs.errors import SecretUnreadable\n"
        "from jobs.providers.secret_files import SecretFiles\n"
        "try: SecretFiles(0.1).read(pathlib.Path(sys.argv[1]))\n"
        "except SecretUnreadable as exc: print(exc)\n"
    )

    with hung(path):
        ended = subprocess.run(
            [sys.executable, "-c", reads, path], capture_output=True, timeout=40, check=True
        )

    assert b"gave no answer within 0.1 s" in ended.stdout


def test_what_came_late_is_there_for_whoever_asks_again_though_another_disk_is_dead(tmp_path: Path) -> None:
    dead, path, secrets = written(tmp_path / "dead"), written(tmp_path / "key"), reader()

    with hung(dead):
        with pytest.raises(SecretUnreadable):
            secrets.read(file_of(dead))
        with hung(path), pytest.raises(SecretUnreadable):
            secrets.read(file_of(path))
        eventually(lambda: waiting() == 1)
        with hung(path):
            assert secrets.read(file_of(path)) == Secret("key-in-a-file")
    eventually(none_wait)


def test_what_is_wrong_with_a_file_is_told_however_late_that_is_known(tmp_path: Path) -> None:
    path, secrets = written(tmp_path / "key", "k" * (LONGEST_SECRET + 1)), reader()

    with hung(path), pytest.raises(SecretUnreadable, match="gave no answer"):
        secrets.read(file_of(path))
    eventually(none_wait)

    with hung(path), pytest.raises(SecretUnreadable, match="not a file of at most"):
        secrets.read(file_of(path))


def test_a_disk_that_has_answered_makes_no_other_file_be_waited_for_more_briefly(tmp_path: Path) -> None:
    path, other, secrets = written(tmp_path / "key"), written(tmp_path / "other"), reader(0.6)

    for each in (path, other):
        with hung(each), pytest.raises(SecretUnreadable, match=rf"{each}: .* within 0\.6 s"):
            secrets.read(file_of(each))
        eventually(none_wait)


def test_what_came_late_too_long_ago_is_read_anew_as_it_is_then(tmp_path: Path) -> None:
    path, secrets = written(tmp_path / "key"), reader(kept=0)
    with hung(path), pytest.raises(SecretUnreadable):
        secrets.read(file_of(path))
    eventually(none_wait)

    written(path, "another-key")

    assert read_soon(secrets, path) == Secret("another-key")


def test_other_files_are_read_meanwhile(tmp_path: Path) -> None:
    path, other, secrets = written(tmp_path / "key"), written(tmp_path / "other"), reader(0.5)

    with hung(path):
        with pytest.raises(SecretUnreadable):
            secrets.read(file_of(path))
        assert read_soon(secrets, other) == Secret("key-in-a-file")
        assert waiting() == 1
    eventually(none_wait)


def test_files_that_hang_together_cost_so_many_threads(tmp_path: Path) -> None:
    paths, secrets = [written(tmp_path / f"{n}") for n in range(MOST_LATE + 1)], reader(0.02)

    with hung(*paths):
        for path in paths[:-1]:
            with pytest.raises(SecretUnreadable, match="gave no answer"):
                secrets.read(file_of(path))
        with pytest.raises(SecretUnreadable, match=rf"{paths[-1]}: {MOST_LATE} other files get no answer"):
            secrets.read(file_of(paths[-1]))
        assert waiting() == MOST_LATE
    eventually(none_wait)


def test_a_file_that_is_written_over_is_seen_though_its_time_and_length_stay(tmp_path: Path) -> None:
    path, secrets = written(tmp_path / "key", "first"), reader(LONGEST)
    then = path.stat().st_mtime_ns
    assert secrets.read(file_of(path)) == Secret("first")

    os.utime(written(path, "later"), ns=(then, then))

    assert secrets.read(file_of(path)) == Secret("later")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("scheme", ["file", "systemd"])
def test_what_is_no_regular_file_is_refused_without_a_wait(
    tmp_path: Path, make: Callable[[Path], None], scheme: str
) -> None:
    make(tmp_path / "key")
    secrets = SecretReader({"CREDENTIALS_DIRECTORY": str(tmp_path)}, Redactor())
    name = "key" if scheme == "systemd" else str(tmp_path / "key")

    with pytest.raises(SecretUnreadable, match=f"{tmp_path / 'key'}: not a file of at most 65536 bytes"):
        secrets.read(SecretReference(scheme, name))


async def test_a_key_that_hangs_leaves_the_writer_and_the_provider_s_other_key(tmp_path: Path) -> None:
    hanging, ready = written(tmp_path / "hanging"), written(tmp_path / "ready")
    name = ProviderName("openai")
    keys = tuple(
        Credential(name, each.name, CredentialKind.KEY, reference=file_of(each)) for each in (hanging, ready)
    )
    provider = Provider(name, None, ApiMode.CHAT_COMPLETIONS, keys)
    vault = Vault(reader(), Keyring([Secret("k" * 32)]))
    make_database(tmp_path / "promptd.db").dispose()
    store = Store(url_of(tmp_path / "promptd.db"))

    def opened(connection: Connection) -> list[Readable | Unreadable]:
        return vault.open(connection, provider, now=clock.utcnow())

    try:
        with hung(hanging):
            first, second = await store.write(opened)
            async with wait_ends():
                while not isinstance(second, Readable):  # late, on a machine that stood still
                    first, second = await store.write(opened)
    finally:
        store.close()

    assert isinstance(first, Unreadable)
    assert str(hanging) in first.why
    assert isinstance(second, Readable)
    eventually(none_wait)


async def test_however_often_a_daemon_is_reloaded_its_readers_wait_with_one_thread_for_a_file(
    tmp_path: Path,
) -> None:
    key, hook = written(tmp_path / "key"), written(tmp_path / "hook", "https://example.org/in")
    world = World(
        tmp_path,
        config=(
            "timezone: UTC\nstate_dir: state\nmodel: openai/m\n"
            f"providers: {{openai: {{credentials: [{{label: main, key: 'file:{key}'}}]}}}}\n"
            f"delivery: {{hook: {{webhook: 'file:{hook}'}}}}\n"
        ),
    )

    async with open_app(world.settings, environ=world.environ, kind="daemon", redactor=Redactor()) as app:
        latest = app
        with hung(key, hook):
            await app.store.read(app.services.vault.learn_all, world.settings.registry)
            for _ in range(3):
                latest = await reconfigured(latest, world.settings, world.environ)
            for path in (key, hook):
                with pytest.raises(SecretUnreadable, match=f"{path}: its disk gave no answer"):
                    await asyncio.to_thread(latest.tools.secrets.unlearned, file_of(path))
            assert waiting() == 2
        eventually(none_wait)


def webhook_at(path: Path) -> DeliveryTarget:
    return WebhookTarget("hook", file_of(path), timeout=timedelta(seconds=5))


def signed_with(path: Path) -> DeliveryTarget:
    return WebhookTarget(
        "hook", literal("http://127.0.0.1:9/"), timeout=timedelta(seconds=5), secret=file_of(path)
    )


def apprise_at(path: Path) -> DeliveryTarget:
    return AppriseTarget("ops", file_of(path), timeout=timedelta(seconds=5))


@pytest.mark.parametrize("make", [webhook_at, signed_with, apprise_at])
async def test_the_loop_goes_on_while_a_delivery_s_secret_hangs(
    tmp_path: Path, make: Callable[[Path], DeliveryTarget]
) -> None:
    path = written(tmp_path / "address")
    async with tools_with() as tools:
        with hung(path):
            patient = replace(tools, secrets=reader(LONGEST))
            sending = asyncio.create_task(send(make(path), message(), tools=patient))
            async with wait_ends():
                while not waiting():
                    await asyncio.sleep(0.01)
            assert not sending.done()
            with pytest.raises(Undeliverable, match=f"{path}: its disk gave no answer"):
                await send(make(path), message(), tools=replace(tools, secrets=reader()))
            assert not sending.done()
        with pytest.raises(Undeliverable):
            await sending
    eventually(none_wait)
