"""A device in a process of its own, into whose memory test_key_memory.py looks.

usage: key_holder.py FD: randomness comes from FD. Standard input has steps, a letter each with what it needs; each is
answered with the size, two bytes, and the bytes of what the device sends then.
"""

import os
import sys
from ipaddress import ip_network

from tests.tunnel.wire import ip_packet
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel.burst import Burst
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.device import Device
from wgdisco.tunnel.frames import Frames

THERE = Endpoint.from_text("192.0.2.2:51820")


def take(size: int) -> bytes:
    """Exactly that many bytes from standard input, in an object of their own."""
    data = os.read(0, size)
    assert len(data) == size
    return data


def do(step: bytes, device: Device) -> None:
    match step:
        case b"c":  # configured: private key, the peer's public key, preshared key
            private, remote, psk = take(32), take(32), take(32)
            peer = PeerConfig(PublicKey(remote), PresharedKey(psk), THERE, (ip_network("10.9.0.2/32"),))
            device.apply(DeviceConfig(PrivateKey(private), peers=(peer,)), 0.0)
        case b"s":  # sends a packet
            device.send(Frames.of(ip_packet("10.9.0.1", "10.9.0.2")), 1.0)
        case b"m":  # a message arrives: its size in one byte
            device.receive(Burst.of(take(take(1)[0])), THERE, 1.0)
            device.handle_handshakes(1.0)
        case b"f":
            device.forget_sessions()
        case b"d":
            device.set_up(False, 2.0)
        case b"z":  # three times Reject-After-Time later
            device.handle_timer(1.0 + 541.0)
        case b"r":  # the peer is removed
            device.apply(DeviceConfig(device.config().private_key), 3.0)


def main() -> None:
    randomness = int(sys.argv[1])
    device = Device(lambda size: os.read(randomness, size), lambda: 1_800_000_000.0)
    for step in iter(lambda: os.read(0, 1), b""):
        do(step, device)
        sent = b"".join(bytes(burst.data) for burst, _ in device.datagrams_to_send())
        os.write(1, len(sent).to_bytes(2, "big") + sent)


if __name__ == "__main__":
    main()
