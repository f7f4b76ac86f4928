"""The file a membership is kept in."""

import json
from dataclasses import replace

import pytest

from tests.peer.test_roster import BOB, CAROL, NOW, OWN, REGISTRY, record, snapshot
from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PresharedKey, PrivateKey
from wgdisco.peer.interfaces import MdnsPolicy
from wgdisco.peer.io.state import MemberState, StateStore
from wgdisco.peer.roster import OFFLINE_TRUST, Accept, Memory
from wgdisco.tunnel.host_dns import DnsMode
from wgdisco.tunnel.offloads import Offloads

SECRET = PrivateKey(b"\1" * 32)
NEXT = PrivateKey(b"\7" * 32)
PSK = PresharedKey(b"\2" * 32)


@pytest.fixture
def store(tmp_path):
    return StateStore(tmp_path / "wgdisco")


def state() -> MemberState:
    told = snapshot(record("bob", BOB, 3, endpoint="203.0.113.9:7", live=True), epoch=4)
    return MemberState(
        name="home",
        private_key=SECRET,
        preshared_key=PSK,
        registries=("vpn.example.com:51820", "[2001:db8::1]:51820"),
        registry_key=REGISTRY,
        link="00ff",
        memory=Memory(told, NOW, 4, {"bob": BOB}, {BOB: CAROL}),
        accept=Accept.ASK,
        block_incoming=True,
        mdns=MdnsPolicy(everywhere=True, not_on=("wlan0",)),
        met=("02:00:00:00:00:01@wlan0", "10.1.1.0/24@eth0"),
        offloads=Offloads(udp_gso=False),
        receipt="c2VhbGVk",
        offline_trust=3600.0,
        host_dns=DnsMode.RESOLVED,
        zone="wg.example.",
        metrics=Endpoint.from_text("127.0.0.1:9586"),
        listen_port=4242,
        next_private_key=NEXT,
        endpoints={BOB: Endpoint.from_text("[2001:db8::9]:7")},
    )


def test_what_is_saved_is_loaded(store):
    assert store.names() == []
    assert store.load("home") is None
    store.save(state())
    assert store.load("home") == state()
    assert store.by_link("00ff") == state()
    assert store.by_link("00fe") is None
    assert store.names() == ["home"]
    assert SECRET.public_key() == OWN


def test_a_file_of_before_receipts_is_read(store):
    store.save(state())
    (path,) = store.directory.iterdir()
    data = json.loads(path.read_text())
    del data["receipt"], data["offline_trust"]
    path.write_text(json.dumps(data))
    assert store.load("home") == replace(state(), receipt="", offline_trust=OFFLINE_TRUST)


def test_a_file_of_before_metrics_is_read(store):
    store.save(state())
    (path,) = store.directory.iterdir()
    data = json.loads(path.read_text())
    del data["metrics"]
    path.write_text(json.dumps(data))
    assert store.load("home") == replace(state(), metrics=None)


def test_a_file_of_before_mdns_is_read(store):
    store.save(state())
    (path,) = store.directory.iterdir()
    data = json.loads(path.read_text())
    del data["mdns"], data["met"]
    path.write_text(json.dumps(data))
    assert store.load("home") == replace(state(), mdns=MdnsPolicy(), met=())


def test_a_file_of_before_offloads_is_read(store):
    store.save(state())
    (path,) = store.directory.iterdir()
    data = json.loads(path.read_text())
    assert data.pop("offload") == "tso,uso,udp_gro"
    path.write_text(json.dumps(data))
    assert store.load("home") == replace(state(), offloads=Offloads())


def test_only_root_reads_it_and_nothing_else_is_left(store):
    store.save(state())
    store.save(replace(state(), listen_port=1))
    (path,) = store.directory.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert store.directory.stat().st_mode & 0o777 == 0o700
    assert store.load("home").listen_port == 1


def test_a_write_that_was_cut_short_leaves_what_was_there(store):
    store.save(state())
    (store.directory / ".home.json.new").write_text("{")
    assert store.load("home") == state()
    assert store.names() == ["home"]
    store.save(state())


def test_forgetting(store):
    store.save(state())
    store.forget("home")
    store.forget("home")
    assert store.load("home") is None


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"private_key": SECRET.to_text()[:-2]},
        {"snapshot": {}},
        {"registries": ["nonsense"]},
        {"pins": []},
        {"epoch": None},
        {"offload": "x"},
        {"endpoints": {"x": "y"}},
    ],
)
def test_a_damaged_file_is_one_clear_line_without_secrets_and_is_not_overwritten(store, change):
    store.save(state())
    path = store.directory / "home.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = path.read_bytes()
    with pytest.raises(LocalError, match="damaged") as raised:
        store.load("home")
    assert "\n" not in str(raised.value)
    assert SECRET.to_text()[:10] not in str(raised.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "\xff", "[" * 100_000])
def test_what_is_no_state_at_all(store, text):
    store.save(state())
    (store.directory / "home.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(LocalError, match="damaged"):
        store.load("home")


def test_a_name_is_not_a_path(store):
    with pytest.raises(LocalError):
        store.load("../etc/passwd")


def test_a_disk_that_refuses_says_so(store, tmp_path):
    (tmp_path / "wgdisco").write_text("a file, not a directory")
    with pytest.raises(LocalError, match="cannot write"):
        store.save(state())


def test_an_enrolment_goes_on_with_the_key_it_began_with(store):
    assert store.enrolment_key("00ff", SECRET) == SECRET
    assert store.enrolment_key("00ff", NEXT) == SECRET
    assert store.enrolment_key("0100", NEXT) == NEXT
    assert store.names() == []
    store.enrolment_done("00ff")
    store.enrolment_done("00ff")
    assert store.enrolment_key("00ff", NEXT) == NEXT


def test_secrets_are_not_in_repr():
    text = repr(state())
    for secret in (SECRET, NEXT, PSK):
        assert secret.to_text() not in text
        assert repr(secret.raw)[2:-1] not in text
