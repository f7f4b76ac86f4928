"""Who forgot sudo is told so by every verb, in one line."""

import json
import sys

import pytest

from tests.system.network import PROGRAM
from wgdisco.lab.topology import Lab

pytestmark = pytest.mark.usefixtures("needs_lab")
LINK = f"wgdisco://198.51.100.10:51820/1/{'A' * 43}/{'A' * 22}"
VERBS = [
    "registry init",
    "registry invite x",
    "registry add x",
    "registry list",
    "registry set also-port 443",
    "registry backup -",
    "registry restore /var/lib/wgdisco/registry.db",
    "registry check",
    "registry uninstall --yes",
    "registry run",
    f"join {LINK}",
    "join --network mesh",
    "up",
    "down mesh",
    "leave --yes",
    "rotate-key",
    "accept x",
]
# Each argument is a command line. All is imported before: where this checkout is, nobody may be let in.
AS_NOBODY = """
import contextlib, io, json, os, sys
from wgdisco import cli, member_verbs, registry_verbs
from wgdisco.registry.io import managed
os.setgroups([]), os.setgid(65534), os.setuid(65534)
for line in sys.argv[1:]:
    sys.argv = ["wgdisco", *line.split()]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = cli.main()
    print(json.dumps([line, code, out.getvalue(), err.getvalue()]))
"""


def test_without_sudo_every_verb_says_so():
    with Lab() as lab:
        vps = lab.hosts["registry"]
        vps.run([*PROGRAM, "registry", "init"])
        said = [json.loads(line) for line in vps.run([sys.executable, "-c", AS_NOBODY, *VERBS]).stdout.splitlines()]
    assert [line for line, *_ in said] == VERBS
    for line, code, out, err in said:
        assert (code, out, err.count("\n")) == (1, "", 1), (line, code, out, err)
        assert err.startswith("wgdisco: no access to /var/lib/wgdisco"), (line, err)
        assert err.endswith(": use sudo\n"), (line, err)
