"""What documents name is there, and what is there they name."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_that_security_md_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text()))
    there = {name for file in ROOT.glob("tests/**/*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
    assert named
    assert named <= there
