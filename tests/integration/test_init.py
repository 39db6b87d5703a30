"""`promptd init` writes what `promptd check` accepts, never overwrites, and leaves nothing half written."""

import io
import json
import os
import stat
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from test_cli_ground import Said

from scheduler.cli import main
from scheduler.cli.init_found import Found, found, usual
from scheduler.cli.init_texts import MOST_FALLBACKS, Answers, Delivery, config_text

KEYS = {
    "OPENAI_API_KEY": "key-of-openai",
    "ZAI_API_KEY": "key-of-zai",
    "NVIDIA_API_KEY": "key-of-nvidia",
    "AZURE_OPENAI_API_KEY": "key-of-azure",
}


def promptd(home: Path, *words: str, environ: Mapping[str, str] = KEYS) -> Said:
    """Run one command in this process, at no terminal."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words, environ={"HOME": str(home), "XDG_STATE_HOME": str(home / "state"), **environ})
    return Said(code, out.getvalue(), err.getvalue())


def checked(home: Path, directory: Path, *, environ: Mapping[str, str] = KEYS) -> Any:
    said = promptd(home, "--config", str(directory / "promptd.yaml"), "check", "--json", environ=environ)
    return {**json.loads(said.out), "code": said.code}


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--yes",),
        ("--model", "zai/glm-5.1"),
        ("--model", "ollama/qwen3:4b", "--timezone", "Australia/Lord_Howe"),
        ("--deliver", "file"),
        ("--deliver", "nowhere"),
    ],
)
def test_what_is_written_passes_check_whatever_is_said(tmp_path: Path, options: tuple[str, ...]) -> None:
    """With keys that are set everything can be read, too; the key is in no file."""
    place = tmp_path / "new" / "house"

    said = promptd(tmp_path, "init", str(place), *options)

    assert (said.code, said.err) == (0, "")
    report = checked(tmp_path, place)
    assert (report["code"], report["ok"], report["jobs"], report["warnings"]) == (0, True, 1, [])
    assert "key-of-" not in "".join(path.read_text() for path in place.rglob("*.yaml")) + said.out


def test_without_any_key_only_the_key_is_missing(tmp_path: Path) -> None:
    promptd(tmp_path, "init", str(tmp_path), environ={})

    report = checked(tmp_path, tmp_path, environ={})

    assert (report["code"], report["faults"]) == (1, [])
    assert [each["why"] for each in report["unreadable"]] == ["the variable OPENAI_API_KEY is not set"]


def test_an_apprise_url_is_named_by_a_variable_and_told_of(tmp_path: Path) -> None:
    said = promptd(tmp_path, "init", str(tmp_path), "--deliver", "apprise")

    assert "set PROMPTD_APPRISE_URL to an Apprise URL" in said.out
    assert checked(tmp_path, tmp_path)["targets"] == ["ops"]
    environ = {**KEYS, "PROMPTD_APPRISE_URL": "json://localhost"}
    assert checked(tmp_path, tmp_path, environ=environ)["code"] == 0


@pytest.mark.parametrize("there", ["promptd.yaml", "jobs.d/hello.yaml"])
@pytest.mark.parametrize("dangling", [False, True])
def test_nothing_is_ever_overwritten(tmp_path: Path, there: str, dangling: bool) -> None:
    """Nor is the other file written; a link that leads nowhere yet is somebody's too."""
    (tmp_path / "jobs.d").mkdir()
    if dangling:
        (tmp_path / there).symlink_to(tmp_path / "elsewhere.yaml")
    else:
        (tmp_path / there).write_text("mine")

    said = promptd(tmp_path, "init", str(tmp_path))

    assert (said.code, "never overwrites" in said.err) == (2, True)
    assert [path.name for path in tmp_path.rglob("*.yaml")] == [Path(there).name]


def test_a_file_that_somebody_else_writes_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """It comes between the last look and the first word."""
    real = os.open

    def late(path: Any, flags: int, *more: Any, **others: Any) -> int:
        if Path(path).name == "hello.yaml" and flags & os.O_WRONLY:
            Path(path).write_text("theirs")
        return real(path, flags, *more, **others)

    with mock.patch.object(os, "open", late):
        said = promptd(tmp_path, "init", str(tmp_path))

    assert (said.code, "cannot write" in said.err) == (2, True)
    assert [path.read_text() for path in tmp_path.rglob("*.yaml")] == ["theirs"]


def test_an_alias_names_the_provider_that_was_found(tmp_path: Path) -> None:
    """It is asked under its own name, and is no fallback of itself."""
    said = promptd(tmp_path, "init", str(tmp_path), "--model", "glm/glm-5.1")

    text = (tmp_path / "promptd.yaml").read_text()
    assert said.code == 0
    assert "\nmodel: zai/glm-5.1  # ZAI_API_KEY is set\n" in text
    assert text.count("glm") == 1
    assert promptd(tmp_path, "init", str(tmp_path / "new"), "--model", "nobody/m").code == 2


def test_what_check_would_refuse_is_not_written(tmp_path: Path) -> None:
    """Azure has an address only its owner knows; Mars has no zone; and other jobs may have faults."""
    (tmp_path / "faulty" / "jobs.d").mkdir(parents=True)
    (tmp_path / "faulty" / "jobs.d" / "other.yaml").write_text("name: 7\n")
    for place, options in (
        ("new", ("--model", "azure/gpt")),
        ("new", ("--model", "nonsense")),
        ("new", ("--timezone", "Mars")),
        ("faulty", ()),
    ):
        said = promptd(tmp_path, "init", str(tmp_path / place), *options)
        assert said.code == 2, said
        assert not (tmp_path / place / "promptd.yaml").exists()
    assert not (tmp_path / "new").exists()


def test_a_second_file_that_cannot_be_written_takes_the_first_away_again(tmp_path: Path) -> None:
    """The directory of jobs leads nowhere."""
    house = tmp_path / "house"
    house.mkdir()
    (house / "jobs.d").symlink_to(tmp_path / "nowhere")

    said = promptd(tmp_path, "init", str(house))

    assert (said.code, "cannot write" in said.err) == (2, True)
    assert [path.name for path in house.iterdir()] == ["jobs.d"]


def test_those_whose_model_is_known_come_first_and_a_login_of_another_tool_last(tmp_path: Path) -> None:
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex" / "auth.json").write_text("{}")

    there = found({**KEYS, "HOME": str(tmp_path)})

    assert [each.target for each in there if each.provider != "ollama"] == [
        "openai/gpt-5.5",
        "zai/glm-5.1",
        "nvidia/choose-a-model",
        "openai-codex/gpt-5.5",
    ]


def test_a_login_of_the_codex_tool_alone_is_asked_first_once_it_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex" / "auth.json").write_text("{}")

    said = promptd(tmp_path, "init", str(tmp_path / "new"), environ={})

    assert "auth import codex" in said.out
    assert checked(tmp_path, tmp_path / "new", environ={})["faults"] == []


def test_only_what_would_answer_is_a_fallback() -> None:
    """No model to choose yet, no login to take over yet, and a bounded number."""
    many = [Found(f"p{number}", "m", "why") for number in range(9)]
    text = config_text(
        Answers(usual("zai"), [Found("nvidia", "choose-a-model", ""), usual("openai-codex"), *many])
    )

    assert "nvidia" not in text
    assert "openai-codex" not in text
    assert text.count("  - p") == MOST_FALLBACKS


def test_a_model_that_yaml_would_read_otherwise_is_quoted(tmp_path: Path) -> None:
    for model in ("zai/yes: no", "zai/a #b", 'zai/"quoted"', "zai/{{x}}"):
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        assert promptd(tmp_path, "init", str(place), "--model", model).code == 0
        assert checked(tmp_path, place)["ok"]


def test_a_file_that_holds_an_address_is_private() -> None:
    """A webhook's URL is often a secret; a variable's name is none."""
    assert Delivery.webhook("https://example.org/hook/t0ken").is_secret
    assert not Delivery.webhook("env:HOOK_URL").is_secret


def test_files_without_secrets_can_be_read_by_a_service(tmp_path: Path) -> None:
    promptd(tmp_path, "init", str(tmp_path))

    assert stat.S_IMODE((tmp_path / "promptd.yaml").stat().st_mode) & 0o044
