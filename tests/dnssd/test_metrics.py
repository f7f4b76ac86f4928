"""What a process tells that strangers talk to becomes no more names than an honest one has."""

from collections import Counter

from wgdisco.dnssd import metrics
from wgdisco.dnssd.responder import Outcome
from wgdisco.dnssd.tally import Kind, joined


def test_every_result_is_there_from_the_beginning():
    (answers, *_), drops = metrics.families(joined(), 0), metrics.drops(joined())
    assert {value for _, value in answers.samples} == {0}
    assert len(answers.samples) + len(drops) == len(Outcome)
    assert "limit_and_no_question" in drops


def test_counts_are_by_name():
    tally = joined({Kind.ANSWERS: Counter({"nxdomain": 3}), Kind.DROPS: Counter({"queue full": 2})})
    answers = dict(metrics.families(tally, 7)[0].samples)
    assert answers[("nxdomain",)] == 3
    assert metrics.drops(tally)["queue_full"] == 2


def test_what_it_makes_up_is_one_name():
    made_up = Counter({f"reason {number}": 1 for number in range(250)} | {"x" * 500: 1, '"} 1\nevil{a="': 1, "": 1})
    drops = metrics.drops(joined({Kind.DROPS: made_up}))
    assert len(drops) <= 33
    assert sum(drops.values()) == 253
    assert all(name.replace("_", "").isalnum() and len(name) <= 40 for name in drops)
