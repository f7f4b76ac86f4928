"""What the systemd units allow a daemon, without systemd: their capabilities, and the group that may ask for status."""

import shutil
from pathlib import Path

import pytest

from tests.system.network import PROGRAM, Network, await_
from wgdisco.lab.topology import Lab

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)"),
]

UNITS = Path(__file__).parents[2] / "examples" / "systemd"
GROUP = "4242"


def settings(unit: str) -> dict[str, str]:
    lines = (UNITS / unit).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


@pytest.mark.parametrize(
    ("host", "unit"), [("registry", "wgdisco-registry.service"), ("alice", "wgdisco-join@.service")]
)
def test_the_group_may_ask_for_status(host, unit):
    unit_settings = settings(unit)
    assert unit_settings["RuntimeDirectoryMode"] == "0755"
    bounding = ["-all", *(f"+{name[4:].lower()}" for name in unit_settings["CapabilityBoundingSet"].split())]
    with Lab() as lab, Network(lab) as network:
        machine = lab.hosts[host]
        groups = f"(cat /etc/group; echo wgdisco:x:{GROUP}:) >/run/group; mount -B /run/group /etc/group"
        machine.run(["sh", "-ec", groups])
        confined = ["setpriv", "--inh-caps=-all", f"--bounding-set={','.join(bounding)}", "--no-new-privs"]
        machine.popen([*confined, *network.command(host)])
        ask = ["setpriv", "--reuid=12345", "--regid=12345", f"--groups={GROUP}", *PROGRAM, "status"]
        await_(lambda: f"interface: {host}" in machine.run(ask, check=False).stdout, "a status for the group", 15)
