"""How long a classification takes, over every recorded answer of `tests/provider_errors`; printed as JSON."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median

import yaml

from jobs.names import ProviderName
from jobs.providers.answer import Answer, Origin
from jobs.providers.classify import classify
from jobs.providers.rules import Rules

RECORDED = Path(__file__).parents[2] / "tests" / "provider_errors"
NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
TIMES = 30


def recorded() -> list[tuple[ProviderName, Answer]]:
    """Return every recorded answer with the provider that gave it."""
    found = []
    for path in sorted(RECORDED.glob("*/*.yaml")):
        # CSafeLoader is SafeLoader in C: it makes plain values only.
        case = yaml.load(path.read_text("utf-8"), Loader=yaml.CSafeLoader)
        origin = Origin(case.get("origin", "model"))
        answer = Answer(case["status"], case.get("headers", {}), case["body"].encode(), origin=origin)
        found.append((ProviderName(path.parent.name), answer))
    return found


def seconds(provider: ProviderName, answer: Answer, rules: Rules) -> float:
    """Return the CPU time of one classification of this answer: the median of several."""
    spent = []
    for _ in range(TIMES):
        began = time.thread_time()
        classify(answer, provider, rules, now=NOW)
        spent.append(time.thread_time() - began)
    return median(spent)


def main() -> None:
    """Measure all of them; print the mean and the longest."""
    rules = Rules.load_builtin()
    answers = recorded()
    for provider, answer in answers:
        classify(answer, provider, rules, now=NOW)
    each = [seconds(provider, answer, rules) for provider, answer in answers]
    print(json.dumps({"answers": len(each), "mean": fmean(each), "longest": max(each)}))


if __name__ == "__main__":
    main()
