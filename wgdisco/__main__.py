"""`wgdisco` and `python -m wgdisco`: the way in.

SIGINT and SIGTERM wait until somebody can do what they ask: raised in the middle of an import they can be lost, and a
daemon that was told to stop would run on. The first process of a container is ended by no signal it does not handle.
"""

import os
import signal
import sys

STOPS = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    """Run the command line; its exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    from wgdisco import cli  # noqa: PLC0415  only now

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
