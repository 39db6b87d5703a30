"""What deliveries and heartbeats keep secret is known before any work, and no job's command is given it."""

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_cli_ground import World

from jobs.providers.secrets import SecretReader
from jobs.secret import Redactor
from scheduler.app import open_app, reconfigured
from scheduler.config.loader import load
from scheduler.delivery_secrets import learn_all, seals_of

pytestmark = pytest.mark.anyio

CONFIG = """\
timezone: UTC
state_dir: state
model: openai/m
delivery:
  hook: {webhook: "env:HOOK", headers: {Authorization: "env:HEADER"}, secret: "env:SECRET"}
  mail: {apprise: "env:MAIL"}
jobs: [{name: a, schedule: null, prompt: x, heartbeat: "env:BEAT"}]
"""
ENVIRON = {
    "HOOK": "https://example.org/in/Zx81Qq0aBc93",
    "HEADER": "Bearer header-word-77aa",
    "SECRET": "whsec_c2lnbmluZy1rZXktb2Ytb3Vycy0x",
    "MAIL": "mailtos://me:word-of-mail-4711@example.org",
    "BEAT": "https://hc.example/b9f1d0aa-77cc",
}
TELLING = (
    "Zx81Qq0aBc93",
    "header-word-77aa",
    "whsec_c2lnbmluZy1rZXktb2Ytb3Vycy0x",
    "word-of-mail-4711",
    "b9f1d0aa-77cc",
)


def told(redactor: Redactor) -> list[str]:
    """Return which of the secrets a text about them still shows."""
    shown = redactor.clean(" and ".join((*ENVIRON.values(), *TELLING)))
    return [each for each in TELLING if each in shown]


async def test_they_are_known_and_withheld_as_soon_as_everything_is_open(tmp_path: Path) -> None:
    world = World(tmp_path, config=CONFIG, environ={**ENVIRON, "LANG": "C"})
    redactor = Redactor()

    async with open_app(world.settings, environ=world.environ, kind="daemon", redactor=redactor) as app:
        assert told(redactor) == []
        assert sorted(app.workshop.commands.environ) == ["HOME", "LANG"]


async def test_those_of_another_configuration_are_known_and_withheld_too(tmp_path: Path) -> None:
    world = World(tmp_path, config=CONFIG.partition("delivery")[0], environ=ENVIRON)
    redactor = Redactor()

    async with open_app(world.settings, environ=world.environ, kind="daemon", redactor=redactor) as app:
        assert told(redactor) == list(TELLING)
        world.file.write_text(CONFIG)
        settings = load(world.file, environ=world.environ, now=datetime.now(UTC))
        another = await reconfigured(app, settings, world.environ)

        assert told(redactor) == []
        assert sorted(another.workshop.commands.environ) == ["HOME"]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of the composition root; others may log too."""
    return [record.getMessage() for record in caplog.records if record.name == "scheduler.app"]


async def test_a_daemon_warns_of_what_it_cannot_use_and_begins_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {**ENVIRON, "HOOK": "ftp://example.org/Zx81Qq0aBc93"}
    del environ["MAIL"]
    world = World(tmp_path, config=CONFIG, environ=environ)

    with caplog.at_level(logging.WARNING, logger="scheduler.app"):
        async with open_app(world.settings, environ=environ, kind="command", redactor=Redactor()):
            assert said(caplog) == []
        async with open_app(world.settings, environ=environ, kind="daemon", redactor=Redactor()):
            of_hook, of_mail = said(caplog)

    assert of_hook.startswith("delivery.hook.webhook, env:HOOK: is not a URL")
    assert of_mail == "delivery.mail.apprise, env:MAIL: the variable MAIL is not set"


async def test_of_many_that_cannot_be_used_twenty_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "".join(f"  h{number}: {{webhook: env:NOT_SET_{number}}}\n" for number in range(25))
    world = World(tmp_path, config=f"model: openai/m\nstate_dir: state\ndelivery:\n{rows}")

    async with open_app(world.settings, environ=world.environ, kind="daemon", redactor=Redactor()):
        assert len(said(caplog)) == 21
        assert said(caplog)[-1] == "5 more secrets of deliveries cannot be used; see `promptd check`"


def test_an_address_without_a_secret_that_is_written_out_stays_in_texts(tmp_path: Path) -> None:
    """A model's answer may name it; another one's token, or a header kept elsewhere, may not be told."""
    plain, telling = "http://localhost:8080/services/in", "https://example.org/Zx81Qq0aBc93"
    headers = "headers: {X-Team: operations, X-Env: 'env:ENV'}"
    config = (
        "model: openai/m\nstate_dir: state\n"
        f"delivery: {{a: {{webhook: '{plain}', {headers}}}, b: {{webhook: '{telling}'}}}}\n"
    )
    world = World(tmp_path, config=config, environ={"ENV": "production"}, migrated=False)
    redactor = Redactor()

    learn_all(load(world.file, environ=world.environ, now=world.now), world.environ, redactor)

    told = redactor.clean(f"operations at {plain}, production at {telling}")
    assert told == f"operations at {plain}, [secret] at https://example.org/[secret]"


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("whsec_###", "what follows is no base64; copy it once more"),
        ("whsec_dG9vIHNob3J0", "has 9 bytes, which can be found out"),
        ("fifteen letters", "has 15 bytes, which can be found out"),
        ("sixteen letters!", None),
        ("whsec_c2l4dGVlbiBsZXR0ZXJzIQ==", None),
    ],
)
def test_a_signing_key_that_will_not_do_is_named(tmp_path: Path, secret: str, why: str | None) -> None:
    world = World(tmp_path, config=CONFIG, environ={**ENVIRON, "SECRET": secret}, migrated=False)

    found = learn_all(load(world.file, environ=world.environ, now=world.now), world.environ, Redactor())

    assert [each.kept.key for each in found] == (["delivery.hook.secret"] if why else [])
    assert all(why is not None and why in str(each) and secret not in str(each) for each in found)


def test_whatever_is_unusable_is_named_without_its_value(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        config=CONFIG,
        environ={"BEAT": "https://me:Zx81Qq0aBc93@hc.example/", "SECRET": "a\x01b"},
        migrated=False,
    )
    settings = load(world.file, environ=world.environ, now=world.now)

    found = learn_all(settings, world.environ, Redactor())

    assert [each.kept.key for each in found] == [
        "delivery.hook.webhook",
        "delivery.hook.headers.Authorization",
        "delivery.hook.secret",
        "delivery.mail.apprise",
        "jobs.a.heartbeat",
    ]
    assert "carries a login" in found[-1].why
    assert not any("Zx81Qq0aBc93" in str(each) or "\x01" in str(each) for each in found)


@pytest.mark.parametrize("name", ["HOOK", "HEADER", "SECRET"])
def test_a_seal_is_another_one_where_any_secret_of_a_target_is_and_else_the_same(
    tmp_path: Path, name: str
) -> None:
    """Also where it cannot be read; and those of other targets stay."""
    settings = World(tmp_path, config=CONFIG, environ=ENVIRON).settings

    def seals(environ: dict[str, str]) -> dict[str, bytes]:
        return seals_of(settings, SecretReader(environ, Redactor()))

    before = seals(ENVIRON)
    assert before == seals(ENVIRON)
    changed, gone = seals(ENVIRON | {name: "another-7712"}), seals(ENVIRON | {name: ""})
    assert len({before["hook"], changed["hook"], gone["hook"]}) == 3
    assert before["mail"] == changed["mail"] == gone["mail"]
