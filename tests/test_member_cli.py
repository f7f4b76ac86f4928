"""Where a join link is read from, and which `join` is meant."""

import io
from dataclasses import replace

import pytest

from wgdisco import cli, config, member_options
from wgdisco.api import MemberRecord, NetworkRecord, Snapshot
from wgdisco.errors import ConfigError, LocalError
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.offers import EXIT
from wgdisco.peer.interfaces import MdnsPolicy
from wgdisco.peer.io.state import MemberState
from wgdisco.peer.roster import Memory

KNOWN = MdnsPolicy(not_on=("docker0",))


def test_a_link_comes_from_the_argument_standard_input_a_file_or_a_credential(tmp_path, monkeypatch):
    (tmp_path / "link").write_text("wgdisco://file\n")
    assert config.read_link("wgdisco://x", {}) == "wgdisco://x"
    assert config.read_link(f"@{tmp_path}/link", {}) == "wgdisco://file\n"
    assert config.read_link(None, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "wgdisco://file\n"
    assert config.read_link(None, {"CREDENTIALS_DIRECTORY": str(tmp_path / "none")}) is None
    assert config.read_link(None, {"WGDISCO_LINK_FILE": f"{tmp_path}/link"}) == "wgdisco://file\n"
    with pytest.raises(ConfigError, match="none: cannot read it"):
        config.read_link(None, {"WGDISCO_LINK_FILE": f"{tmp_path}/none"})
    assert config.read_link(None, {}) is None
    monkeypatch.setattr("sys.stdin", io.StringIO("wgdisco://stdin\nmore\n"))
    assert config.read_link("-", {}) == "wgdisco://stdin\n"


def test_a_link_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="none: cannot read it"):
        config.read_link(f"@{tmp_path}/none", {})


@pytest.mark.parametrize(
    "words",
    [
        ["--conf", "x.conf", "--network", "home"],
        ["wgdisco://x", "--zone", "example.com."],
        ["--conf", "x.conf", "--no-mdns"],
        ["--conf", "x.conf", "--offline-trust", "1d"],
        ["--conf", "x.conf", "--exit", "bob"],
    ],
)
def test_a_conf_and_a_link_do_not_go_together(words):
    args = cli.build_parser().parse_args(["join", *words])
    with pytest.raises(ConfigError, match="join link needs none"):
        args.run(args)


def test_a_damaged_link_is_not_repeated():
    args = cli.build_parser().parse_args(["join", "wgdisco://h:1/1/abc/SECRET"])
    with pytest.raises(ConfigError, match="damaged") as raised:
        args.run(args)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], KNOWN),
        (["--mdns"], MdnsPolicy(everywhere=True)),
        (["--no-mdns"], MdnsPolicy(nowhere=True)),
        (["--no-mdns=wlan0", "--no-mdns=eth0", "--no-mdns=wlan0"], MdnsPolicy(not_on=("wlan0", "eth0"))),
        (["--mdns", "--no-mdns=wlan0"], MdnsPolicy(everywhere=True, not_on=("wlan0",))),
        (["--no-mdns", "--no-mdns=wlan0"], MdnsPolicy(nowhere=True, not_on=("wlan0",))),
    ],
)
def test_where_mdns_is_spoken(words, expected):
    args = cli.build_parser().parse_args(["join", *words])
    assert member_options.mdns_policy(KNOWN, everywhere=args.mdns, none_on=args.no_mdns) == expected


@pytest.mark.parametrize(
    "words", [["--mdns", "--no-mdns"], ["--no-mdns", "wgdisco://h:1/1/abc/SECRET"], ["--no-mdns", "@link"]]
)
def test_what_mdns_cannot_be_is_refused_and_no_link_repeated(words):
    args = cli.build_parser().parse_args(["join", *words])
    with pytest.raises(ConfigError, match="--no-mdns") as refused:
        member_options.mdns_policy(KNOWN, everywhere=args.mdns, none_on=args.no_mdns)
    assert "SECRET" not in str(refused.value)


NETWORK = NetworkRecord("home", "z.", 1, ["10.9.8.0/24"], ["h:1"], str(PublicKey(bytes(32))), ["10.9.8.1"])
SELF = MemberRecord("a", str(PublicKey(bytes(32))), ["10.9.8.2"], "member", "member", [])
STATE = MemberState(
    "home",
    PrivateKey(bytes(32)),
    PresharedKey(bytes(32)),
    ("h:1",),
    PublicKey(bytes(32)),
    "link",
    Memory(
        Snapshot(NETWORK, MemberRecord("a", str(PublicKey(bytes(32))), ["10.9.8.2"], "member", "member", []), []),
        0.0,
        1,
    ),
)


def test_offers_and_the_exit_are_kept_until_it_is_said_otherwise():
    one = member_options.with_ways(STATE, "10.1.0.0/24,fd01::/64", None)
    assert [str(network) for network in one.offers] == ["10.1.0.0/24", "fd01::/64"]
    assert member_options.with_ways(one, None, "bob") == replace(one, exit_name="bob")
    assert member_options.with_ways(replace(one, exit_name="bob"), "none", "none") == STATE
    both = member_options.with_ways(one, "exit", None)
    assert both.offers == EXIT
    assert MemberState.from_json(both.to_json() | {"exit": "bob"}) == replace(both, exit_name="bob")
    old = {name: value for name, value in both.to_json().items() if name not in ("offers", "exit")}
    assert MemberState.from_json(old) == STATE


@pytest.mark.parametrize(
    ("state", "offer", "exit_name", "says"),
    [
        (STATE, "10.1.0.1/24", None, "--offer: 10.1.0.1/24 has bits set past its length: write 10.1.0.0/24"),
        (STATE, "lan", None, "--offer: 'lan' is not a subnet"),
        (STATE, "10.9.0.0/16", None, "--offer: 10.9.0.0/16: it overlaps 10.9.8.0/24"),
        (STATE, "exit", "bob", "--exit and --offer exit"),
        (replace(STATE, exit_name="bob"), "exit", None, "--exit and --offer exit"),
        (replace(STATE, offers=EXIT), None, "bob", "--exit and --offer exit"),
        (replace(STATE, block_incoming=True), "10.1.0.0/24", None, "--offer and --block-incoming"),
    ],
)
def test_what_cannot_be_offered_or_used_is_one_line(state, offer, exit_name, says):
    with pytest.raises(ConfigError) as raised:
        member_options.with_ways(state, offer, exit_name)
    assert str(raised.value).startswith(says)


def test_an_exit_that_can_be_nobodys_name_is_refused():
    with pytest.raises(LocalError, match="cannot be a name"):
        member_options.with_ways(STATE, None, "10.1.0.1/24")
