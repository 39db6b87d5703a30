"""`parameters.response_format`: the JSON Schema of a job's answers, written as itself."""

from typing import Annotated, Any

from pydantic import AfterValidator, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from jobs.answer_schema import SchemaFault, check


def _checked(schema: dict[str, Any]) -> dict[str, Any]:
    """Check a schema; what is wrong inside of it is told at its own place."""
    try:
        check(schema)
    except SchemaFault as exc:
        told = PydanticCustomError("value_error", "{error}", {"error": str(exc)})
        at = InitErrorDetails(type=told, loc=exc.path, input=schema)
        raise ValidationError.from_exception_data("response_format", [at]) from None
    return schema


ResponseFormat = Annotated[dict[str, Any], AfterValidator(_checked)]
