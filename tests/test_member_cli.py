"""Where a join link is read from, and which `join` is meant."""

import io

import pytest

from wgdisco import cli, config, member_verbs
from wgdisco.errors import ConfigError
from wgdisco.peer.interfaces import MdnsPolicy

KNOWN = MdnsPolicy(not_on=("docker0",))


def test_a_link_comes_from_the_argument_standard_input_a_file_or_a_credential(tmp_path, monkeypatch):
    (tmp_path / "link").write_text("wgdisco://file\n")
    assert config.read_link("wgdisco://x", {}) == "wgdisco://x"
    assert config.read_link(f"@{tmp_path}/link", {}) == "wgdisco://file\n"
    assert config.read_link(None, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "wgdisco://file\n"
    assert config.read_link(None, {"CREDENTIALS_DIRECTORY": str(tmp_path / "none")}) is None
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
    assert member_verbs.mdns_policy(KNOWN, everywhere=args.mdns, none_on=args.no_mdns) == expected


@pytest.mark.parametrize(
    "words", [["--mdns", "--no-mdns"], ["--no-mdns", "wgdisco://h:1/1/abc/SECRET"], ["--no-mdns", "@link"]]
)
def test_what_mdns_cannot_be_is_refused_and_no_link_repeated(words):
    args = cli.build_parser().parse_args(["join", *words])
    with pytest.raises(ConfigError, match="--no-mdns") as refused:
        member_verbs.mdns_policy(KNOWN, everywhere=args.mdns, none_on=args.no_mdns)
    assert "SECRET" not in str(refused.value)
