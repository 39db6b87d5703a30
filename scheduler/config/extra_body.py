"""`parameters.extra_body`: what is added to the body of every request, beside what promptd writes there."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import AfterValidator, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

_INSTEAD: Final[Mapping[str, str]] = MappingProxyType(
    {
        "model": "write the job's `model`",
        "messages": "write the job's `prompt` and `system`",
        "input": "write the job's `prompt`",
        "instructions": "write the job's `system`",
        "stream": "write providers.NAME.stream",
        "stream_options": "write providers.NAME.stream",
        "store": "write providers.NAME.store",
        "response_format": "write parameters.response_format",
        "text": "write parameters.response_format",
        "max_completion_tokens": "write parameters.max_output_tokens",
        "max_output_tokens": "write parameters.max_output_tokens",
    }
)
"""What promptd writes into bodies itself, and how that is changed: it reads answers by what it has asked."""


def _checked(extra: dict[str, Any]) -> dict[str, Any]:
    told = [
        InitErrorDetails(
            type=PydanticCustomError(
                "value_error", "{error}", {"error": f"is written by promptd itself; {_INSTEAD[key]}"}
            ),
            loc=(key,),
            input=extra,
        )
        for key in extra
        if key in _INSTEAD
    ]
    if told:
        raise ValidationError.from_exception_data("extra_body", told)
    return extra


ExtraBody = Annotated[dict[str, Any], AfterValidator(_checked)]
