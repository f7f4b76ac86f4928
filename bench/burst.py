"""What a packet costs on its way through the burst: µs of processor time, best of several, for each implementation.

usage: python -m bench.burst        from the root of the repository; nothing is sent anywhere
"""

import time
from collections.abc import Callable

from wgdisco.tunnel import burst
from wgdisco.tunnel.burst import Burst, Frames, Room
from wgdisco.tunnel.segment import Offload

KEY = bytes(32)
MTU = 1420
ROUNDS = 15


def tcp_frame(segments: int, size: int) -> bytes:
    """A large TCP packet as the kernel leaves it to be cut, with timestamps."""
    headers = bytearray(52)
    headers[0], headers[6], headers[8], headers[9] = 0x45, 0x40, 64, 6
    headers[12:20] = bytes([10, 0, 0, 1, 10, 0, 0, 2])
    headers[32], headers[33] = 0x80, 0x10
    return Offload(1, 1, 52, size, 20, 16).pack() + headers + bytes(segments * size)


def udp_packet(size: int, port: int = 1) -> bytes:
    """A UDP packet of `size` bytes without a checksum."""
    headers = bytes(
        [0x45, 0, size >> 8, size & 255, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, port, 0, 2]
    )
    return headers + (size - 20).to_bytes(2, "big") + bytes(size - 26)


def as_read(*frames: bytes) -> Frames:
    """Frames as who reads an interface has them: in memory that is read into again."""
    made = Frames.behind_one_another(frames)
    return Frames(memoryview(made.data), memoryview(made.spans), 0, len(frames))


def plain(packet: bytes) -> bytes:
    """The frame of a packet that is sent as it is."""
    return bytes(10) + packet


WORK = {
    "45 x 1420, one large TCP packet": (as_read(tcp_frame(45, 1368)), 45),
    "1 x 1420, UDP": (as_read(plain(udp_packet(1420))), 1),
    "32 x 92, UDP, one flow each": (as_read(*(plain(udp_packet(92, port)) for port in range(32))), 32),
    "1 x 92, UDP": (as_read(plain(udp_packet(92))), 1),
    "keepalive": (Frames.of(b""), 1),
}


def cost(call: Callable[[], object]) -> float:
    """µs of processor time for one call."""
    count, best = 1, float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(count):
            call()
        spent = time.process_time() - start
        best = min(best, spent / count)
        count = max(count, int(0.02 / max(spent / count, 1e-7)))
    return best * 1e6


def costs() -> dict[str, dict[str, list[float]]]:
    """By implementation and work: µs a packet to seal, and to open."""
    room = Room()
    found: dict[str, dict[str, list[float]]] = {}
    for name in ("compiled", "reference"):
        if name == "compiled" and burst.compiled is None:
            continue
        burst.use(name)
        for what, (frames, packets) in WORK.items():
            sealer, opener = burst.create_sealer(KEY), burst.create_opener(KEY)

            def seal(frames: Frames = frames, sealer: burst.Sealer = sealer) -> burst.Sealed:
                room.clear()
                return sealer.seal(frames, 7, 0, MTU, room)

            (sealed,) = seal().bursts
            datagrams = Burst(bytes(sealed.data), sealed.row)

            def open_them(datagrams: Burst = datagrams, opener: burst.Opener = opener) -> burst.Opened:
                room.clear()
                return opener.open(datagrams, room)

            assert sum(len(run) for run in open_them().frames) in (0, 1, len(frames))
            found.setdefault(name, {})[what] = [cost(seal) / packets, cost(open_them) / packets]
    return found


def main() -> None:
    """Print the table."""
    found = costs()
    print(f"{'':32} {'':10} {'seal':>7} {'open':>7}  µs a packet")
    if "compiled" not in found:
        print("the compiled burst was not built")
    for name, rows in found.items():
        for what, (sealing, opening) in rows.items():
            print(f"{what:32} {name:10} {sealing:7.2f} {opening:7.2f}")


if __name__ == "__main__":
    main()
