"""The timestamp of an initiation: TAI64N, whitened, and never the same or an earlier one to the same peer (rule H8)."""

# Unix time; no clock is right that is before this: the program is younger.
EARLIEST = 1_760_000_000.0

_TAI_BASE = 0x400000000000000A
_NANO = 1_000_000_000
# Bits of the nanoseconds that are left out, so that the clock's fine state is not told: steps of 16.8 ms
_STEP = 1 << 24


class Timestamps:
    """The timestamps of one peer. They follow unix time, and go on rising when that is stepped back."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0  # nanoseconds of unix time

    def next(self, unix_time: float) -> bytes:
        """The next: 12 bytes, later than all before; `unix_time` in seconds."""
        seconds, nanoseconds = divmod(max(self._last + _STEP, int(unix_time * _NANO)), _NANO)
        nanoseconds &= ~(_STEP - 1)
        self._last = seconds * _NANO + nanoseconds
        return (_TAI_BASE + seconds).to_bytes(8, "big") + nanoseconds.to_bytes(4, "big")
