"""What an answer means: the one place where a status, headers and a body become an error class.

The order of trust is the rules' (`rules.py`); this module prepares the evidence, and says what is meant
where no rule speaks. It is pure, and raises for no status, header or body.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from jobs.errors import ErrorClass
from jobs.names import ProviderName
from jobs.providers import api_modes
from jobs.providers.answer import Answer, Origin, TransportFailure, Verdict
from jobs.providers.error_body import Body, Layer, Shape, event_headers, first_object, layers_of, read_body
from jobs.providers.rules import Decision, Evidence, Rules
from jobs.providers.wait_hints import should_retry, wait_hint
from jobs.request import Completion
from jobs.text import well_formed

_MESSAGE_LENGTH: Final = 200
_OK, _MULTIPLE_CHOICES = 200, 300

_TRANSPORT: Final[Mapping[TransportFailure, tuple[ErrorClass, str]]] = {
    TransportFailure.TIMEOUT: (ErrorClass.TIMEOUT, "*/timeout"),
    TransportFailure.CONNECTION: (ErrorClass.CONNECTION, "*/connection"),
    TransportFailure.TLS: (ErrorClass.CONNECTION, "*/tls"),
    TransportFailure.UNSENDABLE: (ErrorClass.CONFIG_ERROR, "*/unsendable"),
}

# Lacks of a document that may itself be the error, without an `error` in it.
_BARE: Final = frozenset({"no-choices", "status-missing"})

_WAITABLE: Final = frozenset(
    {
        ErrorClass.RATE_LIMIT,
        ErrorClass.RATE_LIMIT_UPSTREAM,
        ErrorClass.QUOTA_WINDOW,
        ErrorClass.QUOTA_BILLING,
        ErrorClass.OVERLOADED,
        ErrorClass.SERVER_ERROR,
        ErrorClass.AUTH_UNAVAILABLE,
        ErrorClass.UNKNOWN,
    }
)


def classify(answer: Answer, provider: ProviderName, rules: Rules, *, now: datetime) -> Verdict:
    """Return what `answer` means; `error_class` is None for a proved success. `now` is aware.

    `auth_dead` from a model endpoint says that the words claim a death. An OAuth login is refreshed first all
    the same: only a refresh that succeeded and the same words after it prove it.
    """
    if answer.status is None:
        return _no_answer(answer)
    body = read_body(answer.body)
    if answer.origin is Origin.TOKEN and body.shape is Shape.EVENTS:
        body = Body(Shape.TEXT)  # a token endpoint speaks JSON: anything else proves no death
    if _OK <= answer.status < _MULTIPLE_CHOICES:
        lack = _lack(body, answer.origin)
        if lack is None:
            return Verdict(None, "*/completed")
        rule, said = lack
    else:
        rule, said = "*/unknown", body.document
    evidence = _evidence(answer, body, said)
    decision = rules.decide(provider, answer.origin, evidence) or _undecided(answer, evidence, rule)
    return _verdict(decision, evidence, provider, rules, now=now)


def completion_of(answer: Answer) -> Completion:
    """Return the text of an answer that `classify` has found to be no error; raises ValueError for any other.

    It reads the body exactly as `classify` does: what one takes for an answer the other can read.
    """
    document = first_object(read_body(answer.body).document)
    if document is None:
        raise ValueError("no proved answer: the body holds no JSON object")
    return api_modes.completion(document)


def _no_answer(answer: Answer) -> Verdict:
    if answer.failure is None:
        return Verdict(ErrorClass.UNKNOWN, "*/no-answer")
    error_class, rule = _TRANSPORT[answer.failure]
    return Verdict(
        ErrorClass.AUTH_UNAVAILABLE if answer.origin is Origin.TOKEN else error_class,
        rule,
        message=" ".join(answer.detail.split())[:_MESSAGE_LENGTH],
    )


def _lack(body: Body, origin: Origin) -> tuple[str, Any] | None:
    """Return why a 2xx answer is no success, and the error that says more; None for a success."""
    if body.shape is not Shape.JSON:
        return f"*/{body.shape.value}-body", body.document
    document = first_object(body.document)
    if document is None:
        return "*/no-object", None
    if origin is Origin.TOKEN:
        return ("*/embedded-error", document) if document.get("error") else None
    lack = api_modes.shortfall(document)
    if lack is None:
        return None
    wraps = lack.error is not None and document.get("error") is not None
    said = document if wraps or lack.reason in _BARE else lack.error
    return f"*/{lack.reason}", said


def _evidence(answer: Answer, body: Body, said: Any) -> Evidence:
    """Gather the layers; the real status stands on the outermost, an inner one may state its own."""
    real = answer.status if answer.status is not None else 0
    stated_counts = _OK <= real < _MULTIPLE_CHOICES
    layers = layers_of(said) or (Layer(message=body.text),)
    outer = layers[-1]
    status = (outer.status or real) if stated_counts else real
    settled = (
        *(replace(layer, status=layer.status or status) for layer in layers[:-1]),
        replace(outer, status=status),
    )
    headers = {**answer.headers, **event_headers(first_object(body.document))}
    return Evidence(settled, headers, body.shape)


def _undecided(answer: Answer, evidence: Evidence, rule: str) -> Decision:
    is_success = answer.status is not None and _OK <= answer.status < _MULTIPLE_CHOICES
    if answer.origin is Origin.TOKEN:
        error_class = ErrorClass.AUTH_UNAVAILABLE
    else:
        error_class = ErrorClass.INVALID_RESPONSE if is_success else ErrorClass.UNKNOWN
    return Decision(error_class, rule, evidence.layers[-1])


def _verdict(
    decision: Decision, evidence: Evidence, provider: ProviderName, rules: Rules, *, now: datetime
) -> Verdict:
    layers = (decision.layer, *evidence.layers)
    codes = (rules.spoken_code(provider, layer) for layer in layers)
    message = next((layer.message for layer in evidence.layers if layer.message), "")
    wait = None
    if decision.error_class in _WAITABLE:
        objects = [layer.data for layer in evidence.layers]
        said = "\n".join(dict.fromkeys(layer.message for layer in evidence.layers))
        wait = wait_hint(
            evidence.headers, objects, said, provider=provider, error_class=decision.error_class, now=now
        )
    return Verdict(
        error_class=decision.error_class,
        rule=decision.rule,
        code=next((well_formed(code) for code in codes if code), None),
        message=" ".join(well_formed(message).split())[:_MESSAGE_LENGTH],
        wait=wait,
        should_retry=should_retry(evidence.headers),
    )
