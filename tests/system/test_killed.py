"""The registry is killed, again and again, while members enrol."""

import json
import random
import select
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.system.network import PROGRAM
from wgdisco.lab.topology import Lab

pytestmark = pytest.mark.usefixtures("needs_lab")
HERE = Path(__file__)


class Spoken:
    """A process that answers a line with a line."""

    def __init__(self, host, script):
        command = [sys.executable, "-u", str(HERE.with_name(script))]
        self.process = host.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def say(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self):
        assert select.select([self.process.stdout], [], [], 30)[0], "it says nothing"
        line = self.process.stdout.readline()
        assert line, "it has ended"
        return line.strip()

    def ask(self, line):
        self.say(line)
        return json.loads(self.hear())

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


# About how long an enrolment takes, in seconds: we strike while it lasts
USUAL = 0.1


def kill_while_members_enrol(count, dice):
    with Lab() as lab:
        lab.hosts["registry"].run([*PROGRAM, "registry", "init"])
        registry = Spoken(lab.hosts["registry"], "forking_registry.py")
        joiner = Spoken(lab.hosts["alice"], "enroller.py")
        acknowledged, when = [], Counter()
        try:
            links = registry.ask(f"invite {count}")
            registry.ask("start")
            for number, link in enumerate(links):
                joiner.say(link)
                assert joiner.hear() == "begin"
                time.sleep(dice.uniform(0, USUAL))
                registry.ask("kill")
                is_answered = bool(select.select([joiner.process.stdout], [], [], 0)[0])
                known = {member["name"]: member for member in registry.ask("members")}
                assert [(m["name"], m["addresses"]) for m in known.values()][:number] == acknowledged
                stored = known.get(f"m{number}")
                assert stored or not is_answered
                when["answered" if is_answered else "stored" if stored else "asked"] += 1
                registry.ask("start")
                record = json.loads(joiner.hear())
                assert record["name"] == f"m{number}"
                if stored:
                    assert record["public_key"] == stored["public_key"]
                acknowledged.append((record["name"], record["addresses"]))
            registry.ask("kill")
            assert [(m["name"], m["addresses"]) for m in registry.ask("members")] == acknowledged
        finally:
            registry.close()
            joiner.close()
        assert len({address for _, addresses in acknowledged for address in addresses}) == 2 * count
        print(f"\n{count} enrolments, the registry killed in each: {dict(when)}")


def test_20_kills_lose_no_member_give_no_address_twice_and_burn_no_link():
    kill_while_members_enrol(20, random.Random(20))


@pytest.mark.soak
def test_200_kills_lose_no_member_give_no_address_twice_and_burn_no_link():
    kill_while_members_enrol(200, random.Random(200))
