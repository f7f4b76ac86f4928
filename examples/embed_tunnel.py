"""The engine inside a program of one's own: two devices in one process, joined by nothing but two function calls.

Run it with `python examples/embed_tunnel.py`; it needs no privilege, since a `Device` does no input or output.
"""

import os
import time
from ipaddress import ip_address, ip_network

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey
from wgdisco.tunnel.burst import Frames
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.device import Device

ALICE = Endpoint.from_text("192.0.2.1:51820")
BOB = Endpoint.from_text("192.0.2.2:51820")


def make_device(own: PrivateKey, peer: PrivateKey, peer_address: str, endpoint: Endpoint | None) -> Device:
    """A device with one peer."""
    device = Device(os.urandom, time.time)
    peer_config = PeerConfig(peer.public_key(), None, endpoint, (ip_network(peer_address),))
    device.apply(DeviceConfig(own, peers=(peer_config,)), time.monotonic())
    return device


def ipv4_packet(source: str, destination: str, payload: bytes) -> bytes:
    """A bare IPv4 packet, its checksum left to whoever cares."""
    header = bytes([0x45, 0]) + (20 + len(payload)).to_bytes(2, "big") + bytes([0, 0, 0, 0, 64, 253, 0, 0])
    return header + ip_address(source).packed + ip_address(destination).packed + payload


def carry(alice: Device, bob: Device) -> None:
    """Be the network: until neither has anything to say."""
    busy = True
    while busy:
        busy = False
        for sender, receiver, source in ((alice, bob, ALICE), (bob, alice, BOB)):
            for datagrams, _endpoint in sender.datagrams_to_send():
                receiver.receive(datagrams, source, time.monotonic())
                receiver.handle_handshakes(time.monotonic())
                busy = True


def main() -> None:
    """Send one packet through a fresh tunnel."""
    alice_key, bob_key = PrivateKey(os.urandom(32)), PrivateKey(os.urandom(32))
    alice = make_device(alice_key, bob_key, "10.0.0.2/32", BOB)
    bob = make_device(bob_key, alice_key, "10.0.0.1/32", None)
    alice.send(Frames.of(ipv4_packet("10.0.0.1", "10.0.0.2", b"hello, bob")), time.monotonic())
    carry(alice, bob)
    for frames in bob.packets_to_deliver():
        for packet in frames.packets():
            print("bob got:", bytes(packet)[20:].decode())


if __name__ == "__main__":
    main()
