"""The small written forms of configuration: targets, addresses, zones, names, templates; each checked once.

A check raises ValueError with `what is wrong; what would be right`, and never quotes what it was given.
"""

import ipaddress
import re
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from jobs.definition import ASK
from jobs.errors import TemplateError
from jobs.prompt import LONGEST_PROMPT, check_template
from jobs.providers.rows import Reference

JOB_NAME = r"^[a-z0-9-]+$"
LONGEST_NAME = 63
_HIGHEST_PORT = 65535
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
_TAG = re.compile(r"\{\{.{0,500}?\}\}|\{%.{0,500}?%\}|\{#.{0,500}?#\}", re.DOTALL)
_PAIRS = (("{{", "}}"), ("{%", "%}"), ("{#", "#}"))
_DELIMITER = re.compile(r"\{[{%#]|[}%#]\}")
_SIZE = re.compile(r"([0-9]{1,9}) ?(B|kB|KB|MB|KiB|MiB)?")
_UNITS = {None: 1, "B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "KiB": 1024, "MiB": 1024**2}
_VARIABLE = re.compile(r"\$\{?[A-Za-z_]")


def zone(name: str) -> ZoneInfo:
    """Return the zone of an IANA name; raises ValueError that names the nearest ones."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"is not a time zone; {_nearest_zones(name)}") from None


@lru_cache(maxsize=1024)
def _nearest_zones(name: str) -> str:
    by_folded, by_city = _known_zones()
    wanted = name.strip().casefold().replace(" ", "_")
    near = [by_folded[n] for n in get_close_matches(wanted, by_folded, n=2, cutoff=0.7)]
    near += [by_city[n] for n in get_close_matches(wanted, by_city, n=1, cutoff=0.8)]
    if not near:
        return "an IANA name such as Europe/Berlin"
    return f"did you mean {' or '.join(dict.fromkeys(near))}?"


@cache
def _known_zones() -> tuple[dict[str, str], dict[str, str]]:
    """Return all zones by name and by the city in it; read from disk, and only for a fault."""
    known = sorted(available_timezones())
    by_city = {name.rpartition("/")[2].casefold(): name for name in known}
    return {name.casefold(): name for name in known}, by_city


def _zone_name(name: str) -> str:
    return zone(name).key


def _job_name(name: str) -> str:
    if not re.fullmatch(JOB_NAME, name) or len(name) > LONGEST_NAME:
        raise ValueError(f"is not a job's name; use a-z, 0-9 and hyphens, at most {LONGEST_NAME}")
    if name == ASK:
        raise ValueError(f"is the reserved name of `promptd {ASK}`; choose another name")
    return name


def template_fault(text: str) -> str:
    """Return what is wrong with a template, or nothing.

    Whether it compiles is up to its tags alone, so many prompts around the same tags are compiled once.
    """
    if not _DELIMITER.search(text):
        return ""
    if any(text.count(opening) != text.count(closing) for opening, closing in _PAIRS):
        return _compile_fault(text)
    tags = _TAG.findall(text)
    untidy = _DELIMITER.search(_TAG.sub(" ", text)) is not None
    return _compile_fault(text) if untidy or _compile_fault("\n".join(tags)) else ""


@lru_cache(maxsize=4096)
def _compile_fault(text: str) -> str:
    try:
        check_template(text)
    except TemplateError as exc:
        wrong, _, mend = str(exc).partition("; ")
        return f"is not a template: {wrong}; {mend or 'correct it there'}"
    except (RecursionError, MemoryError, SyntaxError, ValueError, ArithmeticError):
        return "is not a template: an expression is too large or too deep; make it simpler"
    return ""


def _template(text: str) -> str:
    wrong = template_fault(text)
    if wrong:
        raise ValueError(wrong)
    return text


def _prompt(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank; write what the model is asked")
    return _template(text)


def short_target(value: Any) -> Any:
    """Read `provider/model` (the first slash splits) as the mapping it stands for."""
    if not isinstance(value, str):
        return value
    provider, slash, model = (part.strip() for part in value.partition("/"))
    if not (provider and slash and model):
        raise ValueError("is not a target; write provider/model, such as openai/gpt-5.5")
    return {"provider": provider, "model": model}


def one_or_more(value: Any) -> Any:
    """Read a text that stands alone as a list of one."""
    return [value] if isinstance(value, str) else value


def fallback_words(value: Any) -> Any:
    """Read `inherit` as None and `none` as no targets."""
    match value:
        case "inherit":
            return None
        case "none":
            return []
        case list():
            return value
        case _:
            raise ValueError("is not a fallback; write inherit, none, or a list of targets")


def _listen(value: Any) -> str:
    """Check `host:port` or `off`; an IPv6 address stands in brackets."""
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if isinstance(value, str) and value == "off":
        return value
    numbered = re.fullmatch(r"[0-9]{1,5}", port) is not None and int(port) <= _HIGHEST_PORT
    if not (colon and numbered and _is_host(host)):
        raise ValueError('is not an address; write host:port such as 127.0.0.1:9464 or "[::1]:9464", or off')
    return str(value)


def _is_host(host: str) -> bool:
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        if bracketed:
            ipaddress.IPv6Address(host[1:-1])
        elif re.fullmatch(r"[0-9.]+", host):
            ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return bracketed or _HOST_NAME.fullmatch(host) is not None


def _literal_key(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank; leave it out where the server wants no key")
    if _VARIABLE.match(text):
        raise ValueError("variables are not replaced in this file; write api_key_env: NAME")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank; write a value, or remove the key")
    return text.strip()


def command_words(value: Any, *, shell: bool) -> Any:
    """Read a command: a list of words, or with `shell` one text that a shell reads."""
    if isinstance(value, str) and not shell:
        raise ValueError(
            "is one text; write its words as a list, such as [journalctl, -p, err], or add `shell: true`"
        )
    if isinstance(value, list) and shell:
        raise ValueError("is a list of words; write one text for the shell, or remove `shell`")
    words = one_or_more(value)
    if isinstance(words, list) and not (words and isinstance(words[0], str) and words[0].strip()):
        raise ValueError("names no program; begin with one, such as [journalctl, -p, err]")
    return words


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character, which no program can be given; remove it")
    return text


def _size(value: Any) -> Any:
    """Read `200kB`, `1MB`, `64KiB` or a number of bytes."""
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    number = int(match[1]) * _UNITS[match[2]] if match else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number <= LONGEST_PROMPT:
        raise ValueError(
            f"is not a size; write bytes such as 200kB, 1MB or 65536, at most {LONGEST_PROMPT:,}"
        )
    return number


def _variable_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError(
            "is not the name of a variable; write the name alone, such as ZAI_API_KEY, never the key"
        )
    return text


JobName = Annotated[
    str,
    AfterValidator(_job_name),
    Field(json_schema_extra={"pattern": JOB_NAME, "maxLength": LONGEST_NAME}),
]
ZoneName = Annotated[str, AfterValidator(_zone_name)]
Template = Annotated[str, AfterValidator(_template)]
Prompt = Annotated[str, AfterValidator(_prompt)]
Word = Annotated[str, AfterValidator(_without_nul)]
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=int | str)]
Address = Annotated[str, BeforeValidator(_listen, json_schema_input_type=str)]
LiteralKey = Annotated[str, AfterValidator(_literal_key)]
VariableName = Annotated[str, AfterValidator(_variable_name)]
Text = Annotated[str, AfterValidator(_not_blank)]
References = Annotated[
    tuple[Reference, ...],
    BeforeValidator(one_or_more, json_schema_input_type=str | list[str]),
    Field(min_length=1),
]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
