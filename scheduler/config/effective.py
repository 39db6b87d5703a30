"""The effective configuration for `promptd config show`: every value, and the line that it comes from."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import Enum
from types import MappingProxyType
from typing import Any, assert_never
from urllib.parse import urlsplit

from jobs.credential import SecretReference
from jobs.definition import Command, Retry
from jobs.delivery.target import AppriseTarget, CommandTarget, DeliveryTarget, FileTarget, WebhookTarget
from jobs.providers.registry import Provider
from jobs.request import Parameters
from jobs.secret import Redactor, names_a_secret, secrets_in_url
from scheduler.config.delivery_forms import public_part
from scheduler.config.job_files import WrittenJob
from scheduler.config.loader import Loaded
from scheduler.config.schema import JobKeys, ParametersRow
from scheduler.config.settings import ScheduledJob, Settings
from scheduler.config.sources import Document
from scheduler.config.yaml_tree import KeyPath
from scheduler.timetable import Timetable
from scheduler.zone_pieces import Fold, Gap

DEFAULT = "default"
MASK = "[secret]"
_A_URL = re.compile(r"(?<![A-Za-z0-9+.\-])[A-Za-z0-9+.\-]++://[^\s'\"]++")
_LOGIN = re.compile(r"(://[^\s'\"/?#:@]*+:)[^\s'\"/?#]+@")
_VALUE = re.compile(
    r"(?<![\w\-])(?P<name>-{0,2}[A-Za-z][\w\-]*+)(?P<is>=|: *+)(?!//)"
    r"(?:'[^']++'|\"[^\"]++\"|[^\s'\"&]++)"
)
"""What a word of a command, or a shell's line, gives a name to: `--token=…`, `TOKEN=…`, `X-Key: …`."""

_TOP: Mapping[str, Callable[[Settings], Any]] = MappingProxyType(
    {
        "timezone": lambda s: s.timezone.key,
        "database": lambda s: _without_password(s.database),
        "state_dir": lambda s: s.state_dir,
        "secret_key": lambda s: [str(key) for key in s.secret_keys],
        "model": lambda s: s.chain[0] if s.chain else None,
        "fallback_providers": lambda s: s.chain[1:],
        "limits.max_concurrent_runs": lambda s: s.limits.max_concurrent_runs,
        "limits.keep_runs": lambda s: s.limits.keep_runs,
        "limits.keep_days": lambda s: s.limits.keep_days,
        "limits.drain_timeout": lambda s: s.limits.drain_timeout,
        "server.listen": lambda s: f"{s.listen.host}:{s.listen.port}" if s.listen else "off",
        "logging.level": lambda s: s.log_level,
        "logging.format": lambda s: s.log_format,
        "defaults.timeout": lambda s: s.job_timeout,
        "alerts.to": lambda s: s.alerts.to,
        "alerts.after_failures": lambda s: s.alerts.after_failures,
        "alerts.remind_every": lambda s: s.alerts.remind_every,
    }
)
_PROVIDER: Mapping[str, Callable[[Provider], Any]] = MappingProxyType(
    {
        "base_url": lambda p: p.base_url,
        "api_mode": lambda p: p.api_mode,
        "timeout": lambda p: p.timeout,
        "stream": lambda p: p.stream,
        "store": lambda p: p.store,
        "headers": lambda p: dict.fromkeys(p.headers, MASK),
        "credentials": lambda p: {c.label: c.source for c in p.credentials},
    }
)
_JOB: Mapping[str, Callable[[ScheduledJob], Any]] = MappingProxyType(
    {
        "schedule": lambda j: _one_or_list(j.timetable.lines) if j.timetable else None,
        "timezone": lambda j: j.timezone.key,
        "enabled": lambda j: j.enabled,
        "dst": lambda j: _dst(j.timetable),
        "jitter": lambda j: j.jitter,
        "start": lambda j: j.timetable.start if j.timetable else None,
        "end": lambda j: j.timetable.end if j.timetable else None,
        "max_runs": lambda j: j.max_runs,
        "misfire_grace_time": lambda j: j.misfire_grace_time,
        "catch_up": lambda j: j.catch_up,
        "concurrency": lambda j: j.job.concurrency,
        "on_crash": lambda j: j.job.on_crash,
        "description": lambda j: j.job.description,
        "tags": lambda j: j.job.tags,
        "prompt": lambda j: j.job.prompt,
        "prompt_file": lambda j: j.job.prompt_file,
        "system": lambda j: j.job.system,
        "system_file": lambda j: j.job.system_file,
        "vars": lambda j: j.job.vars,
        "model": lambda j: j.job.chain[0],
        "fallback": lambda j: j.job.chain[1:],
        "fallback_on": lambda j: sorted(j.job.fallback_on),
        "parameters": lambda j: _parameters(j.job.parameters),
        "timeout": lambda j: j.job.timeout,
        "retry": lambda j: _retry(j.job.retry),
        "condition": lambda j: _command(j.job.condition, prints=False),
        "gather": lambda j: _command(j.job.gather),
        "context_from": lambda j: j.job.context_from,
        "after": lambda j: j.job.after,
        "max_tokens_per_day": lambda j: j.job.max_tokens_per_day,
        "on_overflow": lambda j: j.job.on_overflow,
        "on_truncated": lambda j: j.job.on_truncated,
        "repeat_safe": lambda j: j.job.repeat_safe,
        "store_prompt": lambda j: j.job.store_prompt,
        "silent_when": lambda j: j.job.silent_when,
        "pause_after_failures": lambda j: j.job.pause_after_failures,
        "deliver": lambda j: [{"to": each.to, "on": each.on} for each in j.job.deliver],
        "heartbeat": lambda j: _where(j.job.heartbeat),
    }
)


_TEXTS: Mapping[str, str] = MappingProxyType(
    {
        **{"prompt": "prompt_file", "prompt_file": "prompt"},
        **{"system": "system_file", "system_file": "system"},
    }
)
"""Keys of which a job's own one puts the other one of `defaults` out of force."""


def effective(loaded: Loaded) -> dict[str, Any]:
    """Return the sections of the configuration; each leaf is `{"value": …, "from": …}`.

    `from` is `file:line`, or `default`. Values are plain JSON values; secrets, header values and
    passwords are masked.
    """
    shown = _top(loaded)
    shown["providers"] = dict(_providers(loaded))
    shown["auxiliary"] = dict(_auxiliary(loaded))
    shown["delivery"] = dict(_delivery(loaded))
    shown["jobs"] = {
        each.row.name: _job(loaded, each, loaded.settings.jobs[each.row.name])
        for each in loaded.written
        if each.row.name is not None
    }
    return shown


def _top(loaded: Loaded) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for dotted, value in _TOP.items():
        *sections, key = dotted.split(".")
        holder = shown
        for section in sections:
            holder = holder.setdefault(section, {})
        holder[key] = _leaf(value(loaded.settings), _origin(loaded.document, (*sections, key)))
    if "fallback_model" in loaded.document.data:
        shown["fallback_providers"]["from"] = _origin(loaded.document, ("fallback_model",))
    return shown


def _providers(loaded: Loaded) -> Iterator[tuple[str, Any]]:
    """Yield the providers of the file, and inline ones."""
    registry = loaded.settings.registry
    entries = {registry.canonical(entry): entry for entry in loaded.file.providers}
    for provider in registry:
        entry = entries.get(provider.name)
        if entry is None and ":" not in provider.name:
            continue
        path: KeyPath = ("providers", entry or provider.name)
        yield (
            provider.name,
            {
                key: _leaf(value(provider), _origin(loaded.document, (*path, key)))
                for key, value in _PROVIDER.items()
            },
        )


def _auxiliary(loaded: Loaded) -> Iterator[tuple[str, Any]]:
    for name, task in loaded.settings.auxiliary.items():
        origin = _origin(loaded.document, ("auxiliary", name))
        yield (
            name,
            {
                "chain": _leaf(task.chain, origin),
                "fallback_to_main": _leaf(task.fallback_to_main, origin),
                "timeout": _leaf(task.timeout, origin),
            },
        )


def _delivery(loaded: Loaded) -> Iterator[tuple[str, Any]]:
    for name, target in loaded.settings.delivery.items():
        path = ("delivery", name)
        leaves = {**_of_target(target), "timeout": target.timeout}
        yield (
            name,
            {key: _leaf(value, _origin(loaded.document, (*path, key))) for key, value in leaves.items()},
        )


def _of_target(target: DeliveryTarget) -> dict[str, Any]:
    """Return the keys of one kind of target, without its secrets."""
    match target:
        case AppriseTarget():
            return {"apprise": _where(target.url)}
        case WebhookTarget():
            return {
                "webhook": _where(target.url),
                "headers": {key: _where(value, is_url=False) for key, value in target.headers.items()},
                "secret": _where(target.secret),
                "allow_link_local": target.allow_link_local,
            }
        case FileTarget():
            return {"file": target.base / target.template}
        case CommandTarget(command=command):
            return {"command": _words(command), "shell": command.shell}
    assert_never(target)


def _where(reference: SecretReference | None, *, is_url: bool = True) -> str | None:
    """Return a reference as it is written; of a URL that is written out only whose it is."""
    if reference is None or reference.scheme != "literal":
        return str(reference) if reference else None
    return f"{public_part(reference.name)}{MASK}" if is_url else MASK


def job_keys(loaded: Loaded, name: str) -> dict[str, Any]:
    """Return the keys of one job as `effective` does."""
    written = next(each for each in loaded.written if each.row.name == name)
    return _job(loaded, written, loaded.settings.jobs[name])


def _job(loaded: Loaded, written: WrittenJob, job: ScheduledJob) -> dict[str, Any]:
    return {key: _leaf(value(job), _job_origin(loaded, written, key)) for key, value in _JOB.items()}


def _job_origin(loaded: Loaded, written: WrittenJob, key: str) -> str:
    """Return where a job's value comes from: its own file, `defaults`, or what stands at the top."""
    if key in written.row.model_fields_set or _TEXTS.get(key, "") in written.row.model_fields_set:
        return _origin(written.document, (*written.path, key))
    if key in JobKeys.model_fields and key in loaded.file.defaults.model_fields_set:
        return _origin(loaded.document, ("defaults", key))
    inherited = {"fallback": _fallback_key(loaded), "model": "model", "timezone": "timezone"}.get(key)
    return _origin(loaded.document, (inherited,)) if inherited else DEFAULT


def _fallback_key(loaded: Loaded) -> str:
    return "fallback_model" if "fallback_model" in loaded.document.data else "fallback_providers"


def _origin(document: Document, path: KeyPath) -> str:
    return f"{document.file}:{document.place(path, key=True)[0]}" if document.holds(path) else DEFAULT


def _command(command: Command | None, *, prints: bool = True) -> dict[str, Any] | None:
    if command is None:
        return None
    return {
        "command": _words(command),
        "shell": command.shell,
        "timeout": command.timeout,
        **({"max_bytes": command.max_bytes} if prints else {}),
    }


def _words(command: Command) -> str | list[str]:
    """Return the words of a command, or its line for a shell, without the secrets of URLs in them."""
    redactor = Redactor()
    redactor.learn(
        each for word in command.words for url in _A_URL.findall(word) for each in secrets_in_url(url)
    )
    words = [_VALUE.sub(_masked, redactor.own(word)) for word in command.words]
    if command.shell:
        return words[0]
    for before, number in zip(command.words, range(1, len(words)), strict=False):
        if before.startswith("--") and names_a_secret(before) and not words[number].startswith("-"):
            words[number] = MASK
    return words


def _masked(named: re.Match[str]) -> str:
    """Return an option or a header without its value, where its name says that this is a secret."""
    return f"{named['name']}{named['is']}{MASK}" if names_a_secret(named["name"]) else named[0]


def _one_or_list(lines: tuple[str, ...]) -> str | tuple[str, ...]:
    return lines[0] if len(lines) == 1 else lines


def _dst(timetable: Timetable | None) -> dict[str, Any] | None:
    if timetable is None:
        return None
    return {"gap": timetable.gap or Gap.RUN_AFTER, "fold": timetable.fold or Fold.FIRST}


def _retry(retry: Retry | None) -> dict[str, Any] | None:
    if retry is None:
        return None
    return {"max": retry.max, "delays": retry.delays, "on": sorted(retry.on)}


def _parameters(parameters: Parameters) -> dict[str, Any]:
    return {key: getattr(parameters, key) for key in ParametersRow.model_fields}


def _leaf(value: Any, origin: str) -> dict[str, Any]:
    return {"value": _plain(value), "from": origin}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; a duration is seconds, a text loses what looks like a key or a login."""
    match value:
        case None | bool() | int() | float():
            return value
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case _:
            text = _LOGIN.sub(rf"\1{MASK}@", str(value.value if isinstance(value, Enum) else value))
            return Redactor().clean(text)


def _without_password(url: str) -> str:
    """Return a database URL fit to be shown."""
    parts = urlsplit(url)
    bare, _, options = url.partition("?")
    shown = f"{bare}?{MASK}" if options else bare
    return shown.replace(f":{parts.password}@", f":{MASK}@", 1) if parts.password is not None else shown
