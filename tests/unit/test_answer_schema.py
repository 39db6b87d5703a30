"""A job's JSON Schema: what is refused when it is read, and what an answer held against it is told."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hang_guard import ends

from jobs.answer_schema import (
    LARGEST_SCHEMA,
    LONGEST_ANSWER,
    Fitting,
    SchemaFault,
    Unfit,
    check,
    judge,
    name_of,
)

DIGEST: dict[str, Any] = {
    "type": "object",
    "required": ["headline", "items"],
    "additionalProperties": False,
    "properties": {
        "headline": {"type": "string", "minLength": 3},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}, "uniqueItems": True},
    },
    "$defs": {"item": {"type": "object", "properties": {"price": {"type": "number", "minimum": 0}}}},
}


def nested(levels: int) -> dict[str, Any]:
    """Return a schema of lists in lists."""
    return {"items": nested(levels - 1)} if levels else {}


def doubling(levels: int) -> dict[str, Any]:
    """Return a short schema that asks for 2 to the power of `levels` checks."""
    twice = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**twice, f"d{levels}": {}}, "properties": {"a": {"$ref": "#/$defs/d0"}}}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        DIGEST,
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "string"},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}, "not": False},
        {"$id": "https://example.org/digest", "properties": {"child": {"$ref": "#"}}},
        {"properties": {"$ref": {"const": {"$ref": "https://example.org"}}}},
        {"$defs": {"a": {"$anchor": "here"}}, "$ref": "#here"},
    ],
)
def test_a_schema_is_taken_as_it_is(schema: dict[str, Any]) -> None:
    check(schema)


@pytest.mark.parametrize(
    ("schema", "path", "words"),
    [
        ({"type": "strng"}, ("type",), "one of array"),
        ({"properties": {"a": {"minLength": "x"}}}, ("properties", "a", "minLength"), "no integer"),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, (), "write the schema itself"),
        ({"$schema": "https://example.org/own"}, ("$schema",), "no dialect"),
        ({"$ref": "https://example.org/a.json"}, ("$ref",), "nothing is fetched"),
        ({"$ref": "other.json#/a"}, ("$ref",), "nothing is fetched"),
        ({"allOf": [{"$ref": "file:///etc/passwd"}]}, ("allOf", 0, "$ref"), "nothing is fetched"),
        ({"items": {"$ref": "#/$defs/nobody"}}, ("items", "$ref"), "no schema of this one"),
        ({"components": {"a": {}}, "$ref": "#/components/a"}, ("$ref",), "no schema of this one"),
        ({"items": {"$id": "https://example.org/b"}}, ("items",), "a schema of its own"),
        ({"$ref": "#"}, (), "without end"),
        ({"properties": {"a": {"pattern": "(?=b)"}}}, ("properties", "a", "pattern"), "look-around"),
        ({"pattern": "(a)\\1"}, ("pattern",), "backreferences"),
        ({"pattern": "("}, ("pattern",), "unclosed"),
        ({"pattern": "(a{1000}){1000}"}, ("pattern",), "too large"),
        ({"patternProperties": {"(a+)+$": {}}}, ("patternProperties",), "no bound"),
        ({"enum": [float("nan")]}, (), "JSON does not have"),
        ({"description": "x" * LARGEST_SCHEMA}, (), "longer than"),
        (nested(60), (), "nested more than"),
        ({**doubling(40), "$ref": "#/properties/a"}, (), "without end"),
    ],
)
def test_what_cannot_be_used_is_told_at_its_place(
    schema: dict[str, Any], path: tuple[str | int, ...], words: str
) -> None:
    with pytest.raises(SchemaFault) as refused:
        check(schema)

    assert (refused.value.path, words in str(refused.value)) == (path, True)


def test_a_fault_quotes_nothing_of_the_schema() -> None:
    """What stands in the wrong place may be a secret."""
    with pytest.raises(SchemaFault) as refused:
        check({"required": "a-secret-value"})

    assert "a-secret" not in str(refused.value)


GOOD = '{"headline": "Quiet", "items": [{"price": 1}]}'


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        f"\n {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}```\n",
        f"<think>a {{ is not JSON</think>\n\n{GOOD}",
    ],
)
def test_what_is_kept_is_the_json_alone(answer: str) -> None:
    assert judge(answer, DIGEST) == Fitting(GOOD)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("", "$: no JSON: Expecting value"),
        (f"Here it is: {GOOD}", "$: no JSON: Expecting value"),
        (f"```json\n{GOOD}\n``` as you wished", "$: no JSON"),
        (GOOD[:-1], "$: no JSON: Expecting ',' delimiter"),
        ('{"headline": NaN, "items": []}', "$: no JSON: NaN is not JSON"),
        ("1e999", "$: no JSON: a number is too large"),
        ("9" * 5000, "$: no JSON: a number is too large"),
        ("[" * 100_000, "$: no JSON: maximum recursion depth"),
        ("null", "$: None is not of type 'object'"),
        ('{"items": []}', "$: 'headline' is a required property"),
        ('{"headline": "No", "items": []}', "$.headline: 'No' is too short"),
        ('{"headline": "abc", "items": [{}, {"price": -1}]}', "$.items[1].price: -1 is less than"),
        (
            '{"headline": "abc", "items": [{"a": 1}, {"a": 1.0}]}',
            "$.items: [{'a': 1}, {'a': 1.0}] has non-unique",
        ),
        (f'"{"x" * LONGEST_ANSWER}"', "$: longer than the 1,000,000 characters"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(answer: str, fault: str) -> None:
    judged = judge(answer, DIGEST)

    assert isinstance(judged, Unfit)
    assert judged.faults[0].startswith(fault)


def test_few_faults_are_told_and_in_few_words() -> None:
    """An answer may be wrong in a million places, and long in each."""
    judged = judge(f'["{"x" * 5000}"{", 1" * 10_000}]', {"items": {"type": "null"}})

    assert isinstance(judged, Unfit)
    assert len(judged.faults) == 5
    assert max(map(len, judged.faults)) <= 330
    assert str(judged).startswith("$[0]: 'xxx")
    assert str(judged).endswith("is not of type 'null' (and 4 more)")


def test_true_is_not_one() -> None:
    assert isinstance(judge('[1, true, 0, false, "1", null]', {"uniqueItems": True}), Fitting)
    assert isinstance(judge("true", {"const": 1}), Unfit)
    assert isinstance(judge("[1.0, false]", {"items": {"enum": [1, False]}}), Fitting)
    assert isinstance(judge("[true]", {"items": {"enum": [1, 0]}}), Unfit)
    assert isinstance(judge('{"b": [1.0], "a": 2}', {"const": {"a": 2.0, "b": [1]}}), Fitting)


@pytest.mark.parametrize(("answer", "fits"), [("1", True), ('"a"', True), ("5", False), ("null", False)])
def test_one_of_takes_exactly_one(answer: str, fits: bool) -> None:
    schema = {"oneOf": [{"type": "integer"}, {"type": "string"}, {"type": "number", "minimum": 5}]}

    assert isinstance(judge(answer, schema), Fitting) is fits


def test_a_pattern_that_explodes_elsewhere_is_searched_in_linear_time() -> None:
    """A backtracking engine needs 2 to the power of 100,000 steps here: this test would not end."""
    judged = judge(f'"{"a" * 100_000}b"', {"pattern": "^(a+)+$"})

    assert isinstance(judged, Unfit)


def test_unique_items_of_a_long_answer_are_not_compared_pair_by_pair() -> None:
    """Objects have no order: two and two they would be 2,000,000,000 comparisons."""
    answer = json.dumps([{"a": number} for number in range(66_000)])

    assert isinstance(judge(answer, {"uniqueItems": True}), Fitting)


A_MILLION = f"[{'1,' * 400_000}1]"
NAMES = [f"n{number}" for number in range(10_000)]
EMPTIES = f"[{'{},' * 20_000}{{}}]"
FITS = "Fitting(text="
TOO_MUCH = "$: takes more checks than there may be"
DRAFT_7 = "http://json-schema.org/draft-07/schema"


def nested_items(levels: int) -> str:
    return "[" * levels + "1,2,3,4" * 20_000 + "]" * levels


@pytest.mark.parametrize(
    ("schema", "answer", "said"),
    [
        pytest.param(
            {"items": {"enum": [*range(18_000), "x"]}}, json.dumps([*range(18_000)] * 2), FITS, id="enum"
        ),
        pytest.param(
            {"items": {"anyOf": [{"not": {"enum": [number + 0.5 for number in range(13_000)]}}, {}]}},
            json.dumps([*range(40_000)]),
            FITS,
            id="a refusal that would quote its schema",
        ),
        pytest.param(
            {"anyOf": [{"type": "string"}] * 4000},
            A_MILLION,
            "$: [1, 1, 1",
            id="branches that would quote it",
        ),
        pytest.param({"anyOf": [{"items": False}] * 4000}, A_MILLION, TOO_MUCH, id="items that may not be"),
        pytest.param({"anyOf": [{"const": [1]}] * 2000}, A_MILLION, TOO_MUCH, id="const"),
        pytest.param(
            {"anyOf": [{"maxLength": 3}] * 2000}, json.dumps("a" * 900_000), "$: 'aaa", id="a long text"
        ),
        pytest.param(
            {"anyOf": [{"pattern": "^a+$"}] * 2000}, json.dumps("a" * 900_000 + "b"), TOO_MUCH, id="patterns"
        ),
        pytest.param(
            {"items": {"pattern": "1[01]{5000}[^01]"}},
            json.dumps(["10" * 49_000] * 10),
            TOO_MUCH,
            id="a large pattern",
        ),
        pytest.param({"items": {"anyOf": [{"required": NAMES}, {}]}}, EMPTIES, TOO_MUCH, id="required"),
        pytest.param(
            {"items": {"anyOf": [{"dependentRequired": {"a": NAMES}}, {}]}},
            json.dumps([{"a": 1}] * 20_000),
            TOO_MUCH,
            id="dependentRequired",
        ),
        pytest.param(
            {"$schema": DRAFT_7, "items": {"anyOf": [{"dependencies": {"a": NAMES}}, {}]}},
            json.dumps([{"a": 1}] * 20_000),
            TOO_MUCH,
            id="dependencies",
        ),
        pytest.param(
            {"anyOf": [{"contains": {"type": "string"}}] * 1000}, A_MILLION, TOO_MUCH, id="contains"
        ),
        pytest.param(
            {"anyOf": [{"propertyNames": {"maxLength": 1}}] * 2000},
            json.dumps({"k" * 900_000: 1}),
            "$: {'kkk",
            id="names",
        ),
        pytest.param(
            {"items": {"properties": {f"p{number}": {} for number in range(5000)}}},
            EMPTIES,
            TOO_MUCH,
            id="properties",
        ),
        pytest.param(
            {
                "items": {"$ref": "#a"},
                "$defs": {"a": {"$anchor": "a"}, **{name: {} for name in NAMES[:5000]}},
            },
            EMPTIES,
            FITS,
            id="anchors",
        ),
        pytest.param(
            {"uniqueItems": True, "items": {"$ref": "#"}}, nested_items(150), TOO_MUCH, id="unique and nested"
        ),
        pytest.param(
            {"uniqueItems": True},
            json.dumps([(2**61 - 1) * number for number in range(1, 40_000)]),
            FITS,
            id="numbers of one hash",
        ),
        pytest.param(
            {"items": {"allOf": [{"multipleOf": 1e-300}] * 20}},
            json.dumps([1e308] * 20_000),
            "$[0]: 1e+308 is not a multiple",
            id="multipleOf",
        ),
    ],
)
def test_no_schema_and_answer_go_on_for_minutes(schema: dict[str, Any], answer: str, said: str) -> None:
    """Some do where something is looked for one by one or quoted in full, others where it is not paid for."""
    check(schema)

    with ends():
        judged = judge(answer, schema)

    assert str(judged).startswith(said)


def test_numbers_that_are_too_long_to_be_reckoned_with_are_no_json() -> None:
    judged = judge(f"[{'9' * 400}]", {"items": {"multipleOf": 7}})

    assert str(judged) == "$: no JSON: a number is too large"


def test_a_schema_with_more_keywords_than_there_are_is_refused() -> None:
    """Every visit reads them all, and nothing says how many visits an answer asks for."""
    with pytest.raises(SchemaFault, match="more than 100 keywords") as refused:
        check({"items": {f"x{number}": 0 for number in range(101)}})

    assert refused.value.path == ("items",)


def test_a_fault_holds_no_half_characters() -> None:
    judged = judge('{"\\ud800": 1}', {"additionalProperties": {"type": "string"}})

    assert isinstance(judged, Unfit)
    assert judged.faults[0].encode()


def test_of_several_branches_the_one_that_says_most_is_told() -> None:
    circle = {"required": ["kind"], "properties": {"kind": {"const": "circle"}, "r": {"type": "number"}}}
    judged = judge('{"kind": "circle", "r": "wide"}', {"anyOf": [{"type": "string"}, circle]})

    assert str(judged) == "$.r: 'wide' is not of type 'number'"


def test_a_schema_that_asks_for_endless_checks_ends_with_a_fault() -> None:
    """Its budget is per answer."""
    judged = judge('{"a": 1}', doubling(40))

    assert isinstance(judged, Unfit)
    assert "more checks than there may be" in str(judged)


def test_a_recursion_that_only_an_answer_reaches_ends_with_a_fault() -> None:
    schema = {"properties": {"a": {"$ref": "#/properties/a"}}}
    check(schema)

    assert "nested too deep" in str(judge('{"a": 1}', schema))


@given(st.text() | st.binary().map(lambda each: each.decode("latin-1")))
def test_any_text_is_judged(answer: str) -> None:
    """And what fits is never more than was said."""
    judged = judge(answer, {"type": ["object", "array"]})

    assert isinstance(judged, Unfit) or judged.text in answer


@pytest.mark.parametrize(
    ("title", "name"),
    [("Daily digest!", "Daily_digest"), ("日本", "answer"), (5, "answer"), ("x" * 99, "x" * 64)],
)
def test_a_schema_is_called_by_its_title_where_openai_takes_it(title: Any, name: str) -> None:
    assert name_of({"title": title}) == name
