"""`promptd auth import codex`: what another tool has stored is looked at before it is kept."""

import json
from typing import Any

import pytest
from support.workplace import Workplace, jwt

GOOD = {
    "access_token": "the-access-token",
    "refresh_token": "the-refresh-token",
    "id_token": jwt({"aud": ["client-of-the-tool"]}),
    "account_id": "acct-1",
}


def imported(workplace: Workplace, tokens: dict[str, Any]) -> Any:
    """Import a login of the tool."""
    workplace.configure("model: codex/gpt-5.5\n")
    (workplace.directory / "auth.json").write_text(json.dumps({"tokens": tokens}))
    return workplace.run("auth", "import", "codex", "--file", "auth.json")


def test_a_login_is_kept_with_its_client_and_account(workplace: Workplace) -> None:
    assert imported(workplace, GOOD).code == 0

    (row,) = workplace.rows("SELECT client_id, account_id FROM tokens")
    assert row == {"client_id": "client-of-the-tool", "account_id": "acct-1"}


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("access_token", "line\nbreak", "tokens.access_token"),
        ("access_token", "half \ud800 of a pair", "tokens.access_token"),
        ("access_token", ["a", "list"], "tokens.access_token"),
        ("refresh_token", "line\r\nbreak", "tokens.refresh_token"),
        ("refresh_token", 7, "tokens.refresh_token"),
        ("account_id", "acct-1\r\nX-Admin: yes", "the account's id"),
        ("account_id", "\ud800", "the account's id"),
        ("account_id", {"id": 1}, "the account's id"),
        ("id_token", jwt({"aud": ["client\ud800"]}), "the id_token's aud"),
        ("id_token", jwt({"aud": "client\r\nid"}), "the id_token's aud"),
        ("id_token", "not\none", "tokens.id_token"),
    ],
)
def test_what_no_request_can_carry_is_refused_by_name_and_not_stored(
    workplace: Workplace, field: str, value: object, named: str
) -> None:
    said = imported(workplace, {**GOOD, field: value})

    assert (said.code, said.out) == (2, "")
    assert said.err == (
        f"promptd: auth.json: {named} is no text that a request can carry; log in again with `codex login`\n"
    )
    assert not workplace.database.exists()
