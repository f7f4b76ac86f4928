"""A registry that can be killed and be back at once: it is forked off a process that has all modules already.

On standard input `start`, `kill`, `invite COUNT`, `members`; each is answered by one line of JSON.
"""

import asyncio
import json
import os
import signal
import sys

from wgdisco.process import run_daemon
from wgdisco.registry.io import managed
from wgdisco.registry.io.commands import Commands
from wgdisco.registry.io.ledger import Ledger
from wgdisco.registry.io.store import PATH
from wgdisco.registry.public_dns import PublicDns
from wgdisco.tunnel.engines import EngineKind
from wgdisco.tunnel.offloads import Offloads


async def on_the_store(work):
    ledger = Ledger.open(PATH)
    try:
        return await work(Commands(ledger))
    finally:
        await ledger.close()


async def invite(commands, count):
    wish = {"uses": 1, "lifetime": 3600, "groups": ["all"]}
    return [(await commands.invite({"name": f"m{number}", **wish}))["link"] for number in range(count)]


def fork(work):
    """`work()` in a child, which ends with it."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException as error:  # noqa: BLE001  told to whoever reads the output
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def say(what):
    print(json.dumps(what), flush=True)


def main():
    child = 0
    for line in sys.stdin:
        match line.split():
            case ["start"]:
                child = fork(
                    lambda: run_daemon(
                        lambda: managed.run(
                            store=PATH,
                            dns=PublicDns(),
                            metrics=None,
                            engine=EngineKind.USERSPACE,
                            offloads=Offloads(),
                            version="test",
                        )
                    )
                )
                say({"pid": child})
            case ["kill"]:
                os.kill(child, signal.SIGKILL)
                say({"status": os.waitpid(child, 0)[1]})
            case ["invite", count]:
                os.waitpid(fork(lambda c=int(count): say(asyncio.run(on_the_store(lambda cs: invite(cs, c))))), 0)
            case ["members"]:
                os.waitpid(fork(lambda: say(asyncio.run(on_the_store(lambda cs: cs.list({})))["members"])), 0)


main()
