"""The loopback server's token endpoint: refreshes (RFC 6749), device logins (RFC 8628), reuse punished."""

from jobs.providers.loopback_replies import Received, Reply, Wire, json_object

DEVICE_CODE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_OK = 200


def token_of(received: Received) -> str | None:
    """Return what a request to the token endpoint wants to exchange: a refresh token, or a device code."""
    form = received.form()
    return form.get("refresh_token") or form.get("device_code")


class TokenDesk:
    """Grants refreshes and device logins.

    When `single_use`, a refresh token that was exchanged is worth nothing; a device code always is. A device
    code is granted the first time it is asked for: to have its user take longer, script the token endpoint.
    """

    def __init__(self, *, single_use: bool, revoke_on_reuse: bool) -> None:
        self._single_use = single_use
        self._revoke_on_reuse = revoke_on_reuse
        self._used: set[str] = set()
        self._revoked: set[str] = set()
        self._first: dict[str, str] = {}  # refresh token → the first one of its login
        self._devices: set[str] = set()

    def refusal(self, token: str | None) -> Reply | None:
        """Return the answer to a token that is spent or revoked, None for a good one."""
        if not self._single_use or token is None:
            return None
        login = self._first.get(token, token)
        code = "refresh_token_invalidated" if login in self._revoked else "refresh_token_reused"
        if login not in self._revoked and token not in self._used:
            return None
        if self._revoke_on_reuse:
            self._revoked.add(login)
        # The words and shape of auth.openai.com, which are not RFC 6749's.
        return Reply.error(401, code=code, type="invalid_request_error", message="Please sign in again.")

    def settle(self, token: str | None, wire: Wire) -> None:
        """Take note of an exchange: it counts from here, even if its answer is lost on the way."""
        if token is None or wire.status != _OK:
            return
        new = json_object(b"".join(wire.pieces)).get("refresh_token")
        if new in (None, token):
            return
        self._devices.discard(token)
        self._used.add(token)
        self._first[str(new)] = self._first.get(token, token)

    def begin(self, received: Received, origin: str) -> Reply:
        """Answer a device authorization request (RFC 8628, section 3.2)."""
        if not received.form().get("client_id"):
            return Reply.token_error(400, "invalid_request")
        device_code, user_code = f"device-{received.number}", f"LOOP-{received.number:04}"
        self._devices.add(device_code)
        page = f"{origin}/device"
        said = {"device_code": device_code, "user_code": user_code, "expires_in": 600, "interval": 1}
        complete = {"verification_uri": page, "verification_uri_complete": f"{page}?user_code={user_code}"}
        return Reply.json(200, {**said, **complete}, {"cache-control": "no-store"})

    def grant(self, received: Received) -> Reply:
        """Answer a request that no script is for (RFC 6749, section 6; RFC 8628, section 3.5)."""
        match received.form().get("grant_type"), received.key:
            case "refresh_token", str():
                return Reply.tokens(access_token="access-{number}", refresh_token="refresh-{number}")
            case grant, str(code) if grant == DEVICE_CODE_GRANT:
                known = code in self._devices
                granted = Reply.tokens(access_token="access-{number}", refresh_token="refresh-{number}")
                return granted if known else Reply.token_error(400, "invalid_grant")
            case None | "refresh_token", _:
                return Reply.token_error(400, "invalid_request")
            case _:
                return Reply.token_error(400, "unsupported_grant_type")
