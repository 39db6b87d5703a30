"""`promptd init`: a configuration to begin with, made of what is there already."""

import json
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import click

from jobs.errors import UsageError
from scheduler.cli.context import Context, pass_context

# ruff: noqa: PLC0415 - the list of providers is read when it is needed

_OLLAMA = "http://127.0.0.1:11434/api/tags"
_OLLAMA_TIMEOUT = 0.5
_MODELS = {
    "openai": "gpt-5.5",
    "zai": "glm-5.1",
    "groq": "llama-3.3-70b-versatile",
    "openrouter": "google/gemini-2.5-flash",
    "gemini": "gemini-2.5-flash",
    "deepseek": "deepseek-chat",
    "mistral": "mistral-small-latest",
}
_NO_MODEL = "choose-a-model"


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path())
@pass_context
def init(context: Context, directory: Path) -> int:
    """Write DIRECTORY/promptd.yaml and DIRECTORY/jobs.d/hello.yaml; never overwrite."""
    config, job = directory / "promptd.yaml", directory / "jobs.d" / "hello.yaml"
    for path in (config, job):
        if path.exists():
            raise UsageError(f"{path} is there already; init never overwrites")
    found = detected(context.environ)
    _write(config, _config_text(found))
    _write(job, _JOB)
    click.echo(f"wrote {config} and {job}")
    if found:
        click.echo(f"found: {', '.join(target for target, _why in found)}")
    else:
        click.echo(
            "found no key variable that is set and no local Ollama: set OPENAI_API_KEY, or edit `model`"
        )
    click.echo(f"next: promptd --config {config} check, then promptd --config {config} job run hello")
    return 0


def detected(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (target, why) for each provider with a key variable that is set, and for a local Ollama."""
    from jobs.providers.registry import builtin_rows

    found = []
    for name, row in builtin_rows().items():
        variable = next((each for each in row.key_env if environ.get(each, "").strip()), None)
        if variable is not None:
            found.append((f"{name}/{_MODELS.get(name, _NO_MODEL)}", f"{variable} is set"))
    model = _ollama_model()
    if model is not None:
        found.append((f"ollama/{model}", "a local Ollama answers"))
    return found


def _ollama_model() -> str | None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(_OLLAMA, timeout=_OLLAMA_TIMEOUT) as answer:
            models = json.loads(answer.read(1_000_000))["models"]
            name = models[0]["name"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return name if isinstance(name, str) else None


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w") as file:
            file.write(text)
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror}") from exc


def _config_text(found: list[tuple[str, str]]) -> str:
    (primary, why), *rest = found or [("openai/gpt-5.5", "set OPENAI_API_KEY")]
    fallbacks = "".join(f"  - {target}  # {reason}\n" for target, reason in rest[:4])
    return _CONFIG.format(
        primary=primary,
        why=why,
        fallbacks=f"fallback_providers:  # asked in this order when the one before fails\n{fallbacks}"
        if fallbacks
        else "# fallback_providers:  # asked in this order when the one before fails\n#   - zai/glm-5.1\n",
    )


_CONFIG = """\
# promptd's configuration. `promptd check` says whether it is sound, `promptd config schema` describes it.

model: {primary}  # {why}
{fallbacks}
# timezone: Europe/Berlin          # default: this machine's
# state_dir: /var/lib/promptd      # default: ~/.local/state/promptd
# server: {{listen: 127.0.0.1:9464}} # /metrics /healthz /readyz; "off" to serve nothing

# Jobs can stand here under `jobs:`, or one to a file in jobs.d/ beside this file.
"""

_JOB = """\
# One job. Change the prompt, then: promptd job run hello
name: hello
schedule: "0 7 * * mon-fri"  # five cron fields; or @daily, every 90s, at 2030-01-01T09:00
prompt: |
  It is {{ now | localtime("%A %d %B") }}. Say good morning, and name one thing worth knowing about this date.
"""
