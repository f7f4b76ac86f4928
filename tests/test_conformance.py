"""The table of conformance is of the tests there are. What became of them is `make conformance`'s to write."""

from tests import conformance
from tests.conformance import RULES, SECTIONS


def test_marks_name_rules():
    assert len(RULES) == sum(map(len, SECTIONS.values())), "an id twice"
    assert conformance.marked().keys() <= RULES.keys(), "a mark that names no rule of tests/rules.txt"


def test_every_rule_has_a_test_or_a_reason():
    tests = conformance.marked()
    assert [rule for rule in RULES if rule not in tests and not RULES[rule].missing] == [], "neither test nor reason"
    assert [rule for rule in RULES if rule in tests and RULES[rule].missing] == [], "a reason, and yet a test"


def test_the_table_names_the_tests_there_are():
    assert conformance.DOCUMENT.read_text() == conformance.renewed({}), "renew it: make conformance"
    assert conformance.FAIL not in {result for _, result in conformance.committed().values()}
