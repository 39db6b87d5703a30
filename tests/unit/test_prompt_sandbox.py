"""Hostile templates: nothing is reached through attributes, and what is made, and how long, has bounds."""

import resource
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from freezegun import freeze_time

from jobs.errors import TemplateError
from jobs.prompt import check_expression, check_template, holds, render

BERLIN = ZoneInfo("Europe/Berlin")
NAMES = {
    "job": "digest",
    "now": datetime(2026, 7, 1, 5, tzinfo=BERLIN),
    "scheduled_for": datetime(2026, 7, 1, 5, tzinfo=UTC),
    "gathered": "one\ntwo\n",
    "vars": {"n": 3, "words": ["a", "b"]},
}
PLENTY = 1024**3  # bytes


def rendered(text: str, *, within: float = 60.0) -> str:
    return render(text, zone=BERLIN, names=NAMES, within=within)


def largest() -> int:
    """Return the most memory that this process ever had, in bytes (getrusage(2))."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    "text",
    [
        "{{ job.__class__.__mro__[1].__subclasses__() }}",
        "{{ job['__class__'] }}",
        "{{ job | attr('__class__') }}",
        "{{ [job] | map(attribute='__class__') | first | string }}",
        "{{ [job] | map('attr', '__class__') | first | string }}",
        "{{ [job] | sum(attribute='__class__') }}",
        "{{ [job] | selectattr('__class__') | list }}",
        "{{ '{0.__class__.__mro__}'.format(job) }}",
        "{{ '{0[__class__]}'.format(job) }}",
        "{{ '{x.__class__}'.format_map({'x': job}) }}",
        "{{ ('{0.__class__}' | safe).format(job) }}",
        "{% set f = '{0.__class__}'.format %}{{ f(job) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ rendered.__globals__ }}",
        "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
        "{{ now.tzinfo.from_file }}",
        "{{ now.tzinfo.no_cache('Europe/Paris') }}",
        "{{ vars.words.append('c') }}",
        "{{ vars.update(n=4) }}",
        "{{ lipsum() }}",
    ],
)
def test_no_way_leads_from_a_value_to_what_lies_behind_it(text: str) -> None:
    with pytest.raises(TemplateError):
        rendered(text)


@pytest.mark.parametrize(
    "text",
    [
        "{% include '/etc/passwd' %}",
        "{% include '../other.j2' ignore missing %}",
        "{% import 'other' as other %}",
        "{% from 'other' import thing %}",
        "{% extends 'other' %}",
    ],
)
def test_a_template_reads_no_other_file_and_the_check_says_so(text: str) -> None:
    with pytest.raises(TemplateError, match="a template stands alone"):
        check_template(text)
    with pytest.raises(TemplateError, match="no loader"):
        rendered(text.replace(" ignore missing", ""))


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'x' * 10 ** 10 }}",
        "{{ [1] * 10 ** 10 }}",
        "{{ 'x'.ljust(10 ** 10) }}",
        "{{ 'x'.rjust(width) }}".replace("width", "10 ** 10"),
        "{{ 'x'.center(10 ** 10) }}",
        "{{ 'x' | center(10 ** 10) }}",
        "{{ 'x'.zfill(10 ** 10) }}",
        "{{ ('\\t' * 10000).expandtabs(10 ** 6) }}",
        "{{ ('x' * 10 ** 5).replace('x', 'y' * 10 ** 5) }}",
        "{{ ('x' * 10 ** 5) | replace('x', 'y' * 10 ** 5) }}",
        "{{ ('x' * 10 ** 5) | replace('', 'y' * 10 ** 5) }}",
        "{{ ('x' * 10 ** 5).join('y' * 10 ** 5) }}",
        "{{ range(10 ** 5) | join('x' * 10 ** 5) }}",
        "{{ range(10 ** 5) | map('string') | join('x' * 10 ** 5) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '%.10000000000f' % 1.5 }}",
        "{{ '%*d' % (10 ** 10, 1) }}",
        "{{ '%10000000000d' | format(1) }}",
        "{{ '{:10000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10 ** 10) }}",
        "{{ ('\\n' * 10 ** 5) | indent(10 ** 5) }}",
        "{{ ('x ' * 10 ** 4) | wordwrap(1, wrapstring='y' * 10 ** 5) }}",
        "{{ [1] | batch(10 ** 10, 'x') | list }}",
        "{{ [1] | slice(10 ** 10) | list }}",
        "{{ 1.5 | round(10 ** 10, 'ceil') }}",
        "{{ (1).to_bytes(10 ** 10, 'big') }}",
        "{{ (1).from_bytes(('x' * 10 ** 6).encode(), 'big') }}",
        "{{ [[1, 2], [3]] | tojson(indent=10 ** 10) }}",
        "{{ ([1] * 1000) | tojson(indent='x' * 10 ** 6) }}",
        "{{ 'a'.translate({97: 'x' * 10 ** 6}) }}",
        "{{ [['x' * 10 ** 6]] * 10 ** 6 }}",
        "{{ range(10 ** 9) | list }}",
        "{{ [['x'] * 1000] * 1000 | sum(start=[]) }}",
        "{{ ('a' * 10 ** 6).rfind('b' + 'a' * 5 * 10 ** 5) }}",
        "{{ ('<>' * 10 ** 6) | striptags }}",
        "{{ 0x" + "f" * 30_000 + " is divisibleby(3) }}",
        "{{ ('f' * 30_000) | int(0, 16) }}",
        "{{ ('a' * 400_000).strip('b' * 400_000 ~ 'a') }}",
        "{{ ('a' * 400_000).lstrip('b' * 400_000 ~ 'a') }}",
        "{{ ('a' * 400_000).rstrip('b' * 400_000 ~ 'a') }}",
        "{{ ('a' * 400_000) | trim('b' * 400_000 ~ 'a') }}",
        "{{ ('a' * 400_000) | trim(chars='b' * 400_000 ~ 'a') }}",
        "{{ ('a' * 400_000).rsplit('ab' ~ 'a' * 200_000) }}",
        "{{ ('a' * 400_000).rsplit(sep='ab' ~ 'a' * 200_000) }}",
        "{{ ('x\\r' * 10 ** 5) | indent(10 ** 5) | length }}",
        "{{ ('\\u2028' * 10 ** 7).splitlines() | length }}",
        "{{ ('x' * 10 ** 7) | list | length }}",
        "{{ ('x' * 10 ** 7) | map('upper') | first }}",
        "{{ ('x' * 10 ** 7) | join(',') | length }}",
        "{{ ('x' * 10 ** 7) | max }}",
        "{{ ('x y' * 2 * 10 ** 6) | wordcount }}",
        "{{ '%((a))10000000000d' % {'(a)': 1} }}",
        "{{ now | localtime('%c' * 10 ** 4) }}",
        "{{ now | localtime(form='%c' * 10 ** 4) }}",
        "{{ now.strftime('%c' * 10 ** 4) }}",
        "{{ ('{:' ~ '%c' * 10 ** 4 ~ '}').format(now) }}",
        "{{ ('{}' * 10 ** 4).format('x' * 10 ** 4) }}",
        "{{ ('%%' * 10 ** 6) % () }}",
        "{{ ['\\0' * 10 ** 7] }}",
        "{{ ['\\0' * 10 ** 7] ~ 'x' }}",
        "{{ ['\\0' * 10 ** 7] | string }}",
        "{% set t = 'x' * 15 * 10 ** 6 %}{{ [t[1:], t[2:], t[3:], t[4:], t[5:]] }}",
        "{% set t = 'x' * 10 ** 7 %}{% set c = cycler(t, t) %}{{ c.items | length }}",
        "{% for a in [1] %}{{ 'x'.join(loop) }}{% endfor %}",
        "{{ {2 ** 60 * 2: 1} }}",
        "{{ {(1, 2): 1} }}",
        "{{ dict([[2 ** 61, 1]]) }}",
        "{{ namespace([[2 ** 61, 1]]) }}",
        "{{ 'a'.encode() }}",
        "{{ (5).bit_length() }}",
        "{{ {}.fromkeys('abc') }}",
    ],
)
def test_one_operation_makes_nothing_that_does_not_fit(text: str) -> None:
    with pytest.raises(TemplateError, match=r"not allowed in a template|Range too big"):
        rendered(text)
    assert largest() < PLENTY


BEGUN = "{% set all = namespace(text='ab', list=[1], number=3) %}"
ENDLESS = "{% set r = range(100000) %}{% for a in r %}{% for b in r %}{% for c in r %}"
SIXTY = BEGUN + "{% for turn in range(60) %}"


@pytest.mark.parametrize(
    "text",
    [
        SIXTY + "{% set all.text = all.text ~ all.text %}{% endfor %}",
        SIXTY + "{% set all.text = all.text + all.text %}{% endfor %}",
        SIXTY + "{% set all.text = all.text * 2 %}{% endfor %}",
        SIXTY + "{% set all.text = '%s%s' % (all.text, all.text) %}{% endfor %}",
        SIXTY + "{% set all.text = '{0}{0}'.format(all.text) %}{% endfor %}",
        SIXTY + "{% set all.text %}{{ all.text }}{{ all.text }}{% endset %}{% endfor %}",
        SIXTY + "{% set all.number = all.number * all.number %}{% endfor %}",
        "{{ range(100000) | map('center', 100000) | list | length }}",
        "{% for a in range(10000) %}{% set b = 'x' * 100000 %}{% endfor %}",
        "{% set a %}{% for b in range(100000) %}" + "x" * 1000 + "{% endfor %}{% endset %}",
    ],
)
def test_many_operations_end_by_what_they_make(text: str) -> None:
    with pytest.raises(TemplateError, match=r"not allowed in a template: .* (characters|bits)"):
        rendered(text)
    assert largest() < PLENTY


@pytest.mark.parametrize(
    "text",
    [
        SIXTY + "{% set all.list = [all.list, all.list] %}{% endfor %}{{ all.list == [all.list] }}",
        SIXTY + "{% set all.list = (all.list, all.list) %}{% endfor %}{{ all.list in [all.list] }}",
        SIXTY + "{% set all.list = {1: all.list, 2: all.list} %}{% endfor %}{{ all.list | length }}",
        SIXTY + "{% set all.list = all.list + all.list %}{% endfor %}{{ all.list | length }}",
        BEGUN + "{% macro m() %}{% set all.list = varargs %}{% endmacro %}"
        "{% for turn in range(60) %}{{ m(all.list, all.list) }}{% endfor %}{{ all.list | length }}",
        "{% macro m(n) %}x{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        ENDLESS + "{% endfor %}{% endfor %}{% endfor %}",
        ENDLESS.removesuffix(" %}") + " if false %}{% endfor %}{% endfor %}{% endfor %}",
        "{% set t = 'x' * 10000000 %}{% for a in range(100000) if 'y' in t %}{% endfor %}",
        ENDLESS + "{% set d = a in vars %}{% endfor %}{% endfor %}{% endfor %}",
        "{% set x %}" + ENDLESS + "{% if 1 %}a{% endif %}{% endfor %}{% endfor %}{% endfor %}{% endset %}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "{% set t = 'x' * 7000000 %}{{ [t, t] * 1 and ([0] * 10000) | select('eq', t) | list }}"
        "{% set u = t ~ '' %}{{ ([1] * 100000) | map('default', t) | select('eq', u) | list }}",
        "{% set t = 'x' * 15000000 %}{{ [" + "'xy' in t," * 4000 + "] | length }}",
        "{{ (['x'] * 400000) | map(attribute='0') | list | length }}",
        "{% macro m() %}{{ caller() }}{% endmacro %}"
        + (ENDLESS + "{% call m() %}{% endcall %}{% endfor %}{% endfor %}{% endfor %}"),
    ],
)
def test_many_small_operations_end_by_the_time_they_take(text: str) -> None:
    with pytest.raises(TemplateError, match=r"characters|goes on"):
        rendered(text, within=0.15)
    assert largest() < PLENTY


@pytest.mark.parametrize(
    "text",
    [
        "{{ (['xy'] * 1000) | select('in', 'x' * 1000) | list }}",
        "{{ (['x'] * 1000) | sort(attribute='0' ~ ',0' * 30) | length }}",
        "{% set m, n = ('f' * 240) | int(0, 16), ('f' * 120) | int(0, 16) %}"
        "{{ [" + "(m // n) and 1," * 1000 + "] | length }}",
        "{{ vars.same_hash | unique | list | length }}",
    ],
)
def test_what_is_slow_inside_of_one_expression_ends_soon_after_its_time(text: str) -> None:
    """A second passes whenever the clock is looked at: once for each of many items, and at no other time."""
    same_hash = [n * (2**61 - 1) for n in range(1000)]

    with freeze_time(auto_tick_seconds=1), pytest.raises(TemplateError, match="goes on after 900 s"):
        render(text, zone=BERLIN, names={"vars": {"same_hash": same_hash}}, within=900)


def test_parts_of_a_text_count_before_the_next_is_taken() -> None:
    parts = ",".join(f"t[{n}:]" for n in range(1, 100))
    with pytest.raises(TemplateError, match="made on the way"):
        rendered("{% set t = 'x' * 15000000 %}{{ [" + parts + "] | length }}")
    assert largest() < PLENTY


def test_a_namespace_takes_no_other_one() -> None:
    with pytest.raises(TemplateError, match="a namespace inside another value"):
        rendered("{% set n = namespace() %}{% set n.v = n %}")


def nested(made: str) -> str:
    return SIXTY + "{% set all.list = " + made + " %}{% endfor %}"


@pytest.mark.parametrize(
    "text",
    [
        nested("{'a': all.list, 'b': all.list}.values()") + "{{ all.list | string }}",
        nested("{'a': all.list}.items()") + "{{ all.list == all.list }}",
        nested("{'a': all.list}.values()") + "{{ all.list | string }}",
        nested("{'a': all.list, 'b': all.list} | items") + "{{ all.list | list }}",
        nested("[all.list, all.list] | map('default')") + "{{ all.list | list }}",
        nested("[all.list]") + "{{ all.list }}",
        nested("(all.list,)") + "{{ all.list }}",
        nested("{1: all.list}") + "{{ all.list }}",
        nested("namespace(a=all.list, b=all.list)") + "{{ all.list }}",
        nested("[namespace(a=all.list)]") + "{{ all.list }}",
        "{% set n = namespace() %}{% set n.v = n %}{{ n }}",
        "{% set n = namespace() %}{% set n.v = [n] %}{{ n }}",
        "{% set n, m = namespace(), namespace() %}{% set n.v, m.v = m, n %}{{ n | string }}",
        "{% set n = namespace() %}{{ dict(a=n) }}",
        "{{ namespace(a='x' * 9 * 10 ** 6, b='x' * 9 * 10 ** 6) | string | length }}",
    ],
)
def test_no_value_hides_in_another_one(text: str) -> None:
    with pytest.raises(TemplateError, match=r"deeper than 50|namespace inside|more than \d+,000,000|goes on"):
        rendered(text, within=0.3)
    assert largest() < PLENTY


def test_a_filter_that_nobody_judged_is_none() -> None:
    with pytest.raises(TemplateError, match="No filter named 'urlize'"):
        check_template("{{ job | urlize }}")
    with pytest.raises(TemplateError, match="autoescape"):
        check_template("{% autoescape true %}{{ job }}{% endautoescape %}")


def test_what_is_wrong_is_said_at_bearable_length() -> None:
    with pytest.raises(TemplateError, match="expected length"):
        rendered("{{ 'abcdefgh' | truncate(1, leeway=0) }}")
    with pytest.raises(TemplateError) as refused:
        rendered("{{ {}['x' * 10 ** 6] }}")
    assert len(str(refused.value)) < 2000


def test_what_is_nested_too_deep_is_refused() -> None:
    with pytest.raises(TemplateError, match="too large or too deep"):
        check_template("{% if 1 %}" * 3000 + "{% endif %}" * 3000)


@pytest.mark.parametrize(
    "expression",
    [
        "output.__class__",
        "output | attr('__class__')",
        "'{0.__class__}'.format(output)",
        "'x'.ljust(10 ** 10) == output",
        "('a' * 10 ** 6).rfind('b' + 'a' * 5 * 10 ** 5) > 0",
        "range(100000) | map('center', 100000) | list | length > 0",
        "(output * 100_000).strip(last_output ~ output * 100_000) == ''",
    ],
)
def test_an_expression_has_the_same_bounds(expression: str) -> None:
    check_expression(expression)

    with pytest.raises(TemplateError):
        holds(expression, {"output": "yes", "last_output": ""})


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{{ gathered.splitlines() | join(', ') | upper }}", "ONE, TWO"),
        (
            "{% for line in gathered.splitlines() if 'w' in line %}{{ loop.index }}{{ line }}{% endfor %}",
            "1two",
        ),
        ("{{ '%s: %05.1f' % (job, 2.5) }}", "digest: 002.5"),
        ("{{ '{:,} {:>4}'.format(12345678, 'x') }}", "12,345,678    x"),
        (
            BEGUN
            + "{% for i in range(5) %}{% set all.number = all.number + i %}{% endfor %}{{ all.number }}",
            "13",
        ),
        ("{{ vars.words | map('upper') | list }} {{ vars.words | tojson }}", "['A', 'B'] [\"a\", \"b\"]"),
        ("{% macro m(x) %}{{ x }}{{ caller() }}{% endmacro %}{% call m(1 ~ 'b') %}c{% endcall %}", "1bc"),
        ("{{ now.tzinfo.key }} {{ now.strftime('%H:%M') }}", "Europe/Berlin 05:00"),
        ("{{ gathered | replace('one', '1') | indent(2) | wordwrap(20) }}", "1\n  two"),
        ("{{ vars.nothing is defined }} {{ vars.nothing | default('none') }}", "False none"),
        ("{% set a, b = (1, [2, {'c': 3}]) %}{{ a }}{{ b[1].c }}", "13"),
        (
            "{{ 2 ** 10 }} {{ 7 // 2 }} {{ [3, 1] | sort | first }} {{ [1, 2] | sum }} {{ none }}",
            "1024 3 1 3 None",
        ),
        ("{{ ' a b '.strip() | title | trim('A') }}{{ 'xax'.rstrip('x') }}{{ ' c ' | trim }}", " Bxac"),
        ("{% for k, v in {'a': 1, 2: 'b'}.items() %}{{ k }}={{ v }};{% endfor %}", "a=1;2=b;"),
        ("{% for k, v in vars | dictsort %}{{ k }}{{ loop.cycle('-', '.') }}{% endfor %}", "n-words."),
        (
            "{{ vars.keys() }} {{ 'n' in vars }} {{ vars.get('x', 0) }} {{ vars['n'] + 1 }}",
            "['n', 'words'] True 0 4",
        ),
        ("{{ [3, 1, 3] | unique | sort(reverse=true) | join('+') }} {{ vars.words | last }}", "3+1 b"),
        ("{{ vars.words | map('upper') }}{{ [1, 2, 3] | select('odd') }}", "['A', 'B'][1, 3]"),
        (
            "{% for k, group in [{'k': 1, 'v': 2}, {'k': 1, 'v': 3}] | groupby('k') %}"
            "{{ k }}:{{ group | map(attribute='v') | join('/') }}{% endfor %}",
            "1:2/3",
        ),
        ("{% for row in range(5) | batch(2, '-') %}{{ row | join }} {% endfor %}", "01 23 4- "),
        (
            "{{ 'one two three' | truncate(7) }} {{ 'x'[:3] }}{{ 'abc'[::-1] }} {{ 2.567 | round(1) }}",
            "one... xcba 2.6",
        ),
        ("{{ {'b': [1, none], 'a': 'x'} | tojson(indent=1) | length }} {{ '<' | e }}", "37 &lt;"),
        (
            "{{ now | localtime('%A %d %B') }} {{ (now - scheduled_for).total_seconds() }}",
            "Wednesday 01 July -7200.0",
        ),
        (
            "{% for w in ['b'] %}{% set v = namespace(a=w) %}{{ ', '.join([w, w]) }}{{ v.a }}{% endfor %}",
            "b, bb",
        ),
        ("{{ ('<' | e) + '<' }}{{ ('%s' | safe) % '&' }}", "&lt;<&"),
        ("{{ now.date().isoformat() }} {{ now.replace(hour=7).hour }} {{ now.weekday() }}", "2026-07-01 7 2"),
        ("{% set row = cycler('a', 'b') %}{{ row.next() }}{{ row.next() }}{{ row.current }}", "aba"),
        ("{% set s = joiner('; ') %}{% for w in vars.words %}{{ s() }}{{ w }}{% endfor %}", "a; b"),
        (
            "{% set n = namespace(m=[]) %}{% for i in [5] %}{% set n.m = n.m + [i] %}{% endfor %}{{ n.m }}",
            "[5]",
        ),
        (
            "{{ {'Größe': 'a b'} | urlencode }} {{ 'a-b c' | wordcount }} {{ dict(a=1) }}",
            "Gr%C3%B6%C3%9Fe=a+b 3 {'a': 1}",
        ),
        (
            "{{ '%s: %s' | format('a', [1]) }} {{ ['a', 'b'] | join(', ') }} {{ 'a,b'.split(',') }}",
            "a: [1] a, b ['a', 'b']",
        ),
    ],
)
def test_what_prompts_do_every_day_works(text: str, made: str) -> None:
    check_template(text)

    assert rendered(text) == made
