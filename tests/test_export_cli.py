"""`wgdisco export`: which network, and which files are written."""

import asyncio
import shutil
import subprocess
from contextlib import closing

import pytest

from tests.registry.test_stock import LAPTOP, NETWORK
from wgdisco import cli
from wgdisco.errors import ConfigError, LocalError
from wgdisco.registry.facts import Member, Put
from wgdisco.registry.io.store import Store
from wgdisco.tunnel.conf import parse_conf


@pytest.fixture
def export(tmp_path):
    path = tmp_path / "registry.db"
    with closing(Store.open(path)) as store:
        asyncio.run(store.commit([Put(NETWORK), Put(Member("laptop", LAPTOP, 3, ("all",), 0.0, proven=True))]))

    def run(*words):
        args = cli.build_parser().parse_args(["export", "--store", str(path), *words])
        return args.run(args)

    return run


def test_a_registrys_file_goes_to_stdout_also_while_it_runs(export, tmp_path, capsys):
    with closing(Store.open(tmp_path / "registry.db")):
        assert export("mesh") == 0
    conf = parse_conf(capsys.readouterr().out, "stdout")
    assert [peer.public_key for peer in conf.device.peers] == [LAPTOP]


def test_files_are_for_root_alone_and_nothing_is_written_over_unless_forced(export, tmp_path):
    out = tmp_path / "out"
    export("mesh", "--all", "-o", str(out))
    files = {str(path.relative_to(out)) for path in out.rglob("*.conf")}
    assert files == {"mesh.conf", "members/laptop.conf"}
    assert {path.stat().st_mode & 0o777 for path in out.rglob("*.conf")} == {0o600}
    (out / "mesh.conf").unlink()
    with pytest.raises(LocalError, match=r"members/laptop\.conf: there already; --force"):
        export("mesh", "--all", "-o", str(out))
    assert not (out / "mesh.conf").exists(), "all or nothing"
    export("mesh", "--all", "-o", str(out), "--force")
    assert (out / "mesh.conf").exists()


@pytest.mark.skipif(shutil.which("wg-quick") is None, reason="wg-quick is not installed")
def test_a_directory_gets_the_networks_file_and_wg_quick_reads_it(export, tmp_path):
    (tmp_path / "etc").mkdir()
    export("mesh", "-o", str(tmp_path / "etc"))
    stripped = subprocess.run(
        ["wg-quick", "strip", tmp_path / "etc/mesh.conf"], check=True, capture_output=True, text=True
    ).stdout
    assert "Address" not in stripped
    assert f"PublicKey = {LAPTOP}" in stripped


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["nowhere"], LocalError, "knows no network 'nowhere'"),
        (["mesh", "--all"], ConfigError, "-o DIR"),
        (["mesh", "-o", "/nonexistent/x.conf"], LocalError, "cannot write /nonexistent/x.conf"),
    ],
)
def test_what_cannot_be_done_is_one_line(export, words, error, said):
    with pytest.raises(error, match=said):
        export(*words)
