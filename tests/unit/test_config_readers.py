"""What of the providers' secrets others may read is warned of; and what `config show` prints of commands."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import pytest

from scheduler.cli.check import secrets_for_everybody
from scheduler.cli.context import Context
from scheduler.config.effective import effective
from scheduler.config.loader import load, load_with_origins
from scheduler.config.schema import CommandRow
from scheduler.doctor.files import is_handed_over

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
TOKEN = "Qx7rT2mZ9pLk"
CUSTOM = 'model: {{provider: custom, base_url: "http://localhost:8080/v1", model: m, api_key: {key}}}\n'
NOWHERE: Mapping[str, str] = MappingProxyType({})
JOB = "timezone: UTC\njobs: [{name: a, schedule: null, prompt: hi}]\n"


def warnings(tmp_path: Path, text: str, *, mode: int = 0o644) -> list[str]:
    """Return the warnings of a configuration with that mode, each from its key on."""
    file = tmp_path / "promptd.yaml"
    file.write_text(JOB + text)
    file.chmod(mode)
    found = load(file, environ={}, now=NOW).warnings
    assert not any(TOKEN in each for each in found)
    return [each.split(": ", 1)[1] for each in found]


def warnings_of_files(tmp_path: Path, environ: Mapping[str, str] = NOWHERE) -> list[str]:
    """Return what is said of the files of secrets in the configuration written last, each from its key on."""
    context = Context(config=tmp_path / "promptd.yaml", environ=environ)
    return [each.split(": ", 1)[1] for each in secrets_for_everybody(context)]


HEADERS = f"""\
model: own/m
providers: {{own: {{auth: none, base_url: "http://localhost/v1", headers: {{X-Key: {TOKEN}}}}}}}
"""


@pytest.mark.parametrize(
    ("text", "key", "mend"),
    [
        (CUSTOM.format(key=TOKEN), "model.api_key", "write env:NAME, file:PATH or systemd:NAME instead"),
        (HEADERS, "providers.own.headers.X-Key", "let few read it, such as with `chmod 640`"),
    ],
)
def test_a_providers_secret_in_a_file_that_everybody_may_read_is_warned_of(
    tmp_path: Path, text: str, key: str, mend: str
) -> None:
    told = f"{key}: seems to hold a secret, and everybody may read promptd.yaml; {mend}"
    assert warnings(tmp_path, text) == [told]
    assert warnings(tmp_path, text, mode=0o640) == []


@pytest.mark.parametrize("key", ["no-key-required", "ollama", "local", "env:KEY", "systemd:key"])
def test_what_is_no_secret_may_be_read(tmp_path: Path, key: str) -> None:
    assert warnings(tmp_path, CUSTOM.format(key=key)) == []
    assert warnings(tmp_path, HEADERS.replace("X-Key", "X-Team")) == []


OF_A_PROVIDER = "model: openai/m\nproviders: {openai: {credentials: [{label: main, key: 'file:FILE'}]}}\n"
OF_A_DELIVERY = "model: openai/m\ndelivery: {hook: {%s}}\n"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (OF_A_PROVIDER, "providers.openai.credentials[0].key"),
        (CUSTOM.format(key="'file:FILE'"), "model.api_key"),
        (OF_A_DELIVERY % "webhook: 'https://example.org/', secret: 'file:FILE'", "delivery.hook.secret"),
        (
            OF_A_DELIVERY % "webhook: 'https://example.org/', headers: {X-Key: 'file:FILE'}",
            "delivery.hook.headers.X-Key",
        ),
        (OF_A_DELIVERY % "apprise: 'file:FILE'", "delivery.hook.apprise"),
        (OF_A_DELIVERY % "webhook: 'file:FILE'", "delivery.hook.webhook"),
    ],
)
def test_a_secrets_file_that_everybody_may_read_is_warned_of_once(
    tmp_path: Path, text: str, key: str
) -> None:
    file = tmp_path / "key"
    file.write_text(TOKEN)
    text = text.replace("FILE", str(file))
    file.chmod(0o644)
    assert warnings(tmp_path, text) == []
    (told,) = warnings_of_files(tmp_path)
    assert told.startswith(f"{key}: names a secret that everybody may read; ")
    assert f"`chmod o-r {file}`" in told
    file.chmod(0o600)
    assert warnings_of_files(tmp_path) == []
    file.unlink()
    assert warnings_of_files(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "there"),
    [
        ("/run/secrets/key", True),
        ("/var/run/secrets/team/key", True),
        ("/run/credentials/promptd.service/key", True),
        ("/run/secrets.d/key", False),
        ("/etc/key", False),
    ],
)
def test_what_a_container_or_the_service_manager_hands_over_may_be_for_everybody(
    file: str, there: bool
) -> None:
    assert is_handed_over(Path(file), {}) is there


def test_nothing_is_said_of_a_file_in_the_units_own_directory_of_credentials(tmp_path: Path) -> None:
    file = tmp_path / "given" / "key"
    file.parent.mkdir()
    file.write_text(TOKEN)
    file.chmod(0o444)
    assert warnings(tmp_path, OF_A_PROVIDER.replace("FILE", str(file))) == []

    assert len(warnings_of_files(tmp_path)) == 1
    assert warnings_of_files(tmp_path, {"CREDENTIALS_DIRECTORY": str(file.parent)}) == []


@pytest.mark.parametrize("key", ["condition", "gather"])
def test_a_program_that_is_not_there_is_warned_of_and_a_bare_name_is_the_daemons(
    tmp_path: Path, key: str
) -> None:
    def told(command: str) -> list[str]:
        text = f"model: openai/m\ndefaults: {{{key}: {{{command}}}}}\n"
        return warnings(tmp_path, text)

    assert told(f'command: ["{tmp_path}/no-such", x]') == [
        f"defaults.{key}: names {tmp_path}/no-such, which is not there"
    ]
    assert told(f'command: ["{tmp_path}", x]') == []
    assert told("command: [no-such-program]") == []
    assert told(f'shell: true, command: "{tmp_path}/no-such"') == []


SHOWN = [
    (["notify", f"--token={TOKEN}"], ["notify", "--token=[secret]"]),
    (["notify", "--token=abc", "--to=me"], ["notify", "--token=[secret]", "--to=me"]),
    (["notify", "--api-key", "abc", "me"], ["notify", "--api-key", "[secret]", "me"]),
    (["notify", "--password", "--force"], ["notify", "--password", "--force"]),
    (["env", "SMTP_PASSWORD=abc", "notify"], ["env", "SMTP_PASSWORD=[secret]", "notify"]),
    (["curl", "-H", "X-Api-Key: abc", "http://h/a"], ["curl", "-H", "X-Api-Key: [secret]", "http://h/a"]),
    (["curl", "http://h/a?sig=abcdef12&x=1"], ["curl", "http://h/a?sig=[secret]&x=1"]),
    (["sort", "-k2", "--reverse", "token"], ["sort", "-k2", "--reverse", "token"]),
]


@pytest.mark.parametrize(("words", "shown"), SHOWN)
def test_the_secrets_of_a_command_are_not_shown(tmp_path: Path, words: list[str], shown: list[str]) -> None:
    assert shown_command(tmp_path, {"command": words}) == shown


def test_the_secrets_of_a_shells_line_are_not_shown(tmp_path: Path) -> None:
    line = f"TOKEN='a b' notify --password=\"{TOKEN} x\" --to=me | curl -H 'X-Key: {TOKEN}' http://h/"
    assert shown_command(tmp_path, {"shell": True, "command": line}) == (
        "TOKEN=[secret] notify --password=[secret] --to=me | curl -H 'X-Key: [secret]' http://h/"
    )


def shown_command(tmp_path: Path, row: dict[str, object]) -> object:
    """Return what is shown of a delivery's command, which is what is shown of a job's."""
    CommandRow.model_validate(row)
    command = json.dumps(row)
    file = tmp_path / "promptd.yaml"
    file.write_text(
        f"timezone: UTC\nmodel: openai/m\ndelivery: {{p: {command}}}\n"
        f"jobs: [{{name: a, schedule: null, prompt: hi, gather: {command}}}]\n"
    )
    found = effective(load_with_origins(file, environ={}, now=NOW))
    of_job = found["jobs"]["a"]["gather"]["value"]["command"]
    assert found["delivery"]["p"]["command"]["value"] == of_job
    return of_job
