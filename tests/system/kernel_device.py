"""Run inside scripts/kernel-vm: our netlink against a kernel's own WireGuard, with `wg` as the judge.

usage: python -m tests.system.kernel_device PREFIXES PEERS
"""

import socket
import subprocess
import sys
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.io.driven import remove_left
from wgdisco.tunnel.io.kernel import KernelWireGuard

OWN = PrivateKey(bytes(range(32)))


def wg(*command: str) -> list[list[str]]:
    """What `wg` says, in words."""
    done = subprocess.run(["wg", *command], check=True, capture_output=True, text=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def key(number: int) -> PublicKey:
    return PublicKey(b"\1" + number.to_bytes(31, "big"))


def peer(number: int, prefixes: int = 1) -> PeerConfig:
    networks = tuple(IPv4Network((10 << 24 | number * prefixes + n << 4, 28)) for n in range(prefixes))
    six = IPv6Network(f"fd00:{number & 0xFFFF:x}::/64")
    endpoint = Endpoint.from_text("192.0.2.7:1234" if number % 2 else "[2001:db8::7]:1234")
    return PeerConfig(key(number), PresharedKey(bytes([7] * 32)), endpoint, (*networks, six), 25)


def check_same(device: KernelWireGuard, config: DeviceConfig) -> None:
    """`wg` and we see what was told."""
    lines = wg("show", device.interface, "dump")
    assert lines[0][1:] == [OWN.public_key().to_text(), "51820", "0x2a"], lines[0][1:]
    seen = {line[0]: line for line in lines[1:]}
    status = device.status()
    assert (status.public_key, status.listen_port, status.fwmark) == (OWN.public_key(), 51820, 42)
    assert len(seen) == len(status.peers) == len(config.peers), (len(seen), len(status.peers))
    mine = {one.key: one for one in status.peers}
    for told in config.peers:
        _, _, endpoint, networks, handshake, _, _, keepalive = seen[told.public_key.to_text()]
        one = mine[told.public_key]
        assert endpoint == str(told.endpoint) == str(one.endpoint)
        assert set(networks.split(",")) == set(map(str, told.allowed_ips)) == set(map(str, one.allowed_ips))
        assert int(keepalive) == told.persistent_keepalive == one.persistent_keepalive
        assert one.has_preshared_key
        assert (handshake, one.handshake_at) == ("0", None)


def set_and_dump(prefixes: int, peers: int) -> None:
    device = KernelWireGuard.open("kernel0")
    for what, those in (("prefixes", (peer(1, prefixes),)), ("peers", tuple(peer(n) for n in range(2, peers + 2)))):
        config = DeviceConfig(OWN, 51820, 42, those)
        began = time.monotonic()
        device.apply(config)
        check_same(device, config)
        print(f"set and dump, {prefixes if what == 'prefixes' else peers} {what}: {time.monotonic() - began:.1f} s")
    some = config.peers[:2]
    fewer = tuple(
        replace(one, allowed_ips=(*one.allowed_ips[1:], IPv4Network((172 << 24, 24 + n)))) for n, one in enumerate(some)
    )
    device.change(replace(config, peers=fewer))
    config = replace(config, peers=(*fewer, *config.peers[2:]))
    check_same(device, config)
    device.set_peer(key(2), Endpoint(IPv4Address("192.0.2.99"), 9), 0)
    changed = next(one for one in device.status().peers if one.key == key(2))
    assert (changed.endpoint, changed.persistent_keepalive) == (Endpoint.from_text("192.0.2.99:9"), 0)
    assert len(changed.allowed_ips) == 2
    device.apply(DeviceConfig(OWN, 0, 42, (peer(3),)))
    assert [one.key for one in device.status().peers] == [key(3)]
    assert device.status().listen_port == 51820
    device.close()
    assert not any("kernel0" in word for words in wg("show", "interfaces") for word in words)


def attached_is_left() -> None:
    subprocess.run(["ip", "link", "add", "there0", "type", "wireguard"], check=True)
    subprocess.run(["wg", "set", "there0", "peer", key(9).to_text(), "allowed-ips", "10.9.0.0/16"], check=True)
    before = wg("show", "there0", "dump")
    device = KernelWireGuard.open("there0")
    assert not device.is_ours
    assert [one.key for one in device.status().peers] == [key(9)]
    device.close()
    assert wg("show", "there0", "dump") == before


def leftovers() -> None:
    """What a kill leaves goes, with our key and before it had one; what others made stays."""
    for name, key_of_it, goes in (
        ("left0", OWN, True),
        ("left1", None, True),
        ("left2", PrivateKey(b"\7" * 32), False),
    ):
        device = KernelWireGuard.open(name)
        if key_of_it is not None:
            device.apply(DeviceConfig(key_of_it))
        remove_left(name, OWN.public_key())
        assert (name not in links()) == goes, name
    subprocess.run(["ip", "link", "add", "theirs0", "type", "wireguard"], check=True)
    remove_left("theirs0", OWN.public_key())
    assert {"left2", "theirs0"} <= links()
    assert KernelWireGuard.is_there()


def links() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def refusals() -> None:
    subprocess.run(["ip", "link", "add", "other0", "type", "dummy"], check=True)
    said = ""
    try:
        KernelWireGuard.open("other0")
    except LocalError as error:
        said = str(error)
    assert "no WireGuard interface" in said
    subprocess.run(["ip", "link", "show", "other0"], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    set_and_dump(int(sys.argv[1]), int(sys.argv[2]))
    attached_is_left()
    leftovers()
    refusals()
    print("the kernel agrees")
