"""Which parts of a URL no text may show: those that admit somebody, and not the words beside them."""

import pytest

from jobs.secret import Redactor, Secret, secrets_in_url


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        (
            "https://hooks.slack.com/services/T0001ABCD/B0002ABCD/XyZabcdefGhI",
            {"T0001ABCD", "B0002ABCD", "XyZabcdefGhI"},
        ),
        (
            "https://hc-ping.com/c0ffee00-1111-4222-8333-444455556666",
            {"c0ffee00-1111-4222-8333-444455556666"},
        ),
        ("https://hc-ping.com/AbCdEfGhIjKl/morning-digest", {"AbCdEfGhIjKl"}),
        ("https://example.org/hooks/correct-horse-battery", {"/correct-horse-battery"}),
        ("https://user:lower-case@example.org/in", {"lower-case"}),
        ("https://user:p%40ssw0rd@example.org/in", {"p%40ssw0rd", "p@ssw0rd"}),
        ("https://example.org/in?api_key=lowercase&page=second", {"lowercase"}),
        ("https://example.org/in?a=1;token=a+lower+one", {"a+lower+one", "a lower one"}),
        ("https://example.org/in#Ab1Cd2Ef3", {"Ab1Cd2Ef3"}),
        (
            "tgram://123456789:ABCdef_ghiJKL-mnop/-10012345678/",
            {"123456789:ABCdef_ghiJKL-mnop", "123456789", "ABCdef_ghiJKL-mnop", "-10012345678"},
        ),
        ("slack://bot@T1JJ3T3L2/A1BRTD4JD/TIiajkdnl/#general", {"T1JJ3T3L2", "A1BRTD4JD", "TIiajkdnl"}),
        ("mailto://promptd:hunter22@mail.example.org:2525/?from=ops@example.org", {"hunter22"}),
        ("gotify://gotify.example.org:8443/AbCdEfG.hI", {"AbCdEfG.hI"}),
        ("https://example.org/ping/AbCdEfGhIjKl/digest-of-the-whole-morning", {"AbCdEfGhIjKl"}),
        ("https://discord.com/api/webhooks/1234567890/ab-cdEFghIj_1k", {"1234567890", "ab-cdEFghIj_1k"}),
        ("pover://user@uAb1Cd2Ef3Gh4/phone", {"uAb1Cd2Ef3Gh4"}),
        ("prowl://c0ffee11beef22/", {"c0ffee11beef22"}),
        ("https://Ab1Cd2Ef3:x@example.org/in?next=Zz9Yy8Xx7", {"Ab1Cd2Ef3", "Zz9Yy8Xx7"}),
        ("not a URL at all", {"not a URL at all"}),
    ],
)  # fmt: skip
def test_what_admits_is_a_secret_and_plain_words_are_none(url: str, secrets: set[str]) -> None:
    assert {secret.reveal() for secret in secrets_in_url(url)} == secrets


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/in",
        "http://127.0.0.1:8080/in",
        "https://example.org/in?code=success&key=events&page=second",
        "https://example.org/hooks/incomingWebhooks",
        "https://example.org/api/v1/alerts/2026-11-21",
        "https://a1b2c3d4e5.example.org/in",
        "mailto://alerts@smtp.k8s.example.org",
        "json://node2b.local:8080/in",
        "json://node2b/in",
        "json://longer-name-2b-of-a-node:8080/in",
        "json://[fd00:1a2b:3c4d::1]:8080/in",
    ],
)
def test_schemes_hosts_and_plain_words_are_anybodys(url: str) -> None:
    assert secrets_in_url(url) == []


def test_a_redactor_takes_each_part_out_where_it_stands_alone() -> None:
    redactor = Redactor()
    redactor.learn(secrets_in_url("https://hooks.slack.com/services/T0001ABCD/B0002ABCD/XyZabcdefGhI"))

    assert redactor.own("POST /XyZabcdefGhI to services") == "POST /[secret] to services"


@pytest.mark.parametrize(
    "text", ["http://", "see https:", "http... and more", "...fail", "to /correct", "x...battery"]
)
def test_ordinary_text_may_begin_and_end_like_an_address(text: str) -> None:
    redactor = Redactor()
    addresses = ("https://hc.example/Ab1Cd2Ef3/fail", "https://example.org/hooks/correct-horse-battery")
    redactor.learn(Secret(address) for address in addresses)
    redactor.learn(secret for address in addresses for secret in secrets_in_url(address))

    assert redactor.clean(text) == text
    assert redactor.clean(f"at {addresses[0]}, {addresses[1]}") == "at [secret], [secret]"


def test_among_the_secrets_of_a_thousand_heartbeats_each_is_found_whole_and_begun() -> None:
    pings = [f"https://hc-ping.com/{number:08x}-0c0f-4fee-8bad-c0ffee{number:06x}" for number in range(1_000)]
    redactor = Redactor()
    redactor.learn(secret for ping in pings for secret in secrets_in_url(ping))

    for ping in pings[::97]:
        secret = ping.rpartition("/")[2]
        assert redactor.own(f"GET /{secret}/fail") == "GET /[secret]/fail"
        assert redactor.own(f"cut at {secret[:20]}", is_cut=True) == "cut at [secret]"
        assert redactor.own(f"{'long ' * 1_000}{secret}!").endswith("long [secret]!")
    assert redactor.own("run 12 of morning-digest") == "run 12 of morning-digest"


@pytest.mark.parametrize("piece", ["a", "a-", "Aa", "@", "%41", "?a=", "/"])
def test_a_url_of_any_length_is_read_in_a_time_that_grows_as_it_does(piece: str) -> None:
    assert secrets_in_url("http://h/" + piece * 100_000 + "!") is not None
