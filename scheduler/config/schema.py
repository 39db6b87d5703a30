"""The shape of the configuration file: one model per mapping, nothing unknown let in."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from jobs.definition import OnCrash, OnOverflow, OnTruncated
from jobs.delivery_state import DeliverOn
from jobs.errors import ErrorClass
from jobs.providers.rows import BaseUrl, Duration, ProviderRow
from jobs.request import ApiMode
from jobs.run import Concurrency
from scheduler.config.delivery_forms import (
    AppriseAddress,
    FileName,
    HeaderName,
    HeaderValue,
    HttpAddress,
    ReminderPause,
    SecretPlace,
    SendingTime,
    TargetName,
    named_target,
    one_or_more_names,
)
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
from scheduler.config.job_forms import (
    Expression,
    Moment,
    Positive,
    PositiveOrOff,
    Schedules,
    bare_command,
)
from scheduler.config.response_format import ResponseFormat
from scheduler.config.settings import CatchUp, LogFormat
from scheduler.zone_pieces import Fold, Gap


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


class CommandRow(Section):
    """A command that a job runs: words, or with `shell` one text."""

    shell: bool = False
    command: tuple[Word, ...]
    timeout: Duration | None = None

    @field_validator("command", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _words(cls, value: Any, info: ValidationInfo) -> Any:
        return command_words(value, shell=bool(info.data.get("shell")))


class GatherRow(CommandRow):
    """A command whose standard output goes into the prompt."""

    max_bytes: Size | None = None


_Words = str | list[str]
Condition = Annotated[CommandRow, BeforeValidator(bare_command, json_schema_input_type=_Words | CommandRow)]
Gather = Annotated[GatherRow, BeforeValidator(bare_command, json_schema_input_type=_Words | GatherRow)]


class DstRow(Section):
    """What becomes of a fixed time that does not exist, or exists twice, when the clock is changed."""

    gap: Gap = Gap.RUN_AFTER
    fold: Fold = Fold.FIRST


_MINUTE = timedelta(minutes=1)
_OF_TIME = (ErrorClass.CONNECTION, ErrorClass.TIMEOUT, ErrorClass.SERVER_ERROR, ErrorClass.OVERLOADED)


class RetryRow(Section):
    """Further tries of a run whose whole chain has failed; `max: 0` makes none."""

    max: Annotated[Whole, Field(ge=0, le=100)] = 2
    delays: Annotated[tuple[Duration, ...], Field(min_length=1, max_length=100)] = (_MINUTE, 5 * _MINUTE)
    on: Annotated[frozenset[ErrorClass], Field(min_length=1)] = frozenset(_OF_TIME)


class DeliverRow(Section):
    """One place where a job's results go, by the name of its delivery target."""

    to: TargetName
    on: DeliverOn = DeliverOn.SUCCESS


_OneDeliver = Annotated[DeliverRow, BeforeValidator(named_target, json_schema_input_type=str | DeliverRow)]
Deliveries = Annotated[
    tuple[_OneDeliver, ...],
    BeforeValidator(one_or_more_names, json_schema_input_type=str | DeliverRow | list[str | DeliverRow]),
]


class JobKeys(Section):
    """The keys that a job shares with `defaults`."""

    description: str = ""
    tags: tuple[Text, ...] = ()
    enabled: bool = True
    timezone: ZoneName | None = None
    dst: DstRow = DstRow()
    jitter: Duration | None = None
    start: Moment | None = None
    end: Moment | None = None
    max_runs: Positive | None = None
    misfire_grace_time: Duration | None = None
    catch_up: CatchUp = CatchUp.LATEST
    concurrency: Concurrency = Concurrency.FORBID
    on_crash: OnCrash = OnCrash.ABANDON
    prompt_file: Text | None = None
    system: Template | None = None
    system_file: Text | None = None
    vars: dict[str, Any] | None = None
    model: OneTarget | None = None
    fallback: Fallback = None
    fallback_on: frozenset[ErrorClass] = frozenset()
    parameters: ParametersRow | None = None
    timeout: Duration | None = None
    retry: RetryRow | None = None
    condition: Condition | None = None
    gather: Gather | None = None
    context_from: tuple[JobName, ...] = ()
    after: tuple[JobName, ...] = ()
    max_tokens_per_day: Positive | None = None
    repeat_safe: bool = False
    on_truncated: OnTruncated = OnTruncated.KEEP
    on_overflow: OnOverflow | None = None
    store_prompt: bool = True
    silent_when: Expression | None = None
    pause_after_failures: PositiveOrOff = None
    deliver: Deliveries = ()
    heartbeat: HttpAddress | None = None


class PartialJob(JobKeys):
    """What could be read of a job that has faults: enough to look for more of them."""

    name: JobName | None = None
    schedule: Schedules | None = None
    prompt: Prompt | None = None


class JobRow(PartialJob):
    """One job; its prompt may stand in a file."""

    name: JobName
    schedule: Schedules | None


class PromptedJob(JobRow):
    """One job whose prompt stands in no file."""

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
    """What bounds the daemon, and how much of its past is kept."""

    max_concurrent_runs: Annotated[Whole, Field(ge=1, le=10_000)] | None = None
    keep_runs: Positive | None = None
    keep_days: Annotated[Whole, Field(ge=1, le=36_600)] | None = None
    drain_timeout: Duration | None = None


class ServerSection(Section):
    """Where /metrics, /healthz and /readyz are served."""

    listen: Address | None = None


class DeliveryRow(Section):
    """A delivery target: exactly one of four kinds, and what belongs to that kind."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": [kind]} for kind in ("apprise", "webhook", "file", "command")]
        }
    )

    apprise: AppriseAddress | None = None
    webhook: HttpAddress | None = None
    headers: dict[HeaderName, HeaderValue] = {}
    secret: SecretPlace | None = None
    allow_link_local: bool = False
    file: FileName | None = None
    shell: bool = False
    command: tuple[Word, ...] | None = None
    timeout: SendingTime | None = None

    @field_validator("command", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _words(cls, value: Any, info: ValidationInfo) -> Any:
        return command_words(value, shell=bool(info.data.get("shell")))


TargetNames = Annotated[
    tuple[TargetName, ...], BeforeValidator(one_or_more_names, json_schema_input_type=str | list[str])
]


class AlertsSection(Section):
    """Who is told of what is wrong with jobs and credentials, and how often."""

    to: TargetNames = ()
    after_failures: Positive | None = None
    remind_every: ReminderPause | None = None


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
    delivery: dict[TargetName, DeliveryRow] = {}
    alerts: AlertsSection = AlertsSection()
    jobs: tuple[JobRow, ...] = ()


FREE: frozenset[str] = frozenset({"vars", "extra_body", "response_format"})
"""Keys under which anything may stand, null included."""

BROKEN = TargetRow.model_construct(provider="", model="")
"""Stands for a target that has faults of its own, so that those after it keep their place."""
