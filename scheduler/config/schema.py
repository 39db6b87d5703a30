"""The shape of the configuration file: one model per mapping, nothing unknown let in."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from jobs.definition import OnOverflow, OnTruncated
from jobs.errors import ErrorClass
from jobs.providers.rows import BaseUrl, Duration, ProviderRow
from jobs.request import ApiMode
from scheduler.config.extra_body import ExtraBody
from scheduler.config.forms import (
    Address,
    JobName,
    LiteralKey,
    Number,
    Prompt,
    References,
    Size,
    Template,
    Text,
    VariableName,
    Whole,
    Word,
    ZoneName,
    command_words,
    fallback_words,
    short_target,
)
from scheduler.config.response_format import ResponseFormat
from scheduler.config.settings import CatchUp, LogFormat


class Section(BaseModel):
    """A mapping of the file; a key that it does not know is a fault."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CustomKeys(Section):
    """What only a `provider: custom` target says about its server."""

    name: Text | None = None
    base_url: BaseUrl | None = None
    api_mode: ApiMode | None = None
    api_key: LiteralKey | None = None
    api_key_env: VariableName | None = None
    key_env: VariableName | None = None


class TargetRow(CustomKeys):
    """A provider and a model of it."""

    provider: Text
    model: Text
    larger_context: bool = False


OneTarget = Annotated[TargetRow, BeforeValidator(short_target, json_schema_input_type=str | TargetRow)]
Fallback = Annotated[
    tuple[OneTarget, ...] | None,
    BeforeValidator(
        fallback_words, json_schema_input_type=Literal["inherit", "none"] | list[str | TargetRow]
    ),
]


class ParametersRow(Section):
    """What a job may tune; what is left out is the provider's default."""

    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    max_output_tokens: Annotated[Whole, Field(ge=1, le=10_000_000)] | None = None
    reasoning_effort: Text | None = None
    seed: Whole | None = None
    response_format: ResponseFormat | None = None
    extra_body: ExtraBody = {}


class GatherRow(Section):
    """A command whose standard output goes into the prompt: words, or with `shell` one text."""

    shell: bool = False
    command: tuple[Word, ...]
    timeout: Duration | None = None
    max_bytes: Size | None = None

    @field_validator("command", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _words(cls, value: Any, info: ValidationInfo) -> Any:
        return command_words(value, shell=bool(info.data.get("shell")))


class JobKeys(Section):
    """The keys that a job shares with `defaults`."""

    description: str = ""
    tags: tuple[Text, ...] = ()
    enabled: bool = True
    timezone: ZoneName | None = None
    misfire_grace_time: Duration | None = None
    catch_up: CatchUp = CatchUp.LATEST
    system: Template | None = None
    vars: dict[str, Any] = {}
    model: OneTarget | None = None
    fallback: Fallback = None
    fallback_on: frozenset[ErrorClass] = frozenset()
    parameters: ParametersRow = Field(default_factory=ParametersRow)
    timeout: Duration | None = None
    gather: GatherRow | None = None
    context_from: tuple[JobName, ...] = ()
    repeat_safe: bool = False
    on_truncated: OnTruncated = OnTruncated.KEEP
    on_overflow: OnOverflow | None = None
    store_prompt: bool = True


class PartialJob(JobKeys):
    """What could be read of a job that has faults: enough to look for more of them."""

    name: JobName | None = None
    schedule: Text | None = None
    prompt: Prompt | None = None


class JobRow(PartialJob):
    """One job."""

    name: JobName
    schedule: Text | None
    prompt: Prompt


class AuxiliaryRow(CustomKeys):
    """A helper task: a target of its own, those after it, and whether the main chain comes last."""

    provider: Text | None = None
    model: Text | None = None
    fallback_chain: tuple[OneTarget, ...] = ()
    fallback_to_main: bool = True
    timeout: Duration | None = None


class AuxiliarySection(Section):
    """Helper tasks; a task happens only when its key is here."""

    compression: AuxiliaryRow | None = None
    title: AuxiliaryRow | None = None


class LimitsSection(Section):
    """What bounds the daemon."""

    max_concurrent_runs: Annotated[Whole, Field(ge=1, le=10_000)] | None = None
    drain_timeout: Duration | None = None


class ServerSection(Section):
    """Where /metrics, /healthz and /readyz are served."""

    listen: Address | None = None


class LoggingSection(Section):
    """How much is logged, and in what form."""

    level: Literal["debug", "info", "warning", "error"] | None = None
    format: LogFormat | None = None


class ConfigFile(Section):
    """promptd.yaml"""

    timezone: ZoneName | None = None
    database: Text | None = None
    state_dir: Text | None = None
    jobs_dir: Text | None = None
    secret_key: References | None = None
    model: OneTarget | None = None
    fallback_providers: tuple[OneTarget, ...] = ()
    fallback_model: OneTarget | None = None
    auxiliary: AuxiliarySection = AuxiliarySection()
    providers: dict[str, ProviderRow] = {}
    defaults: JobKeys = JobKeys()
    limits: LimitsSection = LimitsSection()
    server: ServerSection = ServerSection()
    logging: LoggingSection = LoggingSection()
    jobs: tuple[JobRow, ...] = ()


FREE: frozenset[str] = frozenset({"vars", "extra_body", "response_format"})
"""Keys under which anything may stand, null included."""

NOT_YET: Mapping[type[BaseModel], frozenset[str]] = MappingProxyType(
    {
        ConfigFile: frozenset({"delivery", "alerts"}),
        LimitsSection: frozenset({"keep_runs", "keep_days"}),
        JobKeys: frozenset(
            {
                *("dst", "jitter", "start", "end", "max_runs", "concurrency", "on_crash"),
                *("prompt_file", "system_file", "condition", "after"),
                *("retry", "max_tokens_per_day", "silent_when"),
                *("deliver", "heartbeat", "pause_after_failures"),
            }
        ),
    }
)
"""Keys that the specification knows and this version refuses: it would not do what they say."""

NOT_YET_VALUES: Mapping[tuple[type[BaseModel], str], frozenset[str]] = MappingProxyType(
    {
        (JobKeys, "catch_up"): frozenset({"all"}),
    }
)
"""The same for values of keys that are carried out otherwise."""

NOT_YET_LISTS: frozenset[tuple[type[BaseModel], str]] = frozenset({(PartialJob, "schedule")})
"""The same for keys that the specification also takes as a list."""


BROKEN = TargetRow.model_construct(provider="", model="")
"""Stands for a target that has faults of its own, so that those after it keep their place."""
