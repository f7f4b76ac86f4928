import argparse

import pytest

from tests.registry.test_stock import LAPTOP, NETWORK, PHONE, VPS
from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.registry.facts import Member, Put
from wgdisco.registry.membership import Membership
from wgdisco.registry.stock import add_device
from wgdisco.stock_cli import add_verb
from wgdisco.tunnel.conf import parse_conf


@pytest.fixture
def membership():
    vps = Member("vps", VPS, 2, ("all",), 0.0, proven=True, endpoint=Endpoint.from_text("192.0.2.7:51820"))
    return Membership([NETWORK, vps, Member("laptop", LAPTOP, 3, ("all",), 0.0, proven=True)])


@pytest.fixture
def add(membership):
    def commit(_args, request):
        changes, facts = add_device(membership, request, 5.0)
        membership.apply(changes)
        return facts

    parser = argparse.ArgumentParser()
    add_verb(parser.add_subparsers(), commit)

    def run(*words):
        args = parser.parse_args(["add", *words])
        return args.run(args)

    return run


def test_the_file_goes_to_stdout_and_what_to_know_to_stderr(add, capsys, membership):
    assert add("phone", "--group", "all", "--group", "guests") == 0
    said = capsys.readouterr()
    conf = parse_conf(said.out, "stdout")
    phone = membership.by_name("phone")
    assert conf.device.private_key.public_key() == phone.public_key
    assert conf.device.peers[0].preshared_key == phone.preshared_key
    assert phone.groups == ("all", "guests")
    assert "The registry decrypts its traffic to members" in said.err
    assert conf.device.private_key.to_text() not in said.err


def test_direct_and_full_tunnel_are_said(add, capsys):
    add("phone", "--direct-to", "vps", "--full-tunnel", "--dns", "9.9.9.9, 2620:fe::fe")
    said = capsys.readouterr()
    assert "DNS = 9.9.9.9, 2620:fe::fe\n" in said.out
    assert "to the Internet too" in said.err
    assert "but for vps, reached directly" in said.err


def test_dns_without_an_address_is_the_registry(add, capsys):
    add("phone", "--dns")
    said = capsys.readouterr()
    assert "DNS = 10.7.8.1, fd77::1, wg.internal\n" in said.out
    assert "names in wg.internal only, until `wgdisco registry set forward-dns on`" in said.err


def test_where_the_registry_forwards_nothing_is_said_of_it(add, capsys, membership):
    membership.apply(membership.set_forward_dns(is_on=True))
    add("phone", "--dns")
    assert "forward-dns" not in capsys.readouterr().err


def test_a_code_on_something_that_is_no_terminal_has_no_colours(add, capsys):
    add("phone", "--qr")
    out = capsys.readouterr().out
    assert "█" in out
    assert "\x1b" not in out


def test_a_key_of_its_own_is_taken_and_never_replaced(add, capsys, membership):
    add("phone", "--public-key", str(PHONE.public_key()))
    said = capsys.readouterr()
    assert membership.by_name("phone").public_key == PHONE.public_key()
    assert "PrivateKey = REPLACE" in said.out
    assert "Put its own private key" in said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--group", "all,guests"], "cannot be a name"),
        (["--public-key", str(PHONE.public_key()), "--qr"], "--qr needs the private key"),
        (["--public-key", "rubbish"], "--public-key: a key is"),
        (["--dns", "8.8.8.8\nPostUp=reboot"], "--dns: "),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_added(add, membership, words, said):
    with pytest.raises(LocalError, match=said):
        add("phone", *words)
    assert len(membership.members) == 2


def test_a_file_too_long_for_a_code_is_printed_as_text(add, capsys, membership):
    for number in range(20):
        key = bytes([number + 50]) * 32
        member = Member(f"m{number}", type(VPS)(key), 20 + number, ("all",), 0.0, proven=True)
        membership.apply([Put(member)])
        membership.apply(membership.set_endpoint(member.name, Endpoint.from_text(f"192.0.2.{number + 1}:51820")))
    add("phone", "--qr", *(word for number in range(20) for word in ("--direct-to", f"m{number}")))
    said = capsys.readouterr()
    assert said.out.startswith("[Interface]")
    assert "too long for a QR code" in said.err
