"""wireguard-go's own system test, tests/netns.sh of its source, unchanged, with our engine for its argument.

It is not ours to copy; Go fetches it, and checks it against its checksum database.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.tunnel.bed import TUNNEL
from wgdisco.lab.world import environment

pytestmark = [pytest.mark.usefixtures("needs_lab"), pytest.mark.soak]

SOURCE = "golang.zx2c4.com/wireguard@v0.0.0-20260522210424-ecfc5a8d5446"
# Its namespaces are named, and its sockets in /run: both in namespaces of our own, which end with us.
APART = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
TIMEOUT = 900.0


@pytest.fixture
def script() -> Path:
    if os.geteuid() != 0:
        pytest.skip("netns.sh needs root")
    if shutil.which("go") is None:
        pytest.skip("Go is not installed: it fetches wireguard-go's source")
    command = ["go", "mod", "download", "-json", SOURCE]
    fetched = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if fetched.returncode != 0:
        pytest.skip(f"Go cannot fetch {SOURCE}: {fetched.stderr or fetched.stdout}")
    return Path(json.loads(fetched.stdout)["Dir"]) / "tests" / "netns.sh"


@pytest.mark.rule("N1", "N2", "N4", "N5", "N8", "N13", "N15", "E3", "E7")
def test_wireguard_go_s_own_script_passes(script, tmp_path):
    program = tmp_path / "wgdisco-tunnel"
    program.write_text(f"#!/bin/sh\nexec {TUNNEL[0]} {TUNNEL[1]} '{TUNNEL[2]}' \"$@\"\n")
    program.chmod(0o755)
    command = [*APART, "sh", "-c", 'mount -t tmpfs tmpfs /run && exec bash "$0" "$1"', str(script), str(program)]
    log = tmp_path / "output"
    # Its standard input must stay open and silent: it sleeps by waiting for that.
    with log.open("w") as output:
        run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment())
        try:
            run.wait(TIMEOUT)
        finally:
            run.kill()
            run.communicate()
    said = log.read_text(errors="replace").splitlines()
    assert run.returncode == 0, "\n".join(said[-60:])
    assert any("Objects that were created were also destroyed." in line for line in said)
