"""What every key means, in a sentence, and its default where the schema cannot tell: for `config explain`."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import BaseModel

from jobs.providers.rows import CredentialRow, OAuthRow, ProviderRow
from scheduler.config.schema import (
    AlertsSection,
    AuxiliaryRow,
    ConfigFile,
    DeliverRow,
    DeliveryRow,
    DstRow,
    GatherRow,
    JobRow,
    LimitsSection,
    LoggingSection,
    ParametersRow,
    RetryRow,
    ServerSection,
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a key says. `default` is what holds without it, where that is no value of the schema."""

    text: str
    default: str | None = None


def _m(text: str, default: str | None = None) -> Meaning:
    return Meaning(text, default)


SECTIONS: Mapping[str, type[BaseModel]] = MappingProxyType(
    {
        "": ConfigFile,
        "jobs": JobRow,
        "jobs.dst": DstRow,
        "jobs.retry": RetryRow,
        "jobs.gather": GatherRow,
        "jobs.parameters": ParametersRow,
        "jobs.deliver": DeliverRow,
        "auxiliary": AuxiliaryRow,
        "providers": ProviderRow,
        "providers.credentials": CredentialRow,
        "providers.oauth": OAuthRow,
        "delivery": DeliveryRow,
        "alerts": AlertsSection,
        "limits": LimitsSection,
        "server": ServerSection,
        "logging": LoggingSection,
    }
)
"""The mappings of the file whose keys are explained, by where they stand."""

_BUILT_IN = "the built-in one"
_LOGIN = {
    "token_url": _m("where a login is refreshed (RFC 6749 section 6)", _BUILT_IN),
    "client_id": _m("what the provider knows this program by", _BUILT_IN),
    "scopes": _m("what a login may be used for"),
    "device_authorization_url": _m("where a login with a code begins (RFC 8628)", _BUILT_IN),
    "authorization_url": _m("where a login in a browser begins", _BUILT_IN),
}
_PROVIDERS: Mapping[str, Meaning] = MappingProxyType(
    {
        "base_url": _m("what the paths of its API are appended to", "the built-in one, else required"),
        "api_mode": _m("which API it speaks", "the built-in one, else chat_completions"),
        "auth": _m("none: it wants neither key nor login", "as its credentials say"),
        "key_env": _m("variables that hold keys: each that is set is a credential, without `credentials`"),
        "oauth": _m("how its logins are made and refreshed", _BUILT_IN),
        **{f"oauth.{key}": meaning for key, meaning in _LOGIN.items()},
        "aliases": _m("other names for it in targets"),
        "aggregator": _m("true: it passes requests on to other vendors", "the built-in one, else false"),
        "headers": _m("request headers for it; never a key"),
        "account_header": _m("the header that names the account of a login", "none"),
        "stream": _m("true: answers are read as they are written", "the built-in one, else false"),
        "store": _m("whether it is told to keep what is asked", "it is not told"),
        "output_limit": _m("false: it takes no limit of output tokens", "the built-in one, else true"),
        "strategy": _m("in which order its credentials are taken", "fill_first"),
        "max_concurrency": _m("requests in flight to it from one process", "no bound"),
        "timeout": _m("of one request", "300s"),
        "credentials": _m("its keys and logins, in order", "its key variables and its login"),
        "credentials.label": _m("the name of a credential; its marks and counts stay with it", "required"),
        "credentials.key": _m("where the key is kept: env:NAME, file:PATH or systemd:NAME", "none"),
        "credentials.oauth": _m("a login instead of a key; `promptd auth login` makes it", "none"),
        "credentials.quota_group": _m("credentials of one name share a quota", "each has its own"),
        "errors": _m("rules for its answers, before the built-in ones"),
        "new": _m("true: it is no override of a built-in provider of that name"),
    }
)
_ELSEWHERE = "or env:NAME, file:PATH or systemd:NAME"
_DELIVERY: Mapping[str, Meaning] = MappingProxyType(
    {
        "apprise": _m(f"an Apprise URL (chats, e-mail and many more), {_ELSEWHERE}", "none"),
        "webhook": _m(f"an http(s) URL that takes results by POST, {_ELSEWHERE}", "none"),
        "headers": _m(f"request headers of the webhook; each value as it is, {_ELSEWHERE}"),
        "secret": _m("where the key is kept that signs what the webhook is sent (HMAC-SHA256)", "none"),
        "allow_link_local": _m("true: the webhook may lead to link-local and metadata addresses"),
        "file": _m(
            "path of a file that a result replaces, unless a newer one is there; it may name {job}, "
            "{run_id}, {state} and {scheduled_for:%Y-%m-%d}; a relative one stays in state_dir",
            "none",
        ),
        "shell": _m("true: the command is one text that a shell reads"),
        "command": _m("a program that reads results from its standard input: its words", "none"),
        "timeout": _m("after which sending one message has failed; at most 1h", "30s"),
    }
)

MEANINGS: Mapping[str, Meaning] = MappingProxyType(
    {
        "timezone": _m("IANA zone of every schedule that names no other", "the machine's zone"),
        "database": _m("SQLAlchemy URL; a relative SQLite path lies in state_dir", "sqlite:///promptd.db"),
        "state_dir": _m(
            "where the database, the secret key and the control socket lie",
            "$STATE_DIRECTORY, else $XDG_STATE_HOME/promptd, else ~/.local/state/promptd",
        ),
        "jobs_dir": _m("directory of *.yaml files, each one job or a list of jobs", "jobs.d, if it is there"),
        "secret_key": _m(
            "keys fingerprints and tokens at rest; the first of a list seals, all of them open",
            "state_dir/secret.key, made once",
        ),
        "model": _m("the primary target of every job that names no other", "none"),
        "fallback_providers": _m("targets that are asked in order when the primary fails"),
        "fallback_model": _m("one fallback target: fallback_providers with one item", "none"),
        "auxiliary": _m("helper tasks, compression and title; one happens only when its key is here"),
        "providers": _m("overrides of built-in providers, and providers of your own"),
        "defaults": _m("any job key but name, schedule and prompt, for the jobs that do not say it"),
        "limits": _m("what bounds the daemon, and how much of its past is kept"),
        "server": _m("where figures and health are served"),
        "logging": _m("how much is logged, and in what form"),
        "delivery": _m("named places where results and alerts can go; jobs refer to them by name"),
        "alerts": _m("who is told of what is wrong with jobs and credentials"),
        "jobs": _m("the jobs of this file"),
        "jobs.name": _m("the job's identity: its history and state stay with it", "required"),
        "jobs.description": _m("for people", "empty"),
        "jobs.tags": _m("for filters"),
        "jobs.enabled": _m("false: the job is known and never due"),
        "jobs.schedule": _m(
            "when it is due: a cron line, @daily and kin, `every 90s`, `at 2026-12-01T09:00`, or a list of "
            "these; null for a job run by hand or by `after`",
            "required",
        ),
        "jobs.timezone": _m("IANA zone of the schedule, and of times in the prompt", "timezone at the top"),
        "jobs.dst": _m("what becomes of fixed times that a change of the clock skips or repeats"),
        "jobs.dst.gap": _m("a fixed time that does not exist runs right after the jump, or is skipped"),
        "jobs.dst.fold": _m("a fixed time that exists twice runs the first time, the last, or both"),
        "jobs.jitter": _m(
            "delays each run by up to so much, always the same for one job and instant; the ledger keeps the "
            "nominal instant",
            "none",
        ),
        "jobs.start": _m("nothing falls due before; `every` counts from it", "none"),
        "jobs.end": _m("nothing falls due after", "none"),
        "jobs.max_runs": _m("so many started runs end the schedule", "none"),
        "jobs.misfire_grace_time": _m(
            "an instant that a running daemon comes to later than this is missed",
            "half the period, within 2 minutes and 2 hours",
        ),
        "jobs.catch_up": _m("which instants that fell due while no daemon was up are made up for"),
        "jobs.concurrency": _m("what becomes of a run that falls due while another one has not ended"),
        "jobs.on_crash": _m("what becomes of a run whose process has gone: its call may have been paid"),
        "jobs.prompt": _m(
            "Jinja2 template of what the model is asked; names: job, scheduled_for, now, gathered, context, "
            "last_output, vars",
            "required, unless prompt_file is given",
        ),
        "jobs.prompt_file": _m(
            "file of the prompt, relative to the file that names it, read by each run", "none"
        ),
        "jobs.system": _m("Jinja2 template of the instructions message", "none"),
        "jobs.system_file": _m(
            "file of the instructions, relative to the file that names it, read by each run", "none"
        ),
        "jobs.vars": _m("the job's own values for its templates", "none"),
        "jobs.model": _m("the job's own primary target", "model at the top"),
        "jobs.fallback": _m("inherit, none, or a list of targets", "inherit"),
        "jobs.fallback_on": _m("error classes for which the chain goes on although it would stop"),
        "jobs.parameters": _m("what is asked of the model besides the prompt", "the provider's"),
        "jobs.parameters.temperature": _m("how freely the model chooses its words", "the provider's"),
        "jobs.parameters.max_output_tokens": _m("the most tokens of an answer", "the provider's"),
        "jobs.parameters.reasoning_effort": _m("how long a reasoning model thinks", "the provider's"),
        "jobs.parameters.seed": _m("for answers that can be repeated, where the model can", "none"),
        "jobs.parameters.response_format": _m("JSON Schema that every answer must fit", "none"),
        "jobs.parameters.extra_body": _m("keys that are added to the request as they are"),
        "jobs.timeout": _m("the whole run: all its tries and waits", "10m"),
        "jobs.retry": _m("another try of the same run when its whole chain has failed", "none"),
        "jobs.retry.max": _m("how many further tries; 0 for none"),
        "jobs.retry.delays": _m("how long each waits; the last one for all after it"),
        "jobs.retry.on": _m("the error classes for which it is tried again"),
        "jobs.condition": _m(
            "command that decides whether to run at all: 0 runs, 1-254 skips, 255 or a signal fails", "none"
        ),
        "jobs.gather": _m(
            "command whose output becomes `gathered`; it fails the run unless it ends with 0", "none"
        ),
        "jobs.gather.shell": _m("true: the command is one text that a shell reads"),
        "jobs.gather.command": _m("a list of words, or with `shell: true` one text", "required"),
        "jobs.gather.timeout": _m("after which the command is ended, with all that it has started", "60s"),
        "jobs.gather.max_bytes": _m("how much of its output is kept", "200kB"),
        "jobs.context_from": _m("jobs whose last succeeded output becomes `context[name]`"),
        "jobs.after": _m("jobs after whose success this one is due"),
        "jobs.max_tokens_per_day": _m(
            "no run is started past it; what a run may still use bounds its answer", "none"
        ),
        "jobs.repeat_safe": _m("a request that timed out may be sent again although it may have been paid"),
        "jobs.on_truncated": _m("what becomes of an answer that was cut at the output limit"),
        "jobs.on_overflow": _m(
            "what is done about a prompt that is too long: compress, truncate, or fail",
            "compress where auxiliary.compression is configured, else fail",
        ),
        "jobs.store_prompt": _m("keep the rendered prompt with the run"),
        "jobs.silent_when": _m(
            "Jinja2 expression over output and last_output: true keeps the answer quiet; it is recorded",
            "none",
        ),
        "jobs.pause_after_failures": _m("pause the job after so many failed runs in a row", "off"),
        "jobs.deliver": _m(
            "delivery targets of the results: names, or mappings such as {to: ops, on: failure}",
            "none: results are recorded only",
        ),
        "jobs.deliver.to": _m("the name of a delivery target", "required"),
        "jobs.deliver.on": _m(
            "which ends are delivered; changed: a success whose answer is another than the last one's"
        ),
        "jobs.heartbeat": _m(
            "URL, or a reference to one, that is asked as a run begins (/start), succeeds, or fails (/fail): "
            "in the manner of Healthchecks",
            "none",
        ),
        "auxiliary.provider": _m("the helper's own provider", "none: the main chain helps"),
        "auxiliary.model": _m("the helper's own model", "none: the main chain helps"),
        "auxiliary.fallback_chain": _m("targets that help when the first one cannot"),
        "auxiliary.fallback_to_main": _m("the job's own chain helps last"),
        "auxiliary.timeout": _m("of each request to a helper", "the provider's"),
        "limits.max_concurrent_runs": _m("how many runs are at work at once", "32"),
        "limits.keep_runs": _m("how many ended runs of each job are kept, with their outputs", "1000"),
        "limits.keep_days": _m("for how many days ended runs are kept", "for ever"),
        "limits.drain_timeout": _m("how long running work may go on when the daemon stops", "30s"),
        "server.listen": _m("host:port of /metrics, /healthz and /readyz, or off", "127.0.0.1:9464"),
        "logging.level": _m("how much is logged", "info"),
        "logging.format": _m("how log lines are written; auto chooses by where they go", "auto"),
        **{f"providers.{key}": meaning for key, meaning in _PROVIDERS.items()},
        **{f"delivery.{key}": meaning for key, meaning in _DELIVERY.items()},
        "alerts.to": _m("names of delivery targets; without one nobody is told", "none: there are no alerts"),
        "alerts.after_failures": _m("so many failed runs in a row are an alert", "3"),
        "alerts.remind_every": _m("what lasts is told again after so long; at least 1m", "24h"),
    }
)
"""Every key of `SECTIONS` that can be written, by its dotted path; `jobs` stands for any job."""
