"""`wgdisco-tunnel`, with a note every 2 ms of processor time of which function runs; C below a function counts as its.

usage: python -m bench.sampled FILE -f IFACE        from SIGUSR1 on; FILE gets, as JSON, how often each was met
"""

import atexit
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from wgdisco.tunnel import cli

EVERY = 0.002


def main() -> int:
    """See the module's docstring."""
    met: Counter[str] = Counter()

    def note(_number: int, frame: FrameType | None) -> None:
        if frame is not None:
            module = frame.f_globals.get("__name__", "?")
            met[f"{module}.{frame.f_code.co_qualname}".removeprefix("wgdisco.tunnel.")] += 1

    def write() -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        Path(sys.argv[1]).write_text(json.dumps(met))

    atexit.register(write)
    signal.signal(signal.SIGPROF, note)
    signal.signal(signal.SIGUSR1, lambda *_: signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY))
    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
