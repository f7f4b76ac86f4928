"""The registry's disk full, read-only or damaged: one clear line from every verb, and nothing is overwritten."""

import json
import sys

import pytest

from tests.system.network import PROGRAM, await_
from wgdisco.lab.topology import Lab

pytestmark = pytest.mark.usefixtures("needs_lab")
STORE = "/var/lib/wgdisco/registry.db"


class Registry:
    def __init__(self, host):
        self.host = host
        self.daemon = None

    def sh(self, script):
        return self.host.run(["sh", "-ec", script]).stdout

    def verb(self, *words):
        return self.host.run([*PROGRAM, "registry", *words], check=False)

    def refused(self, *words):
        """The one line a verb says that does not do it; nothing of the store is another afterwards."""
        before = self.sh(f"sha256sum {STORE}*")
        done = self.verb(*words)
        assert done.returncode == 1, (words, done)
        assert done.stderr.count("\n") == 1, (words, done.stderr)
        assert done.stdout == ""
        assert self.sh(f"sha256sum {STORE}*") == before
        return done.stderr

    def start(self):
        self.daemon = self.host.popen([*PROGRAM, "registry", "run"], stderr=sys.stderr)
        await_(lambda: self.host.run([*PROGRAM, "status", "mesh"], check=False).returncode == 0, "the registry", 15)

    def names(self):
        listed = json.loads(self.verb("list", "-o", "json").stdout)
        return [one["name"] for one in listed["invitations"]]


@pytest.fixture(scope="module")
def registry():
    with Lab() as lab:
        registry = Registry(lab.hosts["registry"])
        assert registry.verb("init").returncode == 0
        assert registry.verb("invite", "first").returncode == 0
        yield registry
        if registry.daemon is not None:
            registry.daemon.stop()


def test_a_full_disk(registry):
    registry.start()
    registry.sh("mount -o remount,size=1m /var/lib/wgdisco; cat /dev/zero >/var/lib/wgdisco/filler || true")
    said = []
    for number in range(20):
        done = registry.verb("invite", f"more{number}")
        if done.returncode:
            said.append(done.stderr)
            break
    assert said, "a full disk refused nothing"
    assert "full" in said[0]
    assert said[0].count("\n") == 1
    kept = registry.names()
    assert kept == ["first", *(f"more{number}" for number in range(len(kept) - 1))]
    assert registry.host.run([*PROGRAM, "status", "mesh"], check=False).returncode == 0, "the daemon goes on"
    registry.sh("rm /var/lib/wgdisco/filler")
    assert registry.verb("invite", "later").returncode == 0
    registry.daemon.kill()
    registry.daemon.wait()
    registry.daemon = None
    assert registry.names() == [*kept, "later"]


def test_a_read_only_disk(registry):
    registry.sh("mount --bind /var/lib/wgdisco /var/lib/wgdisco; mount -o remount,bind,ro /var/lib/wgdisco")
    try:
        for words in (["invite", "more"], ["revoke", "first"], ["run"]):
            assert "read-only" in registry.refused(*words).lower()
    finally:
        registry.sh("umount /var/lib/wgdisco")
    assert "first" in registry.names()


@pytest.mark.parametrize("where", ["bs=1 seek=0 count=100", "bs=4096 seek=1 count=1"])
def test_a_damaged_store(registry, where):
    registry.sh(f"cp {STORE} /run/whole; dd if=/dev/urandom of={STORE} {where} conv=notrunc 2>/dev/null")
    try:
        for words in (["run"], ["invite", "more"], ["init"], ["restore", "/etc/hostname"]):
            said = registry.refused(*words)
            assert "damaged" in said or "not a backup" in said or words[0] == "restore", said
    finally:
        registry.sh(f"rm -f {STORE}-*; cp /run/whole {STORE}")
    assert "first" in registry.names()
