"""A hub on a host whose firewall drops: opened by `auto`, or by the commands that `print` prints."""

import json
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system import test_hub as hub
from tests.system.network import await_
from wgdisco.lab.world import World

pytestmark = hub.pytestmark
LISTEN = """
import socket
s = socket.create_server(("", 7000)); print("listening", flush=True)
while True: s.accept()[0].close()
"""
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 7000), 1).close()"
PROCESS = [sys.executable, str(Path(__file__).with_name("firewall_process.py"))]

NFT = """
nft -f - <<'END'
table inet filter {
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        iifname "lo" accept
        tcp dport 22 accept
    }
    chain forward { type filter hook forward priority 0; policy drop; }
}
END
"""
NFT_REJECT = """
nft -f - <<'END'
table inet mine {
    chain allowed { tcp dport 22 accept; }
    chain inwards {
        type filter hook input priority 10;
        ct state vmap { established : accept, related : accept }
        jump allowed
        counter reject with icmpx admin-prohibited
    }
    chain through { type filter hook forward priority 10; drop; }
}
END
"""
IPTABLES = """
for command in iptables ip6tables; do
    $command -P INPUT DROP
    $command -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    $command -A INPUT -p tcp --dport 22 -j ACCEPT
    $command -A FORWARD -j REJECT
done
"""
# As Docker 27 leaves them
DOCKER = """
iptables -P FORWARD DROP
for chain in DOCKER DOCKER-USER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2; do iptables -N $chain; done
iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -j DOCKER-ISOLATION-STAGE-1
iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -o docker0 -j DOCKER
iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
iptables -A FORWARD -i docker0 -o docker0 -j ACCEPT
iptables -A DOCKER-USER -j RETURN
iptables -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
iptables -A DOCKER-ISOLATION-STAGE-1 -j RETURN
iptables -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
iptables -A DOCKER-ISOLATION-STAGE-2 -j RETURN
"""
# The real one, with settings of its own: nothing of the machine's is written.
UFW = """
cp -a /etc/ufw /run/etc-ufw; mount --bind /run/etc-ufw /etc/ufw
if [ -d /var/lib/ufw ]; then mount -t tmpfs tmpfs /var/lib/ufw; fi
ufw --force enable
ufw allow 22/tcp
"""
FIREWALLS = {
    "nft": (NFT, "nft", "nft"),
    "nft-reject": (NFT_REJECT, "nft", "nft"),
    "iptables": (IPTABLES, "iptables", "iptables"),
    "docker": (DOCKER, "iptables", "Docker"),
    "ufw": (UFW, "ufw", "ufw"),
}


@pytest.fixture(params=FIREWALLS)
def walled(request, tmp_path):
    """The hub's network with that firewall on the registry, and the tool's name."""
    rules, program, tool = FIREWALLS[request.param]
    if shutil.which(program) is None and shutil.which(program, path="/usr/sbin:/sbin") is None:
        pytest.skip(f"{program} is not installed")
    with World(["registry", "server", *hub.DEVICES]) as world:
        network = hub.Network(world, tmp_path)
        network.hosts["registry"].run(["sh", "-ec", rules])
        network.start()
        for name in ("phone", "tablet"):
            network.bring_up(name)
        with listening(network, "tablet"), listening(network, "server"):
            yield network, tool
        network.end()


@contextmanager
def listening(network, host):
    with hub.running(network.hosts[host], sys.executable, "-c", LISTEN) as process:
        assert process.stdout.readline() == "listening\n"
        yield


def ruleset(network, tool):
    """The registry's rules, without counters, handles and our hub's own table. ufw's are what it says was added."""
    if tool == "ufw":  # a reload gives it chains that it did not make when it was enabled
        return network.hosts["registry"].run(["ufw", "show", "added"]).stdout
    kept = []
    for item in json.loads(network.hosts["registry"].run(["nft", "-j", "list", "ruleset"]).stdout)["nftables"]:
        ((kind, value),) = item.items()
        if kind in {"chain", "rule"} and not value["table"].startswith("wgdisco_"):
            value.pop("handle")
            value["expr"] = [part for part in value.get("expr", []) if "counter" not in part]
            kept.append(item)
    return kept


def connects(network, address):
    """With TCP: ufw lets pings through in any case."""
    return network.hosts["phone"].run([sys.executable, "-c", CONNECT, address], check=False).returncode == 0


def work(network):
    return connects(network, "10.7.8.3") and connects(network, "203.0.113.2")


def firewall(network, what):
    return network.hosts["registry"].run([*PROCESS, what]).stdout


def test_auto_opens_and_takes_away_again(walled):
    network, tool = walled
    assert not work(network)
    before = ruleset(network, tool)
    assert set(firewall(network, "open").splitlines()) == {f"opened {tool}"}
    await_(lambda: work(network), "traffic through the hub", 15)
    opened = ruleset(network, tool)
    assert firewall(network, "open") == ""
    assert ruleset(network, tool) == opened
    assert firewall(network, "close").count("closed ") >= 2
    assert ruleset(network, tool) == before
    assert not connects(network, "10.7.8.3")
    assert firewall(network, "close") == ""


def test_print_changes_nothing_and_prints_what_works(walled):
    network, tool = walled
    before = ruleset(network, tool)
    lines = firewall(network, "print").splitlines()
    assert ruleset(network, tool) == before
    assert lines[0].startswith(f"this host's firewall ({tool}, ")
    commands = [line.strip().removeprefix("sudo ") for line in lines if line.startswith("  ")]
    network.hosts["registry"].run(["sh", "-ec", "\n".join(commands)])
    await_(lambda: work(network), "traffic through the hub", 15)
    assert firewall(network, "print") == ""
