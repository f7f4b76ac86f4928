"""wg-quick as it is, with WG_QUICK_USERSPACE_IMPLEMENTATION=wgdisco-tunnel, on both ends of a veth (rule Q1).

::

    left  10.9.0.1, fd09::1 ───────── tunnel ────────── 10.9.0.2, fd09::2  right   10.77.0.1 and fd77::1 are behind it
          192.0.2.1, 2001:db8::1  ──── veth ────  192.0.2.2, 2001:db8::2
"""

import os
import re
import shutil
import sys
from contextlib import contextmanager

import pytest

from tests.system.network import await_
from wgdisco.lab.world import World

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(shutil.which("wg-quick") is None, reason="wg-quick (wireguard-tools) is not installed"),
    pytest.mark.skipif(os.path.exists("/sys/module/wireguard"), reason="wg-quick uses the kernel's WireGuard here"),
]

PROGRAM = f"""#!/bin/sh
exec {sys.executable} -c 'import sys; from wgdisco.tunnel.cli import main; sys.exit(main())' "$@"
"""
QUICK = {"WG_QUICK_USERSPACE_IMPLEMENTATION": "/run/lab/wgdisco-tunnel", "WG_ENDPOINT_RESOLUTION_RETRIES": "0"}
CHANNEL = ["ip", "link", "add", "veth0", "type", "veth", "peer", "veth0", "netns"]


class Ends:
    """Both hosts, each with a key and a file for wg-quick named after its interface."""

    def __init__(self, world):
        self.left, self.right = world.hosts["left"], world.hosts["right"]
        self.left.run([*CHANNEL, str(self.right.inner_pid)])
        for number, host in enumerate((self.left, self.right), 1):
            for address in (f"192.0.2.{number}/24", f"2001:db8::{number}/64"):
                host.run(["ip", "address", "add", address, "dev", "veth0", *(["nodad"] if ":" in address else [])])
            host.run(["ip", "link", "set", "veth0", "up"])
            host.run(["ip", "link", "set", "lo", "up"])
            host.write_file("/run/lab/wgdisco-tunnel", PROGRAM)
            host.run(["chmod", "755", "/run/lab/wgdisco-tunnel"])
        self.keys = [self.left.run(["wg", "genkey"]).stdout.strip() for _ in range(2)]
        self.public = [self.left.run(["wg", "pubkey"], text=key).stdout.strip() for key in self.keys]
        self.psk = self.left.run(["wg", "genpsk"]).stdout.strip()

    def conf(self, host, interface, text):
        host.write_file(f"/run/lab/{interface}.conf", text.lstrip("\n"))

    def quick(self, host, verb, interface, check=True):
        done = host.popen(["wg-quick", verb, f"/run/lab/{interface}.conf"], stdout=-1, stderr=-1, env=QUICK)
        out, err = done.communicate(timeout=30)
        assert not check or done.returncode == 0, out + err
        return out + err

    def state(self, host):
        """Everything wg-quick may have touched, as ip and nft print it."""
        looks = ["ip -br link", "ip -4 rule", "ip -6 rule", "ip -4 route show table all", "nft list tables"]
        looks += ["ls -A /run/wireguard"]
        return "\n".join(host.run(look.split(), check=False).stdout for look in looks)


@pytest.fixture
def ends():
    with World(["left", "right"]) as world:
        yield Ends(world)


@contextmanager
def right_is_up(ends):
    ends.conf(
        ends.right,
        "wgr0",
        f"""
[Interface]
Address = 10.9.0.2/24, fd09::2/64
ListenPort = 51820
PrivateKey = {ends.keys[1]}
Table = off
PostUp = ip address add 10.77.0.1/32 dev lo; ip address add fd77::1/128 dev lo

[Peer]
PublicKey = {ends.public[0]}
PresharedKey = {ends.psk}
AllowedIPs = 10.9.0.1/32, fd09::1/128
""",
    )
    ends.quick(ends.right, "up", "wgr0")
    yield
    ends.quick(ends.right, "down", "wgr0")


@pytest.mark.rule("Q1")
def test_a_whole_file_up_and_down(ends):
    """Address, MTU, hooks with %i, PSK, keepalive and routes come; all of it goes, and the hooks of the end run."""
    before = ends.state(ends.left)
    with right_is_up(ends):
        ends.conf(
            ends.left,
            "wgl0",
            f"""
[Interface]
Address = 10.9.0.1/24
Address = fd09::1/64
PrivateKey = {ends.keys[0]}
MTU = 1300
PreUp = echo pre >>/run/lab/hooks
PostUp = echo up %i $(ip link show %i | grep -o 'mtu [0-9]*') >>/run/lab/hooks # not a comment to bash
PreDown = echo leaving %i >>/run/lab/hooks
PostDown = echo down %i >>/run/lab/hooks

[Peer]
PublicKey = {ends.public[1]}
PresharedKey = {ends.psk}
Endpoint = 192.0.2.2:51820
AllowedIPs = 10.9.0.2/32, 10.77.0.0/16, fd09::2/128, fd77::/64
PersistentKeepalive = 25
""",
        )
        said = ends.quick(ends.left, "up", "wgl0")
        assert "/run/lab/wgdisco-tunnel wgl0" in said
        for target in ("10.9.0.2", "10.77.0.1", "fd09::2", "fd77::1"):
            assert " 0% packet loss" in ends.left.run(["ping", "-q", "-c1", "-W2", target]).stdout
        assert "10.77.0.0/16 dev wgl0" in ends.left.run(["ip", "route"]).stdout
        assert "mtu 1300" in ends.left.run(["ip", "link", "show", "wgl0"]).stdout
        assert "already exists" in ends.quick(ends.left, "up", "wgl0", check=False)
        ends.quick(ends.left, "down", "wgl0")
    hooks = ends.left.run(["cat", "/run/lab/hooks"]).stdout.splitlines()
    assert hooks == ["pre", "up wgl0 mtu 1300", "leaving wgl0", "down wgl0"]
    await_(lambda: ends.state(ends.left) == before, "all of it to go")


@pytest.mark.rule("Q1", "E4")
@pytest.mark.parametrize("outer", ["192.0.2.2", "[2001:db8::2]"], ids=["IPv4 outside", "IPv6 outside"])
def test_everything_through_the_tunnel_by_policy_routing(ends, outer):
    """0.0.0.0/0 and ::/0: what the engine sends is marked and so does not go into the tunnel itself."""
    before = ends.state(ends.left)
    for address in ("192.0.2.2", "2001:db8::2"):
        ends.left.run(["ip", "route", "add", "default", "via", address, "dev", "veth0"])
    with_default = ends.state(ends.left)
    with right_is_up(ends):
        ends.conf(
            ends.left,
            "wgl0",
            f"""
[Interface]
Address = 10.9.0.1/32, fd09::1/128
PrivateKey = {ends.keys[0]}

[Peer]
PublicKey = {ends.public[1]}
PresharedKey = {ends.psk}
Endpoint = {outer}:51820
AllowedIPs = 0.0.0.0/0, ::/0
""",
        )
        ends.quick(ends.left, "up", "wgl0")
        assert ends.left.run(["wg", "show", "wgl0", "fwmark"]).stdout == "0xca6c\n"
        for target in ("10.77.0.1", "fd77::1"):
            assert f"{target} " in ends.left.run(["ip", "route", "get", target]).stdout
            assert "dev wgl0 table 51820" in ends.left.run(["ip", "route", "get", target]).stdout
            assert " 0% packet loss" in ends.left.run(["ping", "-q", "-c2", "-i0.1", "-W2", target]).stdout
        assert ends.left.run(["wg", "show", "wgl0", "transfer"]).stdout.split()[1] != "0"
        # by default the MTU is the way's less 80
        assert "mtu 1420" in ends.left.run(["ip", "link", "show", "wgl0"]).stdout
        ends.quick(ends.left, "down", "wgl0")
    await_(lambda: ends.state(ends.left) == with_default, "all of it to go")
    assert before != with_default


@pytest.mark.rule("Q1")
def test_save_and_saveconfig_write_what_the_engine_says(ends):
    ends.conf(
        ends.left,
        "wgl0",
        f"""
[Interface]
Address = 10.9.0.1/24
ListenPort = 7
PrivateKey = {ends.keys[0]}
SaveConfig = true
""",
    )
    ends.quick(ends.left, "up", "wgl0")
    peer = [
        "peer",
        ends.public[1],
        "endpoint",
        "192.0.2.2:9",
        "allowed-ips",
        "10.9.0.2/32",
        "persistent-keepalive",
        "5",
    ]
    ends.left.run(["wg", "set", "wgl0", *peer])
    ends.quick(ends.left, "down", "wgl0")
    saved = ends.left.run(["cat", "/run/lab/wgl0.conf"]).stdout
    assert re.search(r"ListenPort = 7\n", saved)
    for line in (f"PrivateKey = {ends.keys[0]}", f"PublicKey = {ends.public[1]}", "Endpoint = 192.0.2.2:9"):
        assert f"{line}\n" in saved
    assert "AllowedIPs = 10.9.0.2/32\nEndpoint = 192.0.2.2:9\nPersistentKeepalive = 5\n" in saved
