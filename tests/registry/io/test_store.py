"""The store survives what happens to disks and processes."""

import asyncio
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.registry.facts import Invitation, Kind, Member, Network, Put, Remove, Revoked, Role
from wgdisco.registry.io.store import MIGRATIONS, Store, restore
from wgdisco.registry.membership import Membership

NETWORK = Network(
    "mesh",
    "wg.internal.",
    PrivateKey(bytes(range(32))),
    51820,
    ("198.51.100.10:51820",),
    IPv4Network("10.9.8.0/24"),
    IPv6Network("fd00:9:8::/64"),
)
MEMBER = Member(
    "laptop",
    PublicKey(b"m" * 32),
    2,
    ("all", "dev"),
    1000.5,
    Kind.MEMBER,
    Role.ADMIN,
    PresharedKey(b"p" * 32),
    True,
    PublicKey(b"i" * 32),
    Endpoint.from_text("[2001:db8::1]:51820"),
    PublicKey(b"n" * 32),
)
REVOKED = Revoked(PublicKey(b"r" * 32), "lost", 2000.25)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "registry.db"


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of half a megabyte."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(directory)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def commit(store, *changes):
    asyncio.run(store.commit(changes))


def test_every_fact_comes_back_equal(path):
    invitation_facts = Membership([NETWORK]).invite(b"s" * 16, 5.0, "phone", ("all",), Role.ADMIN)[0]
    facts = [NETWORK, MEMBER, invitation_facts[0].fact, REVOKED]
    store = Store.open(path)
    commit(store, *map(Put, facts))
    assert store.load() == facts
    commit(store, Put(replace(MEMBER, name="desk")), Remove(invitation_facts[0].fact))
    store.close()
    store.close()
    again = Store.open(path)
    assert again.load() == [NETWORK, replace(MEMBER, name="desk"), REVOKED]
    again.close()


def test_the_file_is_for_its_owner_alone(path):
    previous = os.umask(0)
    try:
        store = Store.open(path)
        commit(store, Put(NETWORK))
        store.backup(path.with_name("copy"))
    finally:
        os.umask(previous)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.close()


def test_a_second_process_is_kept_out(path):
    store = Store.open(path)
    with pytest.raises(LocalError, match="another process"):
        Store.open(path)
    with pytest.raises(LocalError, match="another process"):
        restore(Path(__file__), path)
    store.close()
    Store.open(path).close()


def test_serials_never_go_back(path):
    store = Store.open(path)
    first = store.reserve_serial(1000)
    assert (first.start, len(first)) == (1000, 1000)
    assert store.reserve_serial(1500).start == 2000
    store.close()
    again = Store.open(path)
    assert again.reserve_serial(10).start == 3000
    assert again.reserve_serial(1 << 31).start == 1 << 31
    again.close()


def test_observations_are_written_by_flush_and_by_close(path):
    store = Store.open(path)
    here, there = Endpoint.from_text("192.0.2.1:1"), Endpoint.from_text("192.0.2.2:2")
    store.observe(MEMBER.public_key, here, 10.0)
    assert store.observations() == []
    asyncio.run(store.flush())
    assert [(o.endpoint, o.at) for o in store.observations()] == [(here, 10.0)]
    store.observe(MEMBER.public_key, there, 20.0)
    store.close()
    again = Store.open(path)
    assert [(o.endpoint, o.at) for o in again.observations()] == [(there, 20.0)]
    commit(again, Put(MEMBER))
    commit(again, Remove(MEMBER))
    assert again.observations() == []
    again.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from dataclasses import replace
from tests.registry.io.test_store import MEMBER, Put, PublicKey, Store
async def main():
    store = Store.open(Path(sys.argv[1]))
    first = len(store.load()) + 2
    print("open", flush=True)
    for number in range(first, first + 100000):
        raw = number.to_bytes(32, "big")
        pair = [Put(replace(MEMBER, number=2 * number + i, public_key=PublicKey(raw))) for i in (0, 1)]
        await store.commit(pair)
        print(number, flush=True)
asyncio.run(main())
"""


def test_kill_9_loses_nothing_that_was_acknowledged(path):
    dice = random.Random(20)
    root = str(Path(__file__).parents[3])
    acknowledged = set()
    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            cwd=root,
            env={**os.environ, "PYTHONPATH": root},
            text=True,
        ) as writer:
            assert writer.stdout.readline() == "open\n"
            time.sleep(dice.uniform(0, 0.05))
            writer.send_signal(signal.SIGKILL)
            acknowledged |= {int(line) for line in writer.stdout.read().splitlines(keepends=True) if line[-1] == "\n"}
        store = Store.open(path)
        numbers = [fact.number for fact in store.load()]
        store.close()
        assert {2 * number + i for number in acknowledged for i in (0, 1)} <= set(numbers)
        assert {number ^ 1 for number in numbers} == set(numbers), "half a commit"
    assert len(acknowledged) > 20


def test_a_full_disk_is_one_clear_line_and_loses_nothing(small_disk):
    store = Store.open(small_disk / "registry.db")
    commit(store, Put(NETWORK))
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.raises(LocalError, match=r"disk is full|disk full") as caught:
        commit(store, *(Put(replace(MEMBER, number=n)) for n in range(2, 200)))
    assert "\n" not in str(caught.value)
    assert store.load() == [NETWORK]
    filler.unlink()
    commit(store, Put(MEMBER))
    assert store.load() == [NETWORK, MEMBER]
    store.close()


def test_a_read_only_disk_is_one_clear_line(small_disk):
    path = small_disk / "registry.db"
    store = Store.open(path)
    commit(store, Put(NETWORK))
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(LocalError, match=r"[Rr]ead-only") as caught:
        Store.open(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["all", "head", "middle"])
def test_a_damaged_file_is_reported_and_left_alone(path, damage):
    store = Store.open(path)
    commit(store, Put(NETWORK), *(Put(replace(MEMBER, number=n)) for n in range(2, 200)))
    backup = path.with_name("backup")
    store.backup(backup)
    store.close()
    whole = bytearray(path.read_bytes())
    start, end = {"all": (0, len(whole)), "head": (0, 100), "middle": (4096, len(whole) // 2)}[damage]
    whole[start:end] = random.Random(1).randbytes(end - start)
    path.write_bytes(whole)
    with pytest.raises(LocalError, match=r"damaged.*restore"):
        Store.open(path)
    assert path.read_bytes() == whole
    restore(backup, path)
    store = Store.open(path)
    assert len(store.load()) == 199
    store.close()
    assert any(kept.read_bytes() == whole for kept in path.parent.glob("registry.db.before-*"))


def test_a_migration_keeps_a_copy_of_what_was_before(path):
    store = Store.open(path)
    commit(store, Put(NETWORK))
    store.close()
    longer = (*MIGRATIONS, "CREATE TABLE more (x);")
    store = Store.open(path, longer)
    assert store.load() == [NETWORK]
    store.close()
    copy = path.with_name("registry.db.v1")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with sqlite3.connect(copy) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM fact").fetchone() == (1,)
    connection.close()
    with pytest.raises(LocalError, match="update it"):
        Store.open(path)


def test_a_migration_that_fails_changes_nothing(path):
    store = Store.open(path)
    commit(store, Put(NETWORK))
    store.close()
    with pytest.raises(LocalError):
        Store.open(path, (*MIGRATIONS, "CREATE TABLE more (x); CREATE TABLE fact (y);"))
    store = Store.open(path)
    assert store.load() == [NETWORK]
    store.close()


def test_restore_raises_the_epoch_and_readmits_nobody(path):
    store = Store.open(path)
    invitation = Membership([NETWORK]).invite(b"s" * 16, 5.0)[0][0].fact
    assert isinstance(invitation, Invitation)
    old = replace(MEMBER, number=3, public_key=REVOKED.public_key, name="lost")
    commit(store, Put(replace(NETWORK, epoch=4)), Put(MEMBER), Put(old), Put(invitation))
    backup = path.with_name("backup")
    store.backup(backup)
    commit(store, Remove(old), Put(REVOKED), Put(replace(NETWORK, epoch=7, next_host=90)))
    store.close()
    assert restore(backup, path) == 8
    store = Store.open(path)
    assert store.load() == [replace(NETWORK, epoch=8, next_host=90), MEMBER, REVOKED]
    store.close()


def test_restored_on_a_new_disk_it_gives_out_numbers_from_half_the_range_away(path, tmp_path):
    store = Store.open(path)
    commit(store, Put(replace(NETWORK, next_host=200)), Put(MEMBER))
    backup = tmp_path / "backup"
    store.backup(backup)
    store.close()
    new = tmp_path / "new" / "registry.db"
    assert restore(backup, new) == 2
    store = Store.open(new)
    assert store.load() == [replace(NETWORK, epoch=2, next_host=73), MEMBER]
    store.close()


def test_what_is_no_backup_is_refused(path, tmp_path):
    store = Store.open(path)
    commit(store, Put(NETWORK))
    store.close()
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE x (y)")
    connection.close()
    for source in (Path(__file__), other, tmp_path / "missing", tmp_path):
        before = path.read_bytes()
        with pytest.raises(LocalError):
            restore(source, path)
        assert path.read_bytes() == before
        assert not list(path.parent.glob("*restore*"))
