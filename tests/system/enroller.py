"""Enrols under one join link after the other, each with a key of its own, until it is told that it is a member.

Links come on standard input. For each: `begin`, and when it is enrolled the record, on a line each.
"""

import asyncio
import json
import os
import sys
from dataclasses import asdict

from wgdisco.errors import RemoteError, WgdiscoError
from wgdisco.invitation import JoinLink
from wgdisco.keys import PrivateKey
from wgdisco.peer.io.enrol import enrol

# Whoever joins would wait longer; the registry that was killed knows nothing of a session it had
PATIENCE = 1.0


async def until_enrolled(link, key):
    while True:
        try:
            async with asyncio.timeout(PATIENCE):
                return await enrol(link, key, None)
        except TimeoutError:
            continue
        except RemoteError as error:
            if error.__cause__ is None:
                raise
        except WgdiscoError:
            continue


async def main():
    for line in sys.stdin:
        link, key = JoinLink.from_text(line), PrivateKey(os.urandom(32)).public_key()
        print("begin", flush=True)
        print(json.dumps(asdict((await until_enrolled(link, key)).member)), flush=True)


asyncio.run(main())
