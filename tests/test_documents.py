"""What documents name is there, and what is there they name."""

import argparse
import re
from pathlib import Path

from wgdisco.cli import build_parser

ROOT = Path(__file__).parents[1]


def test_every_test_that_security_md_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text()))
    there = {name for file in ROOT.glob("tests/**/*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
    assert named
    assert named <= there


def verbs(parser, before=()):
    """Each verb with the words before it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield (*before, name)
                yield from verbs(below, (*before, name))


def test_the_man_page_has_every_verb():
    synopsis = (ROOT / "docs/wgdisco.1").read_text().partition(".SH DESCRIPTION")[0]
    words = {tuple(line.split()[2:]) for line in re.sub(r"\\f[RB]\|?", " ", synopsis).splitlines() if line[:3] == ".B "}
    there = {(*line[:1], word) for line in words for word in line[1:]} | {(word,) for line in words for word in line}
    assert set(verbs(build_parser())) <= there
