"""S7, S8, S11: what is too long is compressed, by helpers that fall back like everybody else."""

import re

import pytest
from support.helped import (
    AFTER,
    BEFORE,
    CHAT_OVERFLOW,
    COMPRESSION,
    GATHERED,
    LINES,
    NOT_YOU,
    SUMMARY,
    SYSTEM,
    TOO_LARGE,
    Place,
    holding,
    material_of,
    steps,
)

from jobs.providers.loopback_replies import Endpoint, Reply


@pytest.mark.parametrize(
    ("refusal", "error_class"),
    [(CHAT_OVERFLOW, "context_overflow"), (TOO_LARGE, "payload_too_large")],
    ids=["context_length_exceeded", "413"],
)
def test_s11_what_was_gathered_is_compressed_and_the_same_target_asked_again(
    place: Place, refusal: Reply, error_class: str
) -> None:
    """The instructions arrive word for word both times, and nobody falls back."""
    place.configure(COMPRESSION)
    place.main.script(Endpoint.CHAT, holding(1000, "all quiet", refusal))

    with place.workplace.daemon():
        place.workplace.wait_finished()

    run = place.workplace.shown(place.workplace.finished_runs()[0]["id"])
    assert (run["state"], run["output"], run["fallback"]) == ("succeeded", "all quiet", False)
    assert run["served"] == {"provider": "custom:main", "model": "large", "credential": "key"}
    assert steps(run) == [
        ("main", "custom:main", error_class, "compress"),
        ("compression", "house", None, None),
        ("main", "custom:main", None, None),
    ]
    assert run["compressed"] == {"from": len(GATHERED), "to": len(SUMMARY)}
    first, second = place.main.requests[:2]
    assert first.prompt == f"{BEFORE}\n{GATHERED}\n{AFTER}"
    assert second.prompt == f"{BEFORE}\n{SUMMARY}\n{AFTER}"
    assert {request.document()["messages"][0]["content"] for request in (first, second)} == {SYSTEM}
    compressed = place.helper.requests[0]
    assert material_of(compressed) == GATHERED
    assert BEFORE not in compressed.body.decode()
    assert SYSTEM not in compressed.body.decode()
    assert place.backup.requests == []


def test_s11_the_run_says_in_words_what_became_shorter_and_keeps_what_the_model_was_shown(
    place: Place,
) -> None:
    place.configure(COMPRESSION)
    place.main.script(Endpoint.CHAT, holding(1000, "all quiet"))

    run = place.run()

    told = place.workplace.run("run", "show", str(run["id"])).out
    assert f"from {len(GATHERED):,} to {len(SUMMARY)} characters" in told
    (row,) = place.workplace.rows("SELECT prompt FROM runs")
    assert row["prompt"] == f"{BEFORE}\n{SUMMARY}\n{AFTER}"


def test_s11_material_is_compressed_in_pieces_that_fit_the_helper(place: Place) -> None:
    """Halved until they fit; put together again they are what was gathered, and each is asked for once."""
    place.configure(COMPRESSION)
    place.main.script(Endpoint.CHAT, holding(2000, "all quiet"))
    place.helper.script(Endpoint.CHAT, holding(4000, "a piece was here"))

    run = place.run()

    assert (run["state"], run["output"]) == ("succeeded", "all quiet")
    fitting = [material_of(each) for each in place.helper.requests if len(each.prompt) <= 4000]
    assert "".join(fitting) == GATHERED
    assert len(fitting) > 1
    assert all(piece.startswith("line ") for piece in fitting)
    refused = [each for each in place.helper.requests if len(each.prompt) > 4000]
    assert len(refused) == 2  # all of it, and the first half
    pieces = "\n".join(["a piece was here"] * len(fitting))
    assert place.main.requests[1].prompt == f"{BEFORE}\n{pieces}\n{AFTER}"
    assert run["compressed"] == {"from": len(GATHERED), "to": len(pieces)}
    assert place.status("house") == "ok"


def test_s11_a_request_is_compressed_at_most_once(place: Place) -> None:
    place.configure(COMPRESSION)
    place.main.script(Endpoint.CHAT, CHAT_OVERFLOW)

    run = place.run()

    assert (run["state"], run["error"]["class"]) == ("failed", "context_overflow")
    assert steps(run) == [
        ("main", "custom:main", "context_overflow", "compress"),
        ("compression", "house", None, None),
        ("main", "custom:main", "context_overflow", "stop"),
    ]
    assert "made shorter once" in run["error"]["message"]
    assert run["compressed"] == {"from": len(GATHERED), "to": len(SUMMARY)}
    assert (len(place.main.requests), place.backup.requests) == (2, [])
    assert place.status("custom:main") == "ok"


def test_s11_without_a_compression_the_run_fails_and_says_what_to_do(place: Place) -> None:
    place.configure()
    place.main.script(Endpoint.CHAT, CHAT_OVERFLOW)

    with place.workplace.daemon():
        place.workplace.wait_finished()

    run = place.workplace.shown(place.workplace.finished_runs()[0]["id"])
    assert (run["state"], run["reason"]) == ("failed", "context_overflow")
    assert "`auxiliary: {compression: {}}`" in run["error"]["message"]
    assert "`on_overflow: truncate`" in run["error"]["message"]
    assert steps(run) == [("main", "custom:main", "context_overflow", "stop")]
    assert run["compressed"] is None
    assert place.backup.requests == []


def test_a_job_that_says_fail_compresses_nothing(place: Place) -> None:
    place.configure(COMPRESSION, keys="on_overflow: fail")
    place.main.script(Endpoint.CHAT, CHAT_OVERFLOW)

    run = place.run()

    assert (run["state"], run["reason"], run["compressed"]) == ("failed", "context_overflow", None)
    assert place.helper.requests == []


def test_instructions_are_never_compressed_even_where_nothing_else_is_left(place: Place) -> None:
    place.configure(COMPRESSION, gathered="one short line\n")
    place.main.script(Endpoint.CHAT, CHAT_OVERFLOW)

    run = place.run()

    assert (run["state"], run["reason"]) == ("failed", "context_overflow")
    assert "instructions are never compressed" in run["error"]["message"]
    assert steps(run) == [("main", "custom:main", "context_overflow", "stop")]
    assert place.helper.requests == []


def test_truncating_drops_the_front_of_what_was_gathered_once_and_says_how_much(place: Place) -> None:
    place.configure(COMPRESSION, keys="on_overflow: truncate")
    place.main.script(Endpoint.CHAT, holding(len(GATHERED) * 3 // 4, "all quiet"))

    run = place.run()

    assert (run["state"], run["output"]) == ("succeeded", "all quiet")
    assert steps(run)[0] == ("main", "custom:main", "context_overflow", "compress")
    assert place.helper.requests == []
    first, second = place.main.requests
    begun, note, rest = re.split(
        r"(\[the first [\d,]+ of [\d,]+ characters are left out here\]\n)", second.prompt
    )
    assert (begun, rest.removesuffix(f"\n{AFTER}")) == (f"{BEFORE}\n", "".join(LINES[200:]))
    assert f"the first {len(''.join(LINES[:200])):,} of {len(GATHERED):,} characters" in note
    assert len(second.prompt) < len(first.prompt)
    assert run["compressed"]["from"] == len(GATHERED)
    assert run["compressed"]["to"] == len(note) + len("".join(LINES[200:]))


def test_the_answers_of_other_jobs_are_compressed_like_what_was_gathered(place: Place) -> None:
    place.configure(COMPRESSION, keys="context_from: [other]")
    config = place.workplace.config.read_text().replace("{{ gathered }}", "{{ context['other'] }}")
    place.workplace.config.write_text(config + "  - {name: other, schedule: null, prompt: Tell.}\n")
    told = "\n".join(f"The host {number} is well." for number in range(100))
    place.main.script(Endpoint.CHAT, Reply.text(told), holding(1000, "all quiet"))

    assert place.workplace.ran("job", "run", "other")["output"] == told
    run = place.run()

    assert (run["state"], run["output"]) == ("succeeded", "all quiet")
    assert place.main.requests[1].prompt == f"{BEFORE}\n{told}\n{AFTER}"
    assert [material_of(each) for each in place.helper.requests] == [told]
    assert run["compressed"] == {"from": len(told), "to": len(SUMMARY)}


OAUTH_HELPER = """
  openai-codex:
    base_url: {codex}
    headers: {{chatgpt-account-id: house}}
    credentials:
      - {{label: plan, oauth: {{token_url: "{token}"}}}}
      - {{label: spare, key: env:SPARE_KEY}}
auxiliary:
  compression: {{provider: codex, model: small, fallback_chain: [house/small]{last}}}
"""
DEATH_WORD = Reply.error(401, code="token_invalidated", message="Your session has ended.")


def refuse_every_helper(place: Place, last: str = "") -> None:
    """Configure a helper with a login and a key, and one after it, all of whom refuse."""
    addresses = {"codex": place.helper.codex_url, "token": place.helper.token_url}
    place.workplace.environ["SPARE_KEY"] = "spare-key"
    place.configure(OAUTH_HELPER.format(**addresses, last=last))
    place.workplace.log_in(refresh_token="first", access_token="old-access")
    place.helper.script(Endpoint.CODEX, DEATH_WORD)
    place.helper.script(Endpoint.CODEX, NOT_YOU, key="spare-key")
    place.helper.script(Endpoint.TOKEN, Reply.tokens(access_token="new-access"))
    place.helper.script(Endpoint.CHAT, NOT_YOU)


HELPERS_FAIL = [
    ("compression", "openai-codex", "auth_dead", "refresh"),
    ("refresh", "openai-codex", None, None),
    ("compression", "openai-codex", "auth_dead", "next_credential"),
    ("compression", "openai-codex", "auth", "next_target"),
]


def test_s7_a_refused_helper_is_refreshed_then_its_other_keys_then_its_chain_then_the_main_chain(
    place: Place,
) -> None:
    """S8 too: each refusal marks the credential that earned it, and the main chain's stay as they were."""
    refuse_every_helper(place)
    place.main.script(
        Endpoint.CHAT, CHAT_OVERFLOW, Reply.text("shortened by the main model"), Reply.text("all quiet")
    )

    with place.workplace.daemon():
        place.workplace.wait_finished()

    run = place.workplace.shown(place.workplace.finished_runs()[0]["id"])
    plan = place.workplace.credential("openai-codex", "plan")
    spare = place.workplace.credential("openai-codex", "spare")
    assert steps(run) == [
        ("main", "custom:main", "context_overflow", "compress"),
        *HELPERS_FAIL,
        ("compression", "house", "auth", "next_target"),
        ("compression", "custom:main", None, None),
        ("main", "custom:main", None, None),
    ]
    assert (run["state"], run["output"], run["fallback"]) == ("succeeded", "all quiet", False)
    assert [a["target_index"] for a in run["attempts"]] == [0, 0, 0, 0, 0, 1, 2, 0]
    assert "shortened by the main model" in place.main.requests[2].prompt
    assert (plan["status"], plan["attempt_id"]) == ("dead", run["attempts"][3]["id"])
    assert (spare["status"], spare["attempt_id"]) == ("exhausted", run["attempts"][4]["id"])
    assert place.status("house") == "exhausted"
    assert (place.status("custom:main"), place.status("custom:backup")) == ("ok", "ok")


def test_s7_a_helper_whose_refresh_helps_is_asked_again(place: Place) -> None:
    refuse_every_helper(place)
    place.helper.script(Endpoint.CODEX, Reply.text(SUMMARY), key="new-access")
    place.main.script(Endpoint.CHAT, holding(1000, "all quiet"))

    run = place.run()

    assert steps(run)[1:4] == [*HELPERS_FAIL[:2], ("compression", "openai-codex", None, None)]
    assert (run["state"], run["compressed"]["to"]) == ("succeeded", len(SUMMARY))
    assert place.workplace.credential("openai-codex", "plan")["status"] == "ok"


def test_s7_a_compression_that_nobody_does_fails_the_run_with_the_helpers_own_cause(place: Place) -> None:
    """S8 too. `fallback_to_main: false` keeps the main chain out of it."""
    refuse_every_helper(place, ", fallback_to_main: false")
    place.main.script(Endpoint.CHAT, CHAT_OVERFLOW)

    run = place.run()

    assert (run["state"], run["reason"], run["error"]["class"]) == ("failed", "compression", None)
    assert "context_overflow" in run["error"]["message"]
    assert "house/small: auth: Incorrect API key provided." in run["error"]["message"]
    assert steps(run) == [
        ("main", "custom:main", "context_overflow", "compress"),
        *HELPERS_FAIL,
        ("compression", "house", "auth", "stop"),
    ]
    assert (len(place.main.requests), place.backup.requests) == (1, [])
    assert run["compressed"] is None
    assert place.status("house") == "exhausted"
    assert (place.status("custom:main"), place.status("custom:backup")) == ("ok", "ok")


def test_a_helper_without_a_readable_key_is_passed_over(place: Place) -> None:
    """It is not the run's primary: the main chain helps itself."""
    place.configure(COMPRESSION)
    place.workplace.environ.pop("HOUSE_KEY")
    place.main.script(Endpoint.CHAT, CHAT_OVERFLOW, Reply.text(SUMMARY), Reply.text("all quiet"))

    run = place.run()

    assert steps(run)[1:3] == [
        ("compression", "house", "config_error", "next_target"),
        ("compression", "custom:main", None, None),
    ]
    assert run["state"] == "succeeded"


def test_a_helper_that_reaches_the_main_chain_never_moves_the_run_within_it(place: Place) -> None:
    """With `{}` the main chain is all there is: the helper is answered by its first open target."""
    place.configure("auxiliary: {compression: {}}")
    place.main.script(Endpoint.CHAT, NOT_YOU)
    place.backup.script(Endpoint.CHAT, CHAT_OVERFLOW, Reply.text(SUMMARY), Reply.text("all quiet"))

    run = place.run()

    assert steps(run) == [
        ("main", "custom:main", "auth", "next_target"),
        ("main", "custom:backup", "context_overflow", "compress"),
        ("compression", "custom:main", "auth", "next_target"),
        ("compression", "custom:backup", None, None),
        ("main", "custom:backup", None, None),
    ]
    assert [a["outcome"] for a in run["attempts"]][2] == "passed_over"
    assert (run["state"], run["fallback"], run["fallback_reason"]) == ("succeeded", True, "auth")
    assert len(place.main.requests) == 1


def test_a_compression_ends_with_its_run(place: Place) -> None:
    place.configure(COMPRESSION, keys="timeout: 6s")
    place.main.script(Endpoint.CHAT, CHAT_OVERFLOW)
    place.helper.script(Endpoint.CHAT, Reply.text("never sent").silent())

    run = place.run()

    assert (run["state"], run["compressed"]) == ("timed_out", None)
    assert [a["outcome"] for a in run["attempts"]] == ["failed", "unknown"]


def test_a_helper_that_is_slow_is_left_for_the_next_after_its_own_timeout(place: Place) -> None:
    place.configure(COMPRESSION.replace("small", "small, timeout: 3s"))
    place.main.script(Endpoint.CHAT, CHAT_OVERFLOW, Reply.text(SUMMARY), Reply.text("all quiet"))
    place.helper.script(Endpoint.CHAT, Reply.text("never sent").silent())

    run = place.run()

    assert steps(run)[1:3] == [
        ("compression", "house", "timeout", "next_target"),
        ("compression", "custom:main", None, None),
    ]
    assert (run["state"], run["output"]) == ("succeeded", "all quiet")
    assert "no answer within 3 s" in run["attempts"][1]["message"]


def test_more_material_than_forty_calls_can_do_is_refused_before_they_are_paid(place: Place) -> None:
    place.configure(COMPRESSION, gathered="a line\n" * 28_000)
    place.main.script(Endpoint.CHAT, CHAT_OVERFLOW)
    place.helper.script(Endpoint.CHAT, holding(5000, SUMMARY))

    run = place.run()

    assert (run["state"], run["reason"]) == ("failed", "compression")
    assert "need more than the 40 calls" in run["error"]["message"]
    assert len(place.helper.requests) == 4  # halved until the pieces would be too many
