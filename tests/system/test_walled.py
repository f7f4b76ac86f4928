"""`init` and `join` on hosts whose own firewall drops what comes in and what is forwarded, and `add --direct-to`."""

import shutil
import subprocess
import sys

import pytest

from tests.system.members import Mesh, read_lab
from tests.system.network import PROGRAM, await_
from tests.system.test_firewall import CONNECT, DOCKER, LISTEN, UFW
from wgdisco.errors import LocalError

NEEDED = ("wireguard-go", "wg-quick", "ufw", "iptables")
MISSING = [tool for tool in NEEDED if shutil.which(tool, path="/usr/bin:/usr/sbin:/bin:/sbin") is None]
pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

# Each lets in what serves on TCP 7000, and drops everything else that nobody here has asked for.
WALLS = {
    "nft": """
        nft -f - <<'END'
        table inet filter {
            chain input {
                type filter hook input priority 0; policy drop;
                ct state established,related accept
                iifname "lo" accept
                tcp dport 7000 accept
            }
            chain forward { type filter hook forward priority 0; policy drop; }
        }
END
    """,
    "docker": f"""{DOCKER}
        iptables -P INPUT DROP
        iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables -A INPUT -i lo -j ACCEPT
        iptables -A INPUT -p tcp --dport 7000 -j ACCEPT
    """,
    "ufw": f"""{UFW}
        ufw allow 7000/tcp
    """,
}
TOLD = {
    "nft": ["sudo nft insert rule inet filter"],
    "docker": ["-I DOCKER-USER", "-I INPUT"],
    "ufw": ["sudo ufw allow"],
}


def up(lab, text):
    lab.hosts["bob"].write_file("/run/lab/device.conf", text)
    lab.hosts["bob"].run(
        ["env", "WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go", "wg-quick", "up", "/run/lab/device.conf"]
    )


def down(lab):
    lab.hosts["bob"].run(["wg-quick", "down", "/run/lab/device.conf"])


def rules(host):
    """What the tools of a host say; a tool that has nothing to say is none."""
    return host.run(["sh", "-c", "nft -s list ruleset; iptables -S; ufw show added 2>/dev/null || true"]).stdout


@pytest.mark.parametrize("wall", WALLS)
def test_print_tells_the_command_and_auto_opens(wall):
    with read_lab("public", "port-restricted") as lab:
        vps, alice = lab.hosts["registry"], lab.hosts["alice"]
        for host in (vps, alice):
            host.run(["sh", "-ec", WALLS[wall]])
        before = rules(vps)
        said = vps.run([*PROGRAM, "registry", "init", "--firewall", "print"]).stderr
        assert all(command in said for command in TOLD[wall]), said
        assert rules(vps) == before
        mesh = Mesh(lab, "--firewall", "auto")
        assert "wgdisco-mesh" in rules(vps)

        mesh.join("alice", "--firewall", "print")
        assert TOLD[wall][-1] in "".join(mesh.members["alice"].err)
        assert "wgdisco-mesh" not in rules(alice)
        endpoint = f"{lab.outside('alice')}:{mesh.status('alice')['listen_port']}"
        mesh.registry("set", "alice", "endpoint", endpoint)
        connect = [sys.executable, "-c", CONNECT, mesh.address("alice")]
        with alice.popen([sys.executable, "-c", LISTEN], stdout=subprocess.PIPE) as listener:
            assert listener.stdout.readline() == "listening\n"

            def connects():
                return lab.hosts["bob"].run(connect, check=False).returncode == 0

            up(lab, mesh.registry("add", "phone", "--conf"))
            await_(connects, "the phone to reach alice through the registry's firewall", 15)
            down(lab)
            up(lab, mesh.registry("add", "tablet", "--conf", "--direct-to", "alice"))
            assert not connects(), "alice's firewall drops what the tablet sends her"
            mesh.verb("alice", "down")
            mesh.stay("alice", "join", "--network", "mesh", "--firewall", "auto")
            mesh.members["alice"].wait_for("PEER ")
            assert "wgdisco-mesh" in rules(alice)
            await_(connects, "the tablet to reach alice without the registry", 15)
            seen = lab.hosts["bob"].run(["wg", "show", "device", "endpoints"]).stdout
            assert endpoint in seen
            listener.kill()

        mesh.verb("alice", "leave", "--yes")
        assert "wgdisco-mesh" not in rules(alice)
        mesh.stop_registry()
        mesh.registry("uninstall", "--yes")
        assert "wgdisco-mesh" not in rules(vps)


def test_after_a_reboot_that_forgot_the_rules_a_daemon_opens_anew():
    """What a reboot leaves of nft's and iptables' rules is what was written elsewhere: ours are not."""
    with read_lab("public", "port-restricted") as lab:
        vps = lab.hosts["registry"]
        mesh = Mesh(lab)
        mesh.stop_registry()
        vps.run(["sh", "-ec", WALLS["docker"]])
        mesh.start_registry()
        opened = rules(vps)
        assert "wgdisco-mesh" in opened
        mesh.join("alice")
        mesh.stop_registry("kill")
        mesh.start_registry()
        assert rules(vps).count("wgdisco-mesh") == opened.count("wgdisco-mesh")
        mesh.stop_registry()
        assert "wgdisco-mesh" not in rules(vps)


def test_none_looks_at_nothing_and_a_member_behind_its_wall_gets_out_all_the_same():
    with read_lab() as lab:
        lab.hosts["alice"].run(["sh", "-ec", WALLS["nft"]])
        mesh = Mesh(lab, "--firewall", "none")
        mesh.join("alice", "--firewall", "none")
        assert "firewall" not in "".join(mesh.members["alice"].err)
        assert mesh.peers("alice")["registry"]["path"] == "direct"
        mesh.verb("alice", "down")
        mesh.stay("alice", "join", "--network", "mesh")
        mesh.members["alice"].wait_for("PEER ")
        assert "wgdisco-mesh" not in rules(lab.hosts["alice"]), "it was said once"


def test_direct_to_says_what_it_needs():
    with read_lab() as lab:
        mesh = Mesh(lab)
        mesh.join("alice")
        with pytest.raises(LocalError, match="wgdisco registry set alice endpoint ADDRESS:PORT"):
            mesh.registry("add", "phone", "--conf", "--direct-to", "alice")
        with pytest.raises(LocalError, match="there is no member 'zoe'"):
            mesh.registry("add", "phone", "--conf", "--direct-to", "zoe")
        assert "phone" not in mesh.registry("list")
