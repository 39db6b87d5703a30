"""Wheels without a network: ours is built, the others are packed again from what is installed here."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from email.parser import Parser
from importlib.metadata import Distribution, distribution
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement

CHECKOUT = Path(__file__).parents[3]
_OF_THE_INSTALLER = frozenset({"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"})


def build(directory: Path) -> Path:
    """Build the wheel of this checkout and return it."""
    words = ("-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory))
    built = subprocess.run(
        (sys.executable, *words), cwd=CHECKOUT, capture_output=True, text=True, timeout=600, check=False
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = directory.glob("promptd-*.whl")
    return wheel


def stock(wheel: Path, *extras: str) -> None:
    """Pack what a wheel needs, with these extras, as it is installed here, into wheels beside it."""
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (each for each in packed.namelist() if each.endswith(".dist-info/METADATA"))
        about = Parser().parsestr(packed.read(name).decode())
    for each in _needed(about.get_all("Requires-Dist") or [], extras):
        _pack(each, wheel.parent)


def _needed(required: Iterable[str], extras: Iterable[str]) -> Iterator[Distribution]:
    """Yield what is needed, and what that needs, and so on; each once."""
    left = _wanted(required, extras)
    done: set[str] = set()
    while left:
        wanted = left.pop()
        found = distribution(wanted.name)
        if found.name not in done:
            yield found
        if str(wanted) not in done:
            left += _wanted(found.requires or (), wanted.extras)
        done |= {found.name, str(wanted)}


def _wanted(required: Iterable[str], extras: Iterable[str]) -> list[Requirement]:
    """Return those of the requirements that hold here, for a package of which these extras are wanted."""
    every = [Requirement(each) for each in required]
    return [
        each
        for each in every
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def _pack(installed: Distribution, directory: Path) -> None:
    """Write an installed distribution as a wheel: its scripts and its byte code are made anew by pip."""
    tags = Parser().parsestr(installed.read_text("WHEEL") or "").get_all("Tag") or []
    fits = "-".join(
        ".".join(dict.fromkeys(each)) for each in zip(*(tag.split("-") for tag in tags), strict=True)
    )
    name = f"{installed.name.replace('-', '_').replace('.', '_')}-{installed.version}-{fits}"
    files = [each for each in installed.files or () if _belongs(each)]
    record = next(each.parent / "RECORD" for each in files if each.name == "METADATA")
    with zipfile.ZipFile(directory / f"{name}.whl", "w") as wheel:
        for each in files:
            with Path(str(each.locate())).open("rb") as source, wheel.open(str(each), "w") as target:
                shutil.copyfileobj(source, target)
        wheel.writestr(str(record), "".join(f"{each},,\n" for each in (*files, record)))


def _belongs(file: PurePosixPath) -> bool:
    of_the_installer = file.parent.suffix == ".dist-info" and file.name in _OF_THE_INSTALLER
    return not (file.parts[0] == ".." or file.suffix == ".pyc" or of_the_installer)
