"""`wgdisco registry init --adopt` below a root directory that is not the machine's: what it takes, says and refuses."""

import pytest

from tests.registry.test_adopt import ANGRISTAN, NYR
from wgdisco.cli import build_parser
from wgdisco.errors import ConfigError, LocalError
from wgdisco.registry.io.store import is_there, peek


@pytest.fixture
def server(tmp_path):
    path = tmp_path / "etc" / "wireguard" / "wgd-test.conf"
    path.parent.mkdir(parents=True)
    path.write_text(ANGRISTAN)
    return path


def init(root, *words):
    place = ["--store", root / "registry.db", "--root", root, "--firewall", "none"]
    args = build_parser().parse_args(["registry", "init", *map(str, [*words, *place])])
    return args.run(args)


@pytest.mark.parametrize("by_path", [False, True])
def test_a_server_that_is_down_is_adopted_by_name_or_by_file(tmp_path, server, capsys, by_path):
    asked = server if by_path else "wgd-test"
    assert init(tmp_path, "--adopt", asked, "--network", "testnet", "--endpoint", "vpn.example.net") == 0
    network = peek(tmp_path / "registry.db")
    assert (network.name, network.endpoints, network.predecessor) == ("testnet", ("vpn.example.net:61234",), None)
    said = capsys.readouterr().err
    for line in ("alice: ", "bobs-phone: ", "not taken over: PostUp, PostDown", "wgdisco registry run", "UDP 61234"):
        assert line in said
    assert "wg-quick down" not in said, "there is nothing to stop"
    assert server.read_text() == ANGRISTAN
    assert init(tmp_path, "--adopt", asked) == 0
    assert "nothing was changed" in capsys.readouterr().err


def test_where_it_is_reached_is_in_nyrs_file(tmp_path, server):
    server.write_text(NYR)
    assert init(tmp_path, "--adopt", server, "--network", "testnet") == 0
    assert peek(tmp_path / "registry.db").endpoints == ("203.0.113.77:51820",)


@pytest.mark.parametrize(
    ("words", "text", "error", "why"),
    [
        (["--adopt", "wgd-none"], None, ConfigError, r"wgd-none\.conf: cannot read it: No such file"),
        (["--adopt", "wgd-test", "--port", "7"], None, ConfigError, "--port: a server that is adopted keeps its own"),
        (["--adopt", "wgd-test", "--network", "lo"], None, LocalError, "an interface lo here already"),
        (["--adopt", "wgd-test", "--endpoint", "a b"], None, ConfigError, "--endpoint: 'a b' is not"),
        (["--adopt", "wgd-test"], "[Interface]\nNonsense = 1\n", ConfigError, r"wgd-test\.conf:2: Nonsense"),
        (["--adopt", "wgd-test"], "[Interface]\n", LocalError, "nothing was changed"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(tmp_path, server, words, text, error, why):
    if text is not None:
        server.write_text(text)
    with pytest.raises(error, match=why):
        init(tmp_path, "--network", "testnet", "--endpoint", "192.0.2.1", *words)
    assert not is_there(tmp_path / "registry.db")


def test_every_refusal_is_a_line(tmp_path, server, capsys):
    server.write_text("[Interface]\n")
    with pytest.raises(LocalError):
        init(tmp_path, "--adopt", server, "--network", "testnet", "--endpoint", "192.0.2.1")
    assert capsys.readouterr().err.splitlines() == [
        "wgdisco: the server: it has no PrivateKey",
        "wgdisco: the server: it has no IPv4 address, which a registry needs",
    ]
