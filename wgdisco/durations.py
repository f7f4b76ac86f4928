"""Times as a person writes them: 30m, 24h, 7d."""

import re

from wgdisco.errors import ConfigError

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")


def parse_duration(flag: str, text: str) -> float:
    """A time like 30m, 24h or 7d, in seconds; ConfigError, naming the flag, for anything else."""
    match = _DURATION.fullmatch(text)
    if match is None or not int(match[1]):
        raise ConfigError(f"{flag}: {text!r} is not a time: write 30m, 24h or 7d")
    return float(int(match[1]) * SECONDS[match[2]])


def duration_text(seconds: float) -> str:
    """As `parse_duration` reads it."""
    unit, size = next((unit, size) for unit, size in reversed(SECONDS.items()) if seconds % size == 0 or unit == "s")
    return f"{seconds / size:g}{unit}"
