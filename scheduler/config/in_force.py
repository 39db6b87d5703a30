"""A configuration as it is in force, for another process: its files' texts, what waits for a restart."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.credential import SecretReference
from scheduler.config.settings import Settings
from scheduler.config.sources import Drafts

_FAST = 1


@dataclass(frozen=True, slots=True)
class InForce:
    """What a daemon has handed over. `texts` are all files of the configuration, by absolute path."""

    texts: Drafts
    state_dir: Path
    database: str
    secret_keys: tuple[SecretReference, ...]
    formerly: tuple[SecretReference, ...] = ()


def packed(texts: Mapping[Path, str]) -> bytes:
    """Return texts in little memory; those of 10,000 jobs take some hundred kilobytes."""
    written = json.dumps({str(path): text for path, text in texts.items()}, separators=(",", ":"))
    return zlib.compress(written.encode(), _FAST)


def handed_over(settings: Settings) -> bytes:
    """Return settings as another process can take them over: a line of values, then the packed texts."""
    head = {
        "state_dir": str(settings.state_dir),
        "database": settings.database,
        "secret_keys": [(key.scheme, key.name) for key in settings.secret_keys],
        "formerly": [(each.scheme, each.name) for each in settings.formerly],
    }
    return json.dumps(head).encode() + b"\n" + settings.files


def taken_over(handed: bytes) -> InForce:
    """Return what `handed_over` has written, here or in a daemon that is older than its files by now."""
    line, _, files = handed.partition(b"\n")
    head = json.loads(line)
    return InForce(
        {Path(path): text for path, text in json.loads(zlib.decompress(files)).items()},
        Path(head["state_dir"]),
        head["database"],
        tuple(SecretReference(scheme, name) for scheme, name in head["secret_keys"]),
        tuple(SecretReference(scheme, name) for scheme, name in head.get("formerly", ())),
    )
