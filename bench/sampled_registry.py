"""`wgdisco`, with a note every 2 ms of processor time of which function runs; C below a function counts as its.

usage: python -m bench.sampled_registry FILE WORDS…

From SIGUSR1 to SIGUSR2; then FILE has, as JSON, how often each was met.
"""

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from wgdisco.cli import main as wgdisco

EVERY = 0.002


def main() -> int:
    """See the module's docstring."""
    path = Path(sys.argv[1])
    met: Counter[str] = Counter()

    def note(_number: int, frame: FrameType | None) -> None:
        if frame is not None:
            module = frame.f_globals.get("__name__", "?")
            met[f"{module}.{frame.f_code.co_qualname}".removeprefix("wgdisco.")] += 1

    def begin(_number: int, _frame: FrameType | None) -> None:
        met.clear()
        path.unlink(missing_ok=True)
        signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)

    def end(_number: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        whole = path.with_suffix(".part")
        whole.write_text(json.dumps(met))
        whole.rename(path)

    for number, handler in ((signal.SIGPROF, note), (signal.SIGUSR1, begin), (signal.SIGUSR2, end)):
        signal.signal(number, handler)
    sys.argv[:] = ["wgdisco", *sys.argv[2:]]
    return wgdisco()


if __name__ == "__main__":
    sys.exit(main())
