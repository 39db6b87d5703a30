"""Untrusted data against a model: the model's value, with faults noted and the sound remainder kept."""

from copy import deepcopy
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from scheduler.config.faults import report
from scheduler.config.gather import Faults
from scheduler.config.schema import BROKEN, ConfigFile, JobRow, PartialJob, PromptedJob
from scheduler.config.sources import Document
from scheduler.config.yaml_tree import KeyPath

Model = TypeVar("Model", bound=BaseModel)


def checked_file(document: Document, faults: Faults) -> ConfigFile:
    """Return what is sound of the file, without its jobs."""
    data = {key: value for key, value in document.data.items() if key != "jobs"}
    try:
        return ConfigFile.model_validate(data)
    except ValidationError as exc:
        report(faults, document, (), ConfigFile, exc)
        return _salvaged(ConfigFile, data, exc) or ConfigFile()
    except (OverflowError, RecursionError):
        wrong = "hold a regular expression that is too large"
        faults.add(document, ("providers",), wrong, "make the rules under errors simpler")
        return ConfigFile()


def checked_job(
    document: Document, path: KeyPath, data: Any, faults: Faults, *, has_prompt: bool
) -> PartialJob | None:
    """Return one job, or what is sound of it; None when nothing is.

    With `has_prompt` a prompt is there for every job that has none of its own.
    """
    filed = has_prompt or (isinstance(data, dict) and "prompt_file" in data)
    model = JobRow if filed else PromptedJob
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        report(faults, document, path, model, exc)
        return _salvaged(PartialJob, data, exc) if isinstance(data, dict) else None


def _salvaged(model: type[Model], data: dict[str, Any], exc: ValidationError) -> Model | None:
    """Take out what has faults until the remainder is valid, so that it can be looked at further."""
    sound = deepcopy(data)
    while True:
        if not [loc for loc in {error["loc"] for error in exc.errors()} if _taken_out(sound, loc)]:
            break
        try:
            return model.model_validate(sound)
        except ValidationError as again:
            exc = again
    try:
        return model.model_validate(sound)
    except ValidationError:
        return None


def _taken_out(data: Any, path: KeyPath) -> bool:
    """Take out the smallest thing that holds the path; say whether something was there to take.

    An item of a list leaves `BROKEN` in its place, so that the items after it keep their numbers.
    """
    trail = [data]
    for part in path:
        inside = trail[-1]
        is_item = isinstance(inside, list) and isinstance(part, int) and part < len(inside)
        if is_item or (isinstance(inside, dict) and part in inside):
            trail.append(inside[part])
        else:
            break
    for holder, part in zip(reversed(trail[:-1]), reversed(path[: len(trail) - 1]), strict=True):
        if isinstance(holder, dict):
            del holder[part]
            return True
        if holder[part] is not BROKEN:
            holder[part] = BROKEN
            return True
    return False
