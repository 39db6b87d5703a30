"""Templates that ask for what can never be there: each a fault at its place, with what there is."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.errors import ConfigError, Fault
from scheduler.config.loader import load
from scheduler.config.settings import Settings

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HEAD = """\
timezone: UTC
model: openai/gpt-5.5
jobs:
  - {name: morning-digest, schedule: null, prompt: hi}
  - name: a
    schedule: null
"""


def read(tmp_path: Path, keys: str, *, strict: bool = True) -> Settings:
    lines = "".join(f"    {line}\n" for line in keys.splitlines())
    (tmp_path / "promptd.yaml").write_text(HEAD + lines)
    return load(tmp_path / "promptd.yaml", environ={}, now=NOW, strict=strict)


def fault(tmp_path: Path, keys: str) -> Fault:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, keys)
    (found,) = refused.value.faults
    return found


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("{{ context['other'] }}", "line 1 for context['other'], which context_from does not name"),
        ("{{ context['morning_digest'] }}", "did you mean 'morning-digest'? there are morning-digest"),
        ("{{ context.zzz }}", "context['zzz']"),
        ("{% if context.zzz %}x{% endif %}", "context['zzz']"),
        ("{% for each in context.zzz.split() %}x{% endfor %}", "context['zzz']"),
        ("{{ 'x' if context.zzz else 'y' }}", "context['zzz']"),
        ("{{ context.zzz or vars.x }}", "context['zzz']"),
        ("one\\n{{ job.nope }}", "line 2 for job.nope, and job is a text without that; write {{ job }}"),
        ("{{ gathered.nope }}", "gathered.nope"),
        ("{{ gathered['nope'] }}", "gathered.nope"),
        ("{{ last_output.text }}", "last_output.text"),
        ("{{ scheduled_for.days }}", "scheduled_for is a moment without that"),
        ("{{ now.nope }}", "now.nope"),
        ("{{ '}}' ~ job.nope }}", "job.nope"),
        ("a {{\\n job.upper() }} {# {{ #}\\n{{ job.nope }}", "line 3 for job.nope"),
    ],
)
@pytest.mark.parametrize("key", ["prompt", "system"])
def test_what_a_template_asks_for_in_vain_is_a_fault(
    tmp_path: Path, key: str, prompt: str, words: str
) -> None:
    other = "" if key == "prompt" else "\nprompt: hi"
    found = fault(tmp_path, f'context_from: [morning-digest]\n{key}: "{prompt}"{other}')
    assert (found.line, found.key) == (8, f"jobs[1].{key}")
    assert words in f"{found.wrong}; {found.mend}"


def test_a_job_without_context_from_is_told_to_name_it(tmp_path: Path) -> None:
    found = fault(tmp_path, "prompt: \"{{ context['morning-digest'] }}\"")
    assert "nothing is in context_from" in found.wrong
    assert found.mend == "add `context_from: [morning-digest]`, or take it out"


@pytest.mark.parametrize(
    "prompt",
    [
        "{{ context['morning-digest'] }}",
        "{{ context.get('zzz', '') }} {{ context.items() | length }} {{ context[vars.which] }}",
        "{{ vars.anything }} {{ vars['at all'] }}",
        "{{ context.zzz | default('none') }} {{ gathered.nope | d('x') }}",
        "{% if context.zzz is defined %}{{ context.zzz }}{% endif %}",
        "{% if context['zzz'] is not undefined %}{{ context['zzz'] }}{% endif %}",
        "{% if 'zzz' in context %}{{ context['zzz'] }}{% endif %}",
        "{% if 'zzz' not in context %}none{% else %}{{ context.zzz }}{% endif %}",
        "{% if context.get('zzz') %}{{ context['zzz'] }}{% endif %}",
        "{% if context %}{{ context.zzz }}{% elif now %}{{ context.y }}{% else %}{{ context.x }}{% endif %}",
        "{% for each in context %}{{ context.zzz }}{% endfor %}",
        "{{ context['zzz'] if job == 'b' else context['yyy'] }}",
        "{{ vars.x or context['zzz'] }} {{ job == 'b' and context['zzz'] }}",
        "{% macro told() %}{{ context.zzz }}{% endmacro %}",
        "{% set job = {'nope': 1} %}{{ job.nope }}",
        "{% for context in [{'zzz': 1}] %}{{ context.zzz }}{% endfor %}",
        "{{ job.upper() }} {{ gathered.splitlines()[0] }} {{ now.year }} {{ scheduled_for.date() }}",
        "the job.nope and context['zzz'] {# {{ job.nope }} #} {% raw %}{{ job.nope }}{% endraw %}",
    ],
)
def test_what_may_be_there_or_is_guarded_is_left_to_the_run(tmp_path: Path, prompt: str) -> None:
    settings = read(tmp_path, f'context_from: [morning-digest]\nprompt: "{prompt}"')
    assert settings.warnings == ()
    assert settings.jobs["a"].job.prompt == prompt


def test_texts_of_files_and_defaults_are_looked_at_too(tmp_path: Path) -> None:
    """A file can be mended before a run reads it: the daemon is only warned."""
    (tmp_path / "p.md").write_text("first\n{{ context.zzz }}")
    (warning,) = read(tmp_path, "prompt_file: p.md", strict=False).warnings
    found = fault(tmp_path, "prompt_file: p.md")
    assert (found.line, found.key) == (7, "jobs[1].prompt_file")
    assert "p.md, which asks in line 2 for context['zzz']" in found.wrong
    assert found.wrong in warning

    (tmp_path / "promptd.yaml").write_text(
        "defaults: {system: '{{ job.nope }}'}\n" + HEAD + "    prompt: hi\n"
    )
    with pytest.raises(ConfigError) as refused:
        load(tmp_path / "promptd.yaml", environ={}, now=NOW)
    (found,) = refused.value.faults
    assert (found.line, found.key) == (1, "defaults.system")
