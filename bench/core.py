"""What the device's core adds to a burst: peers, routes, sessions, counters, replays, timers; µs of processor time.

usage: python -m bench.core        from the root of the repository; nothing is sent anywhere
"""

import os
import time
from ipaddress import ip_network

from bench.burst import MTU, WORK, cost
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey
from wgdisco.tunnel import burst
from wgdisco.tunnel.burst import Burst, Frames
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.device import Device

NOW = 1.0
HERE, THERE = Endpoint.from_text("192.0.2.1:51820"), Endpoint.from_text("192.0.2.2:51820")
WHAT = ("45 x 1420, one large TCP packet", "32 x 92, UDP, one flow each", "1 x 1420, UDP", "1 x 92, UDP")


def devices() -> tuple[Device, Device]:
    """Two devices with a session; the work goes from the first to the second."""
    keys = [PrivateKey(os.urandom(32)) for _ in range(2)]
    here, there = (Device(os.urandom, time.time) for _ in keys)
    for device, own, other, endpoint, network in (
        (here, keys[0], keys[1], THERE, "10.0.0.2/32"),
        (there, keys[1], keys[0], HERE, "10.0.0.1/32"),
    ):
        device.set_mtu(MTU)
        peer = PeerConfig(other.public_key(), None, endpoint, (ip_network(network),))
        device.apply(DeviceConfig(own, peers=(peer,)), NOW)
    here.send(WORK["1 x 92, UDP"][0], NOW)
    for _ in range(2):  # initiation, response, the packet that confirms them
        for sender, receiver, source in ((here, there, HERE), (there, here, THERE)):
            for datagrams, _ in sender.datagrams_to_send():
                receiver.receive(Burst(bytes(datagrams.data), datagrams.row), source, NOW)
            receiver.handle_handshakes(NOW)
    return here, there


def costs() -> dict[str, list[float]]:
    """By work: µs a call to send it, and to receive it, as the engine's shell has it done."""
    burst.use("reference" if burst.compiled is None else "compiled")
    found = {}
    for what in WHAT:
        frames, _ = WORK[what]
        here, there = devices()

        def send(here: Device = here, frames: Frames = frames) -> list[tuple[Burst, Endpoint]]:
            here.send(frames, NOW)
            sent = here.datagrams_to_send()
            here.get_timer()
            return sent

        def both(here: Device = here, there: Device = there) -> None:
            for datagrams, _ in send(here):
                there.receive(datagrams, HERE, NOW)
            assert there.packets_to_deliver()
            there.get_timer()

        sending = cost(send)
        found[what] = [sending, cost(both) - sending]
    return found


def main() -> None:
    """Print the table."""
    print(f"{'':32} {'send':>8} {'receive':>8}  µs a call")
    for what, (sending, receiving) in costs().items():
        print(f"{what:32} {sending:8.2f} {receiving:8.2f}")


if __name__ == "__main__":
    main()
