"""Where a join link is read from, and which `join` is meant."""

import io

import pytest

from wgdisco import cli, config
from wgdisco.errors import ConfigError


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
    "words", [["--conf", "x.conf", "--network", "home"], ["wgdisco://x", "--zone", "example.com."]]
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
