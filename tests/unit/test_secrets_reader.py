"""Secrets by reference, and the keyring that fingerprints and encrypts."""

import os
import stat
from pathlib import Path

import pytest

from jobs.credential import SecretReference
from jobs.errors import SecretUnreadable
from jobs.providers.secrets import Keyring, SecretReader, make_secret_key
from jobs.secret import MOST_FORMER, Redactor, Secret

OLD, NEW = Secret("o" * 40), Secret("n" * 40)


def reader(**environ: str) -> SecretReader:
    return SecretReader(environ, Redactor())


def test_a_variable_is_read_and_trimmed() -> None:
    assert reader(KEY=" value \n").read(SecretReference("env", "KEY")) == Secret("value")


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(SecretUnreadable, match="the variable KEY is not set"):
        reader().read(SecretReference("env", "KEY"))


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path, secrets = tmp_path / "key", reader()
    path.write_text("first\n")
    assert secrets.read(SecretReference("file", str(path))) == Secret("first")

    path.write_text("second, and longer\n")

    assert secrets.read(SecretReference("file", str(path))) == Secret("second, and longer")


def test_a_systemd_credential_is_a_file_in_its_directory(tmp_path: Path) -> None:
    (tmp_path / "openai").write_text("from systemd")

    found = reader(CREDENTIALS_DIRECTORY=str(tmp_path)).read(SecretReference("systemd", "openai"))

    assert found == Secret("from systemd")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"two\nlines", b"x" * 100_000])
def test_a_file_that_no_header_could_carry_is_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)

    with pytest.raises(SecretUnreadable, match=str(path)):
        reader().read(SecretReference("file", str(path)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretUnreadable, match=r"cannot read .*/gone: No such file"):
        reader().read(SecretReference("file", str(tmp_path / "gone")))


def test_everything_read_is_known_to_the_redactor() -> None:
    redactor = Redactor()
    SecretReader({"KEY": "planted-value"}, redactor).read(SecretReference("env", "KEY"))

    assert redactor.clean("said planted-value") == "said [secret]"


def test_of_a_secret_that_is_rotated_again_and_again_the_latest_are_known() -> None:
    """What the redactor keeps does not grow with each; that of others is known all the time."""
    environ, redactor = {"OTHER": "of-another-place"}, Redactor()
    secrets = SecretReader(environ, redactor)
    secrets.read(SecretReference("env", "OTHER"))
    for number in range(5 * MOST_FORMER):
        environ["KEY"] = f"value-{number:02}"
        secrets.read(SecretReference("env", "KEY"))
        redactor.own("")

    assert redactor.own("value-99 value-79 of-another-place") == "[secret] [secret] [secret]"
    assert redactor.own("value-00 value-01") == "value-00 value-01"


@pytest.mark.parametrize("text", ["", "sk-abc", "env:", "vault:planted", ":planted"])
def test_what_is_no_reference_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="expected env:NAME") as refused:
        SecretReference.parse(text)

    assert "planted" not in str(refused.value)
    assert "sk-abc" not in str(refused.value)


def test_a_fingerprint_depends_on_secret_and_key() -> None:
    one = Keyring([OLD]).fingerprints(Secret("a"))

    assert one != Keyring([OLD]).fingerprints(Secret("b"))
    assert one != Keyring([NEW]).fingerprints(Secret("a"))
    assert one == Keyring([OLD]).fingerprints(Secret("a"))


def test_a_rotated_keyring_reads_what_the_old_key_sealed_and_seals_with_the_new() -> None:
    sealed = Keyring([OLD]).seal(Secret("token"))
    rotated = Keyring([NEW, OLD])

    assert rotated.unseal(sealed) == Secret("token")
    assert Keyring([NEW]).unseal(rotated.seal(Secret("token"))) == Secret("token")
    assert rotated.fingerprints(Secret("a"))[1:] == Keyring([OLD]).fingerprints(Secret("a"))


def test_a_token_of_another_key_says_what_to_do() -> None:
    with pytest.raises(SecretUnreadable, match="put that key back, or log in again"):
        Keyring([NEW]).unseal(Keyring([OLD]).seal(Secret("token")))


def test_a_short_secret_key_is_refused() -> None:
    with pytest.raises(SecretUnreadable, match="at least 32 characters"):
        Keyring([Secret("short")])


def test_a_secret_key_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "state" / "secret.key"
    make_secret_key(path)
    first = path.read_text()

    make_secret_key(path)

    assert path.read_text() == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(os.stat(path.parent).st_mode) == 0o700
