"""What documents name is there, and what is there they name."""

import re
from pathlib import Path

from wgdisco import config
from wgdisco.api import Reason
from wgdisco.dnssd.responder import DROPPED
from wgdisco.registry import stun
from wgdisco.registry.relay import RelayDrop
from wgdisco.status import REMEDIES
from wgdisco.tunnel.events import Drop

ROOT = Path(__file__).parents[1]


def test_every_test_that_security_md_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text()))
    there = {name for file in ROOT.glob("tests/**/*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
    assert named
    assert named <= there


OPERATIONS = (ROOT / "docs/operations.md").read_text()
DROPS = [
    *(one.value for one in (*Drop, *RelayDrop)),
    *(f"dns: {one.value}" for one in DROPPED),
    "dns: queue full",
    "dns: unsent",
    *(f"stun: {one.value}" for one in stun.Drop),
]


def test_operations_md_says_what_to_do_about_every_reason():
    rows = re.findall(r"^\| `([^`]+)` \| .+ \| .+ \|$", section("When a path is not direct"), re.MULTILINE)
    assert set(rows) == {reason.value for reason in Reason} == set(REMEDIES)


def test_operations_md_explains_every_counter():
    assert not [name for name in DROPS if f"`{name}`" not in section("What is dropped")]


def test_operations_md_and_the_man_pages_have_every_variable():
    files = [file for file in ROOT.glob("wgdisco/**/*.py") if "lab" not in file.parts]
    named = {name for file in files for name in re.findall(r"\"(WG(?:DISCO)?_[A-Z_]+)\"", file.read_text())}
    named |= {f"WGDISCO_{name.upper()}" for name in config._VARIABLES}
    assert len(named) > 12
    assert not [name for name in sorted(named) if f"`{name}`" not in section("Environment")]
    pages = "".join(page.read_text() for page in (ROOT / "share/man/man1").iterdir())
    assert not [name for name in sorted(named) if name not in pages]


def test_operations_md_has_every_path_of_the_api():
    routes = re.compile(r"add_(get|post|put|patch|delete)\(\s*\"(/[^\"]*)\"")
    files = [*ROOT.glob("wgdisco/registry/io/*.py"), ROOT / "wgdisco/tunnel/io/control.py"]
    named = {f"{method.upper()} {path}" for file in files for method, path in routes.findall(file.read_text())}
    assert len(named) > 10
    told = section("HTTP paths").replace("/NAME`", "/{name}`")
    assert not [name for name in sorted(named) if f"`{name}`" not in told]


def test_links_between_documents_lead_somewhere():
    for file in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        text = re.sub(r"```.*?```", "", file.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            if "://" in path:
                continue
            there = file.parent / path if path else file
            assert there.exists(), f"{file.name}: {target}"
            assert not anchor or anchor in anchors(there), f"{file.name}: {target}"


def anchors(file: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def section(title: str) -> str:
    return OPERATIONS.split(f"\n## {title}\n")[1].partition("\n## ")[0]
