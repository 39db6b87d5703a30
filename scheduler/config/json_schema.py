"""The JSON Schema of the configuration file, for `promptd config schema`, editors and `explain KEY`."""

from typing import Any

from scheduler.config.meanings import MEANINGS, SECTIONS
from scheduler.config.schema import ConfigFile

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
DURATION_PATTERN = r"^(\d+d)?(\d+h)?(\d+m)?(\d+s)?$"
_DURATION = {"type": "string", "pattern": DURATION_PATTERN, "minLength": 2}
_NULL = {"type": "null"}
_ONE_OR_MORE = ("status", "code", "type")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the file; a key is left out rather than null."""
    schema = ConfigFile.model_json_schema(mode="validation")
    written: dict[str, Any] = {"$schema": _DIALECT, **_as_written(schema), "title": "promptd.yaml"}
    schedule = written["$defs"]["JobRow"]["properties"]["schedule"]
    written["$defs"]["JobRow"]["properties"]["schedule"] = {"anyOf": [schedule, _NULL]}
    _describe(written)
    retry = written["$defs"]["RetryRow"]["properties"]
    retry["delays"]["default"] = ["1m", "5m"]
    retry["on"]["default"] = sorted(retry["on"]["default"])
    rule = written["$defs"]["Rule"]["properties"]
    rule.update({key: _one_or_more(rule[key]) for key in _ONE_OR_MORE})
    return written


def _describe(written: dict[str, Any]) -> None:
    """Add what keys mean, which editors show."""
    for key, meaning in MEANINGS.items():
        section, _, name = key.rpartition(".")
        holders = ["JobRow", "JobKeys"] if section == "jobs" else [SECTIONS[section].__name__]
        for holder in holders:
            properties = written["$defs"][holder]["properties"] if section else written["properties"]
            if name in properties:
                properties[name]["description"] = meaning.text


def _one_or_more(listed: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a rule's key, which may stand alone, and as a number where it is a text."""
    one: dict[str, Any] = {"type": ["string", "integer"]}
    return {"anyOf": [one, {"type": "array", "items": one}], "title": listed.get("title", "")}


def _as_written(schema: Any) -> Any:
    """Return the schema of what people write: durations as text, and null nowhere."""
    match schema:
        case {"type": "string", "format": "duration", **rest}:
            return {**{key: value for key, value in rest.items() if value is not None}, **_DURATION}
        case {"anyOf": [only, {"type": "null"}], **rest}:
            return _as_written({**only, **{k: v for k, v in rest.items() if v is not None}})
        case {"anyOf": [*others, {"type": "null"}], **rest}:
            return {"anyOf": _as_written(others), **{k: v for k, v in rest.items() if v is not None}}
        case dict():
            return {key: _as_written(value) for key, value in schema.items()}
        case list():
            return [_as_written(value) for value in schema]
        case _:
            return schema
