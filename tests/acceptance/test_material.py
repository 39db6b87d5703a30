"""What goes into a prompt besides its words: what a command prints, and what jobs have answered before."""

from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
secret_key: env:OWN_SECRET_KEY
model: {{provider: custom, name: main, base_url: "{url}", model: m, api_key_env: NAMED_KEY}}
jobs:
"""
KEYS = {
    "NAMED_KEY": "the-key-of-the-house",
    "OPENAI_API_KEY": "sk-another-key-of-the-house",
    "OWN_SECRET_KEY": "the-secret-that-seals-all-the-others-here",
    "CREDENTIALS_DIRECTORY": "/run/credentials/promptd",
}
GATHERS = """
  - name: {name}
    schedule: every 1s
    prompt: "It says: {{{{ gathered }}}}"
    gather: {gather}
"""


def configure(workplace: Workplace, server: ThreadedLoopback, *jobs: str) -> None:
    workplace.environ |= KEYS
    workplace.configure(CONFIG.format(url=server.base_url) + "".join(jobs))


def test_a_command_prints_into_the_prompt_and_knows_no_secret(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    configure(workplace, primary, GATHERS.format(name="digest", gather="{command: [env]}"))

    with workplace.daemon():
        workplace.wait_finished()

    run = workplace.finished_runs()[0]
    assert run["state"] == "succeeded"
    prompt = primary.requests[0].prompt
    assert f"HOME={workplace.directory}" in prompt
    assert [name for name in (*KEYS, *KEYS.values()) if name in prompt] == []


def test_no_key_of_ours_goes_to_a_model_because_a_command_has_printed_it(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    configure(workplace, primary, GATHERS.format(name="digest", gather="{command: [cat, note.txt]}"))
    (workplace.directory / "note.txt").write_text(f"the key is {KEYS['OWN_SECRET_KEY']}, keep it")

    run = workplace.ran("job", "run", "digest")

    assert run["state"] == "succeeded"
    assert primary.requests[0].prompt == "It says: the key is [secret], keep it"


def test_a_command_that_fails_ends_the_run_before_any_model_is_asked(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    gather = '{shell: true, command: "echo the disk is gone >&2; exit 7"}'
    configure(workplace, primary, GATHERS.format(name="digest", gather=gather))

    with workplace.daemon():
        workplace.wait_finished()

    run = workplace.shown(workplace.finished_runs()[0]["id"])
    assert (run["state"], run["reason"], run["attempts"]) == ("failed", "gather", [])
    assert run["error"] == {"class": None, "message": "the shell command ended with 7: the disk is gone"}
    assert primary.requests == []


def test_a_job_sees_what_others_and_itself_have_answered_last(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    """Nothing yet is an empty text; failures in between leave the last answer standing."""
    configure(
        workplace,
        primary,
        "  - {name: weather, schedule: null, prompt: Look outside.}\n",
        "  - {name: digest, schedule: null, context_from: [weather],\n"
        "     prompt: \"<{{ context['weather'] }}> after <{{ last_output }}>\"}\n",
    )
    primary.script(
        Endpoint.CHAT,
        *map(Reply.text, ("nothing known", "it rains", "take a coat")),
        Reply.error(400, message="no"),
        Reply.text("it is dry"),
    )

    for name in ("digest", "weather", "digest", "weather", "digest"):
        workplace.ran("job", "run", name)

    asked = [request.prompt for request in primary.requests if request.prompt != "Look outside."]
    assert asked == ["<> after <>", "<it rains> after <nothing known>", "<it rains> after <take a coat>"]


def test_check_names_jobs_that_are_not_there_and_commands_that_cannot_be(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    configure(
        workplace,
        primary,
        "  - {name: weather, schedule: null, prompt: a, on_overflow: compress}\n"
        "  - {name: b, schedule: null, prompt: b, context_from: [wether]}\n"
        "  - {name: c, schedule: null, prompt: c, gather: {command: ls -l}}\n"
        "  - {name: d, schedule: null, prompt: d, gather: {command: [ls], max_bytes: 3GB}}\n",
    )

    result = workplace.run("check")

    assert result.code == 78
    wanted = (
        "names a job that is not there; did you mean weather?",
        "is one text; write its words as a list",
    )
    assert [words in result.err for words in (*wanted, "is not a size; write bytes such as 200kB")] == [
        True
    ] * 3


def test_check_warns_where_nobody_is_there_to_compress(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    configure(workplace, primary, "  - {name: a, schedule: null, prompt: a, on_overflow: compress}\n")

    result = workplace.run("check")

    assert result.code == 0
    assert "warning: " in result.out
    assert "compresses nothing without `auxiliary: {compression: {}}`" in result.out
