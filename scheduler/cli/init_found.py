"""What `promptd init` finds: key variables that are set, a local Ollama, the login of the Codex tool."""

import json
import os
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# ruff: noqa: PLC0415 - the list of providers is read when it is needed

_OLLAMA = "http://127.0.0.1:11434/api/tags"
_OLLAMA_TIMEOUT = 0.5
_MODELS = {
    "openai": "gpt-5.5",
    "openai-codex": "gpt-5.5",
    "zai": "glm-5.1",
    "groq": "llama-3.3-70b-versatile",
    "openrouter": "google/gemini-2.5-flash",
    "gemini": "gemini-2.5-flash",
    "deepseek": "deepseek-chat",
    "mistral": "mistral-small-latest",
}
NO_MODEL = "choose-a-model"
CODEX = "openai-codex"
IMPORT = "promptd auth import codex"


@dataclass(frozen=True, slots=True)
class Found:
    """A provider that can be asked from here, with a model of it, and how that is known."""

    provider: str
    model: str
    why: str

    @property
    def target(self) -> str:
        """The provider and its model, as the configuration writes them."""
        return f"{self.provider}/{self.model}"

    @property
    def is_complete(self) -> bool:
        """Whether a model is known: a fallback without one would only fail."""
        return self.model != NO_MODEL


def usual(provider: str) -> Found:
    """Return a provider that nothing was found of, as it is asked once there is a key."""
    from jobs.providers.registry import builtin_rows

    row = builtin_rows().get(provider)
    variables = row.key_env if row is not None else ()
    why = (
        f"log in: {IMPORT}"
        if provider == CODEX
        else f"set {variables[0]}"
        if variables
        else "it needs no key"
    )
    return Found(provider, _MODELS.get(provider, NO_MODEL), why)


def found(environ: Mapping[str, str]) -> list[Found]:
    """Return what there is to ask; those with a known model first, a login of another tool last."""
    there = [*_with_keys(environ), *_ollama()]
    return [*sorted(there, key=lambda each: not each.is_complete), *_codex(environ)]


def _with_keys(environ: Mapping[str, str]) -> Iterator[Found]:
    """Yield each provider with a key variable that is set, unless its address is the user's own."""
    from jobs.providers.registry import builtin_rows

    for name, row in builtin_rows().items():
        variable = next((each for each in row.key_env if environ.get(each, "").strip()), None)
        if variable is not None and row.base_url:
            yield Found(name, _MODELS.get(name, NO_MODEL), f"{variable} is set")


def _ollama() -> Iterator[Found]:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(_OLLAMA, timeout=_OLLAMA_TIMEOUT) as answer:
            name = json.loads(answer.read(1_000_000))["models"][0]["name"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    if isinstance(name, str) and name.isprintable():
        yield Found("ollama", name, "a local Ollama answers")


def _codex(environ: Mapping[str, str]) -> Iterator[Found]:
    """Yield the login of the Codex command line, where `promptd auth import codex` looks for it."""
    home = environ.get("HOME") or os.path.expanduser("~")
    if os.access(Path(home, ".codex", "auth.json"), os.R_OK):
        yield Found(CODEX, _MODELS[CODEX], f"the Codex tool is logged in; take it over: {IMPORT}")
