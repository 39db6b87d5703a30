"""Where a configuration lies, and what relative paths in it mean: rules that load nothing, for both ends."""

import os
from collections.abc import Mapping
from pathlib import Path

from jobs.errors import ConfigError, Fault

FILE_NAME = "promptd.yaml"


def find(explicit: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the configuration file that is meant; raises ConfigError that lists where none was found.

    A file that was named (`--config`, `$PROMPTD_CONFIG`) is returned whether or not it exists.
    """
    named = explicit or (Path(environ["PROMPTD_CONFIG"]) if environ.get("PROMPTD_CONFIG") else None)
    if named:
        return named
    home = environ.get("HOME") or os.path.expanduser("~")
    config_home = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    places = (
        Path(FILE_NAME),
        Path(config_home) / "promptd" / FILE_NAME,
        Path("/etc/promptd") / FILE_NAME,
    )
    found = next((place for place in places if os.path.exists(place)), None)
    if found:
        return found
    looked = ", ".join(["--config", "$PROMPTD_CONFIG", *map(str, places)])
    mend = "write one with `promptd init`, or name one with --config FILE"
    raise ConfigError([Fault(Path(FILE_NAME), 0, 0, "", f"was not found; looked at {looked}", mend)])


def absolute(text: str, base: Path, environ: Mapping[str, str]) -> Path:
    """Return a path of a configuration in the directory `base` as an absolute one; `~` is the user's home."""
    head, slash, tail = text.partition("/")
    home = environ.get("HOME") or os.path.expanduser("~")
    own = f"{home}{slash}{tail}" if head == "~" else text
    return Path(os.path.normpath(base / own))


def default_state_dir(base: Path, environ: Mapping[str, str]) -> Path:
    """Return systemd's directory, else the one of the XDG base directory specification."""
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    state_home = environ.get("XDG_STATE_HOME") or "~/.local/state"
    return absolute(state_home, base, environ) / "promptd"
