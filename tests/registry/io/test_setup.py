"""What `wgdisco registry init` finds out and sets up, below a root directory that is not the machine's."""

import asyncio
from ipaddress import ip_network

import pytest

from wgdisco.cli import build_parser
from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.registry.io import setup
from wgdisco.registry.io.store import peek
from wgdisco.tunnel.firewall import Mode


def registry(*words):
    args = build_parser().parse_args(["registry", *map(str, words)])
    return args.run(args)


def test_prefixes_are_private_and_overlap_nothing():
    taken = [*ip_network("10.0.0.0/8").address_exclude(ip_network("10.255.0.0/16")), ip_network("fd00::/9")]
    for _ in range(5):
        prefix4, prefix6 = setup.draw_prefixes(taken)
        assert prefix4.subnet_of(ip_network("10.255.0.0/16"))
        assert prefix6.subnet_of(ip_network("fd80::/9"))
    with pytest.raises(LocalError, match="routed here already"):
        setup.draw_prefixes([ip_network("10.0.0.0/8")])


def test_local_networks_have_no_default_route():
    assert all(network.prefixlen for network in asyncio.run(setup.local_networks()))


def test_the_unit_is_started_only_where_it_can_be(tmp_path):
    assert not setup.start_unit(tmp_path)
    setup.stop_unit(tmp_path)


def test_init_invite_and_uninstall_without_systemd(tmp_path, capsys):
    """With it: tests/system/test_units.py."""
    place = ["--store", tmp_path / "registry.db", "--root", tmp_path]
    for firewall in (["--firewall", "none"], []):
        assert registry("init", "--network", "testnet", "--endpoint", "vpn.example.net", *firewall, *place) == 0
    made = peek(tmp_path / "registry.db")
    assert made is not None
    assert made.firewall is Mode.NONE, "it was said once"
    said = capsys.readouterr().err
    assert "already" in said
    assert "UDP 51820" in said
    assert "there is no systemd here" in said
    assert registry("invite", "laptop1", "--expires", "7d", *place) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("wgdisco://vpn.example.net:51820/1/")
    assert out.count("\n") == 1
    with pytest.raises(LocalError, match="invited already"):
        registry("invite", "laptop1", *place)
    assert registry("list", *place) == 0
    assert "laptop1" in capsys.readouterr().out
    backup = tmp_path / "backup"
    assert registry("backup", backup, *place) == 0
    assert registry("revoke", "laptop1", *place) == 0
    assert registry("restore", backup, *place) == 0
    assert registry("uninstall", "--yes", *place) == 0
    assert not (tmp_path / "registry.db").exists()
    assert registry("uninstall", "--yes", *place) == 0
    with pytest.raises(LocalError, match="registry init"):
        registry("list", *place)


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("vpn.example.net", "vpn.example.net:51820"),
        ("vpn.example.net:443", "vpn.example.net:443"),
        ("198.51.100.1", "198.51.100.1:51820"),
        ("2001:db8::1", "[2001:db8::1]:51820"),
        ("[2001:db8::1]", "[2001:db8::1]:51820"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
    ],
)
def test_an_endpoint_may_be_given_in_any_form(tmp_path, capsys, given, whole):
    place = ["--store", tmp_path / "registry.db", "--root", tmp_path]
    registry("init", "--network", "testnet", "--firewall", "none", "--endpoint", given, *place)
    registry("invite", *place)
    assert capsys.readouterr().out.startswith(f"wgdisco://{whole}/1/")


def test_the_default_address_is_public_or_refused_with_the_remedy():
    try:
        address = setup.default_address()
    except LocalError as error:
        assert "--endpoint" in str(error)  # noqa: PT017
    else:
        assert Endpoint.from_text(f"{address}:1" if ":" not in address else f"[{address}]:1").is_global
