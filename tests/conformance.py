"""The rules of the protocol and its tools, and the table that says which tests show them (docs/conformance.md).

A test that would fail without a rule says so: `@pytest.mark.rule("H7", "D12")`. `make conformance` runs the tests so
marked and writes the table; `python -m tests.conformance` only renews which tests it names, and forgets the results of
rules whose tests have changed. As a plugin (`pytest -p tests.conformance`) this module renews it after any run.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeGuard

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs/conformance.md"
PASS, FAIL, SOAK, NOT_RUN, MISSING = "pass", "**FAIL**", "soak", "not run", "not implemented"

_HEAD = """\
# Conformance

What the protocol and its tools ask of the engine, and DNS of the zone's server, rule by rule, and the tests that fail
without it. `make conformance` runs those tests and writes this file; `soak` are shown by tests of `make soak` alone.

{sources}.

{count} rules: {summary}.
"""


class Rule(NamedTuple):
    """One line of rules.txt; `missing` is why no test shows it."""

    id: str
    source: str
    says: str
    missing: str = ""


def _read() -> tuple[dict[str, str], dict[str, list[Rule]]]:
    """What the sources are called, and the rules of each section."""
    sources: dict[str, str] = {}
    sections: dict[str, list[Rule]] = {}
    for line in (ROOT / "tests/rules.txt").read_text().splitlines():
        if line.startswith("## "):
            sections[line[3:]] = []
        elif line.startswith("#"):
            continue
        elif " | " in line:
            list(sections.values())[-1].append(Rule(*line.split(" | ")))
        elif " = " in line:
            short, _, long = line.partition(" = ")
            sources[short] = long
    return sources, sections


SOURCES, SECTIONS = _read()
RULES = {rule.id: rule for rules in SECTIONS.values() for rule in rules}


class Shown(NamedTuple):
    """A test that shows a rule, as pytest names it but without parameters."""

    name: str
    is_soak: bool


def marked() -> dict[str, list[Shown]]:
    """Each rule's tests."""
    found: dict[str, list[Shown]] = {}
    for path in sorted(ROOT.glob("tests/**/test_*.py")):
        for rule, test, is_soak in _marks(path):
            found.setdefault(rule, []).append(Shown(f"{path.relative_to(ROOT)}::{test}", is_soak))
    return found


def _marks(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Rule, test, and whether that is of the soak: for every mark on a test, or on all tests of a class or module."""
    text = path.read_text()
    if "mark.rule" not in text:
        return
    tree = ast.parse(text)
    shared = [
        top.value for top in tree.body if isinstance(top, ast.Assign) and ast.unparse(top.targets[0]) == "pytestmark"
    ]
    seen = [node for mark in shared for node in _rules(mark)]
    for names, decorators in _tests(tree.body, []):
        calls = [call for decorator in shared + decorators for call in _rules(decorator)]
        seen += calls
        marks = (node for mark in shared + decorators for node in ast.walk(mark))
        is_soak = any(isinstance(node, ast.Attribute) and node.attr == "soak" for node in marks)
        rules = dict.fromkeys(ast.literal_eval(rule) for call in calls for rule in call.args)
        yield from ((rule, names, is_soak) for rule in rules)
    assert set(seen) == set(_rules(tree)), f"{path}: a rule mark that is on no test"


def _tests(body: list[ast.stmt], above: list[ast.expr]) -> Iterator[tuple[str, list[ast.expr]]]:
    """Each test's name, its class before it, and the decorators of both."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name, above + node.decorator_list
        elif isinstance(node, ast.ClassDef):
            for name, decorators in _tests(node.body, above + node.decorator_list):
                yield f"{node.name}::{name}", decorators


def _rules(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if _is_rule(node)]


def _is_rule(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "rule"


def _result(tests: list[Shown], outcomes: Mapping[str, str]) -> str:
    """What to say of a rule, by what became of its tests: passed, failed or skipped."""
    if all(test.is_soak for test in tests):
        return SOAK
    became = {outcomes.get(test.name) for test in tests if not test.is_soak}
    return FAIL if "failed" in became else PASS if became == {"passed"} else NOT_RUN


def _cell(rule: Rule, tests: list[Shown]) -> str:
    if not tests:
        return rule.missing
    names = (test.name.split("::") for test in tests)
    return "<br>".join(f"[{name[-1]}](../{name[0]})" for name in names)


def render(tests: Mapping[str, list[Shown]], results: Mapping[str, str]) -> str:
    """The document."""
    counts = dict.fromkeys((PASS, SOAK, FAIL, NOT_RUN, MISSING), 0)
    lines: list[str] = []
    for title, rules in SECTIONS.items():
        lines += ["", f"## {title}", "", "| Rule | What it asks | From | Shown by | Result |", "|---|---|---|---|---|"]
        for rule in rules:
            own = tests.get(rule.id, [])
            result = results[rule.id] if own else MISSING
            counts[result] += 1
            lines.append(f"| {rule.id} | {rule.says} | {rule.source} | {_cell(rule, own)} | {result} |")
    summary = ", ".join(f"{count} {result}" for result, count in counts.items() if count)
    sources = "; ".join(f"**{short}** {long}" for short, long in SOURCES.items())
    return _HEAD.format(sources=sources, count=len(RULES), summary=summary) + "\n".join(lines) + "\n"


def committed() -> dict[str, tuple[str, str]]:
    """Of the document as it is, for each rule: what shows it, and the result."""
    text = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    return {rule: (cell, result) for rule, cell, result in re.findall(r"^\| (\w+) .* \| (.*) \| (.*) \|$", text, re.M)}


def renewed(outcomes: Mapping[str, str]) -> str:
    """The document with the tests there are; where they did not all run and are the same as before, with its result."""
    tests, before = marked(), committed()
    results = {rule: _result(own, outcomes) for rule, own in tests.items()}
    for rule in results.keys() & before.keys():
        cell, result = before[rule]
        if results[rule] == NOT_RUN and cell == _cell(RULES[rule], tests[rule]):
            results[rule] = result
    return render(tests, results)


class _Outcomes:
    """What became of each test, its parameters together: the worst counts."""

    _RANK = ("passed", "skipped", "failed")

    def __init__(self) -> None:
        self.by_test: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            name = report.nodeid.partition("[")[0]
            self.by_test[name] = max(report.outcome, self.by_test.get(name, "passed"), key=self._RANK.index)

    def pytest_sessionfinish(self) -> None:
        DOCUMENT.write_text(renewed(self.by_test))


def pytest_configure(config: pytest.Config) -> None:
    """With xdist, the process that hears every worker's reports is the one without `workerinput`."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Outcomes())


if __name__ == "__main__":
    DOCUMENT.write_text(renewed({}))
