"""`registry dns --export`, loaded by Knot and by BIND: both answer as our server does, about each set of records."""

import json
import re
import shutil
import sys
import time

import pytest

from tests.system.members import Daemon, Mesh, read_lab
from tests.system.network import PROGRAM, await_

REGISTRY, KNOT, BIND = (f"198.51.100.{number}" for number in (10, 53, 54))
ZONE = "wg.internal."
SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = {"knotd": "knot", "kzonecheck": "knot-dnssecutils", "named": "bind9", "named-checkzone": "bind9-utils"}
MISSING = [package for program, package in PROGRAMS.items() if shutil.which(program, path=SBIN) is None]

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


def serve(core):
    """Knot and BIND with /run/zone."""
    link = re.search(r"dev (\S+)", core.run(["ip", "route", "get", REGISTRY]).stdout)[1]
    for address in (KNOT, BIND):
        core.run(["ip", "address", "add", f"{address}/24", "dev", link])
    core.write_file(
        "/run/knot/knot.conf",
        f"server:\n  rundir: /run/knot\n  listen: {KNOT}@53\ndatabase:\n  storage: /run/knot\n"
        f"log:\n  - target: stderr\n    any: warning\nzone:\n  - domain: {ZONE}\n    file: /run/zone\n",
    )
    core.write_file(
        "/run/named/named.conf",
        f'options {{ directory "/run/named"; listen-on {{ {BIND}; }}; listen-on-v6 {{ none; }}; recursion no;'
        " pid-file none; session-keyfile none; };\ncontrols { };\n"
        f'zone "{ZONE}" {{ type primary; file "/run/zone"; check-names fail; }};\n',
    )
    return [
        Daemon(core, ["knotd", "-c", "/run/knot/knot.conf"]),
        Daemon(core, ["named", "-g", "-n", "1", "-c", "/run/named/named.conf"]),
    ]


def settled(mesh):
    """Both members are told of with all their addresses, and nothing has changed for 2 s."""
    core, seen = mesh.lab.hosts["core"], ["", 0.0]

    def is_settled():
        serial = core.run(["dig", "+short", f"@{REGISTRY}", ZONE, "SOA"], check=False).stdout
        if serial != seen[0]:
            seen[:] = serial, time.monotonic()
        listed = core.run(["dig", "+short", f"@{REGISTRY}", f"_wireguard._udp.{ZONE}", "PTR"], check=False).stdout
        return listed.count("\n") == 2 and time.monotonic() - seen[1] > 2

    await_(is_settled, "the zone to settle", 40)


def test_knot_and_bind_answer_as_we_do():
    with read_lab() as lab:
        mesh = Mesh(lab, "--endpoint", REGISTRY)
        core, registry = lab.hosts["core"], lab.hosts["registry"]
        mesh.registry("add", "phone", "--group", "sales")
        mesh.stop_registry()
        mesh.daemon = Daemon(
            registry, [*PROGRAM, "registry", "run", "--dns", f"{REGISTRY}:53", "--public-zone", "full"]
        )
        mesh.daemon.wait_for("started")
        mesh.join("alice", link=mesh.registry("invite", "alice", "--group", "all", "--group", "sales"))
        mesh.join("bob")
        settled(mesh)
        text = mesh.registry("dns", "--export", "-") + "\n"
        assert f"_sales._sub._wireguard._udp.{ZONE}" in text
        core.write_file("/run/zone", text)
        said = core.run(["named-checkzone", "-k", "fail", "-m", "fail", "-n", "fail", ZONE, "/run/zone"]).stdout
        assert said.endswith("OK\n")
        assert said.count("\n") == 2, said
        checked = core.run(["kzonecheck", "-o", ZONE, "/run/zone"])
        assert checked.stdout + checked.stderr == ""
        servers = serve(core)
        for address in (KNOT, BIND):
            soa = ["dig", "+short", "+time=1", f"@{address}", ZONE, "SOA"]
            await_(lambda soa=soa: "hostmaster" in core.run(soa, check=False).stdout, address, 20)
        compare = [sys.executable, "-m", "tests.system.zone_compare", "/run/zone", ZONE, REGISTRY, KNOT, BIND]
        found = json.loads(core.run(compare, timeout=60).stdout)
        print(f"\n{found['sets']} sets of records, {found['absent']} that are not there")
        assert found["differences"] == []
        assert found["sets"] > 20
        for server in servers:
            server.process.terminate()
            server.process.wait()
