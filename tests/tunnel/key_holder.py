"""A device in a process of its own, whose memory test_key_memory.py looks at. Its randomness and messages come by pipe.

Every line of standard input is a step; after each it answers with a line, and then nothing of the step is left here.
"""

import sys

from wgdisco.endpoint import Endpoint

THERE = Endpoint.from_text("192.0.2.2:51820")
source = sys.stdin.buffer.raw if hasattr(sys.stdin.buffer, "raw") else sys.stdin.buffer


def read(size: int) -> bytes:
    """Exactly that many bytes, in an object of their own."""
    return source.read(size)
