"""A network in which nothing stays as it is: eight real members behind NATs, twenty simulated ones, one registry.

What happens is drawn from a seed. `Churn.run` does it for so many seconds and keeps what it saw.
"""

import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from bench import population
from tests.system.members import _ask, _Control
from wgdisco.lab.internet import Internet
from wgdisco.lab.nat_types import NAT_TYPES
from wgdisco.lab.plan import Leaf, Plan, Router, Uplink, interfaces
from wgdisco.lab.wire import Conditions

TYPES = (
    "full-cone",
    "port-restricted",
    "port-restricted",
    "address-restricted",
    "eim-other-port",
    "symmetric-random",
    "open-input",
    "port-restricted",
)
STEADFAST = {"m1", "m2"}  # never leave: it is their memory that is looked at
SIMULATED = 20
PATIENCE = 45.0
RESTARTS = 2
PROCESSES = []


def plan():
    routers, leaves = [], [Leaf("registry", (Uplink(None, interfaces(f"{population.OUTSIDE}/24")),))]
    for number, nat_type in enumerate(TYPES, 1):
        outside = f"198.18.{number}"
        router = Router(
            f"nat-{number}",
            NAT_TYPES[nat_type],
            interfaces(f"{outside}.10/32"),
            interfaces(f"192.168.{number}.1/24"),
            spare=interfaces(f"{outside}.20/32"),
        )
        routers.append(router)
        leaves.append(Leaf(f"m{number}", (Uplink(router.name, interfaces(f"192.168.{number}.10/24")),)))
    half = population.OUTER.num_addresses // 2
    places = [population.FIRST + number + move for number in range(SIMULATED) for move in (0, half)]
    leaves.append(Leaf("crowd", (Uplink(None, interfaces(*(f"{population.OUTER[place]}/32" for place in places))),)))
    return Plan(tuple(routers), tuple(leaves))


class Member:
    """A real member of a host, and what its daemon says last."""

    def __init__(self, host, name):
        self.host, self.name = host, name
        self.process = self.address = None
        self.asleep_until = None
        self.said = deque(maxlen=60)

    def follow(self, process):
        self.process = process
        PROCESSES.append(process)
        threading.Thread(target=self._read, args=(process.stderr,), daemon=True).start()

    def _read(self, stream):
        with stream:
            self.said.extend(stream)


class Churn:
    """See the module's docstring; a context manager."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.net = Internet(plan(), Conditions((), delay=0.005))
        self.members = {}
        self.registry = Member("registry", "registry")
        self.crowd = None
        self.happened = Counter()
        self.drops = {}  # reason: who, how many
        self.memory = {}  # who: (seconds since its daemon began, MiB)
        self.stuck = []
        self.longest = 0.0
        self._began = {}
        self._joined = Counter()
        try:
            self.net.hosts["registry"].run(
                [sys.executable, "-m", "bench.population", str(SIMULATED), str(SIMULATED)], timeout=60
            )
            self.start_registry()
            self.crowd = self.net.hosts["crowd"].popen(
                [sys.executable, "-m", "bench.crowd"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert self.crowd.stdout.readline()
            self.simulated("begin", rate=50)
            self.simulated("listen", rate=50)
            for number in range(1, len(TYPES) + 1):
                self.join(f"m{number}")
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.net.close()
        while PROCESSES:
            PROCESSES.pop().wait()
        if self.crowd is not None:
            self.crowd.stdin.close()
            self.crowd.stdout.close()

    # What may happen

    def simulated(self, do, **more):
        asked = {"do": do, "first": population.FIRST, "last": population.FIRST + SIMULATED, **more}
        self.crowd.stdin.write(json.dumps(asked) + "\n")
        self.crowd.stdin.flush()
        said = json.loads(self.crowd.stdout.readline())
        assert "error" not in said, said
        return said

    def start_registry(self):
        self.registry.follow(self.net.warm.start(self.net.hosts["registry"], ["registry", "run"]))
        self._began["registry"] = time.monotonic()
        self.until(lambda: self.status("registry") is not None, "the registry to start")

    def restart_registry(self, how):
        self.look()
        self.registry.process.send_signal(how)
        self.registry.process.wait(20)
        self.memory["registry"] = []
        self.start_registry()
        self.simulated("listen", rate=50)
        self.happened["registry killed" if how == signal.SIGKILL else "registry restarted"] += 1

    def command(self, what, **arguments):
        """What a verb of `wgdisco registry` asks its daemon."""
        with closing(_Control(self.net.file("registry", "/run/wgdisco/mesh.sock"))) as control:
            control.request("POST", f"/v1/command/{what}", json.dumps(arguments), {"Content-Type": "application/json"})
            said = json.loads(control.getresponse().read())
        assert "error" not in said, said
        return said

    def join(self, host):
        self._joined[host] += 1
        member = Member(host, f"{host}-{self._joined[host]}")
        link = self.command("invite", name=member.name, groups=["all"], admin=False, uses=1, lifetime=3600)["link"]
        words = ["join", link, "--foreground", "--firewall", "none"]
        member.follow(self.net.warm.start(self.net.hosts[host], words))
        self.members[host] = member
        self.memory[host] = []
        self._began[host] = time.monotonic()
        self.until(lambda: self.status(host) is not None, f"{host} to join")
        member.address = self.command("show", name=member.name)["addresses"][0]

    def leave(self, host):
        """Revoked, and its daemon ended; on the same host somebody else joins."""
        self.look()
        member = self.members.pop(host)
        self.command("revoke", name=member.name)
        member.process.stop(10)
        self.net.file(host, "/var/lib/wgdisco/mesh.json").unlink(missing_ok=True)
        self.happened["left"] += 1
        self.join(host)
        self.happened["joined"] += 1

    def restart(self, host):
        """Its daemon ends and comes back as the same member."""
        self.look()
        member = self.members[host]
        member.process.stop(10)
        words = ["join", "--network", "mesh", "--foreground", "--firewall", "none"]
        member.follow(self.net.warm.start(self.net.hosts[host], words))
        self.memory[host] = []
        self._began[host] = time.monotonic()
        self.until(lambda: self.status(host) is not None, f"{host} to come back")
        self.happened["restarted"] += 1

    def sleep(self, host):
        self.members[host].process.send_signal(signal.SIGSTOP)
        self.members[host].asleep_until = time.monotonic() + self.random.uniform(2, 15)
        self.happened["slept"] += 1

    def roam(self, host):
        """Its router gets another address, and forgets what it has mapped."""
        router = f"nat-{host[1:]}"
        here, there = f"198.18.{host[1:]}.10/32", f"198.18.{host[1:]}.20/32"
        lines = self.net.hosts[router].run(["ip", "-4", "-o", "addr", "show", "dev", "wan"]).stdout
        if "20/32" in lines:
            here, there = there, here
        text = f"addr add {there} dev wan\naddr del {here} dev wan\nroute replace 0.0.0.0/0 dev wan\n"
        self.net.hosts[router].run(["ip", "-batch", "-"], text=text)
        self.net.forget_connections(router)
        self.happened["roamed"] += 1

    # What is seen

    def status(self, host):
        directory = self.net.file(host, "/run/wgdisco")
        return _ask(directory / "mesh.sock") if (directory / "mesh.sock").exists() else None

    def pid(self, host):
        """Who listens at its control socket (unix(7), SO_PEERCRED)."""
        with socket.socket(socket.AF_UNIX) as asker:
            asker.connect(str(self.net.file(host, "/run/wgdisco/mesh.sock")))
            return int.from_bytes(asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")

    def look(self):
        """Note the memory and the drops of all that can be asked."""
        for host in ["registry", *self.members]:
            member = self.members.get(host)
            if member is not None and member.asleep_until is not None:
                continue
            status = self.status(host)
            if status is None:
                continue
            age = time.monotonic() - self._began[host]
            rss = next(
                int(line.split()[1]) / 1024
                for line in Path(f"/proc/{self.pid(host)}/status").read_text().splitlines()
                if line.startswith("VmRSS")
            )
            self.memory.setdefault(host, []).append((age, rss))
            for reason, count in status["drops"].items():
                # a daemon that began anew counts anew: the most that any had
                known = self.drops.setdefault(reason, Counter())
                known[host] = max(known[host], count)

    def until(self, condition, what, seconds=PATIENCE):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                said = {host: list(m.said)[-8:] for host, m in {**self.members, "registry": self.registry}.items()}
                raise AssertionError(f"waited in vain for {what}: {json.dumps(said, indent=1)}")
            time.sleep(0.05)

    def connects(self, one, other, seconds=PATIENCE):
        """How long it takes for a ping between two to be answered; None when it never is."""
        began = time.monotonic()
        address = self.members[other].address
        while time.monotonic() - began < seconds:
            done = self.net.hosts[one].run(["ping", "-q", "-c1", "-W1", address], check=False)
            if done.returncode == 0:
                return time.monotonic() - began
        return None

    def check(self, one, other):
        """Note when two that are there do not reach each other."""
        took = self.connects(one, other)
        if took is None:
            paths = [(peer["name"], peer["path"], peer["reason"]) for peer in self.status(one)["peers"]]
            self.stuck.append((one, other, time.monotonic(), paths))
        else:
            self.longest = max(self.longest, took)

    def check_all(self, one):
        for other in self.members:
            if one != other:
                self.check(one, other)

    # All of it

    def run(self, seconds):
        """Let things happen; at the end all that should reach each other are tried."""
        began = time.monotonic()
        restarts = deque(seconds * (number + 1) / (RESTARTS + 1) for number in range(RESTARTS))
        looked = 0.0
        while (now := time.monotonic() - began) < seconds:
            if restarts and now > restarts[0]:
                restarts.popleft()
                self.restart_registry(signal.SIGKILL if len(restarts) % 2 else signal.SIGTERM)
            self.wake(time.monotonic())
            self.act()
            awake = [host for host, member in self.members.items() if member.asleep_until is None]
            if len(awake) >= 2:
                self.check(*self.random.sample(awake, 2))
            if now - looked > max(5.0, seconds / 60):
                looked = now
                self.look()
            time.sleep(self.random.uniform(0.2, 1.5))
        self.wake(float("inf"))
        time.sleep(5)
        with ThreadPoolExecutor(len(self.members)) as threads:
            list(threads.map(self.check_all, self.members))
        self.look()

    def wake(self, now):
        for member in self.members.values():
            if member.asleep_until is not None and member.asleep_until <= now:
                member.process.send_signal(signal.SIGCONT)
                member.asleep_until = None

    def act(self):
        awake = [host for host, member in self.members.items() if member.asleep_until is None]
        host = self.random.choice(awake)
        what = self.random.choices(("leave", "restart", "sleep", "roam", "move"), (2, 2, 3, 3, 2))[0]
        if what == "move":
            self.simulated("move", moves=4, gap=0.1)
            self.happened["simulated members moved"] += 4
        elif what in ("leave", "restart") and host in STEADFAST:
            self.roam(host)
        else:
            getattr(self, what)(host)
