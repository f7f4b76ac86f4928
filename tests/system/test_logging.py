"""What real daemons say with `--log json -v`: JSON line by line, whoever talks to them, and no secret."""

import json
import os
import signal
import sys

import pytest

from tests.system.machine import zone_server
from tests.system.members import Daemon, Mesh, read_lab
from tests.system.network import PROGRAM, await_

pytestmark = pytest.mark.usefixtures("needs_lab")

RUBBISH = """
import socket, sys
for said in (b"\\x16\\x03\\x01 rubbish\\r\\n\\r\\n", b"GET /" + b"x" * 20000 + b" HTTP/1.1\\r\\n\\r\\n",
             b"POST /v1/punch HTTP/1.1\\r\\nHost: " + sys.argv[1].encode() + b"\\r\\nContent-Length: -1\\r\\n\\r\\n",
             b"POST /v1/punch HTTP/1.1\\r\\nHost: " + sys.argv[1].encode()
             + b"\\r\\nContent-Type: application/json\\r\\nContent-Length: 4\\r\\n\\r\\n{]}{",
             b"GET / HTTP/1.1\\r\\nHost: a\\x1b[2J\\nb\\r\\n\\r\\n"):
    with socket.create_connection((sys.argv[1], 80), 5) as connection:
        connection.sendall(said)
        connection.recv(4096)
"""


def events(daemon):
    """Each line, read."""
    return [json.loads(line) for line in daemon.err]


def test_every_line_is_json_and_none_has_a_secret():
    json_log = ("--log", "json", "-v")
    with read_lab("port-restricted", "port-restricted") as lab:
        mesh = Mesh(lab)
        mesh.stop_registry()
        mesh.daemon = Daemon(lab.hosts["registry"], [*PROGRAM, "registry", "run", *json_log])
        mesh.daemon.wait_for('"started"')
        links = {host: mesh.registry("invite", host) for host in ("alice", "bob")}
        for host, link in links.items():
            mesh.stay(host, "join", link, *json_log)
            mesh.members[host].wait_for('"direct"')
        mesh.verb("alice", "rotate-key")
        registry = f"{mesh.address('alice').rpartition('.')[0]}.1"
        lab.hosts["alice"].run([sys.executable, "-c", RUBBISH, registry])
        os.kill(zone_server(mesh.daemon.process.pid), signal.SIGKILL)
        mesh.daemon.wait_for("it is started again")
        mesh.registry("revoke", "bob")
        await_(lambda: any(one["event"] == "revoked" for one in events(mesh.members["bob"])), "bob to say so")
        files = [lab.hosts[host].run(["cat", "/var/lib/wgdisco/mesh.json"]).stdout for host in ("alice", "bob")]
        secrets = [json.loads(file)[name] for file in files for name in ("private_key", "preshared_key")]
        failed = lab.hosts["bob"].run([*PROGRAM, "join", links["alice"] + "_", *json_log], check=False)
        assert failed.returncode == 2
        (line,) = map(json.loads, failed.stderr.splitlines())
        assert line["level"] == "error"
        assert line["event"].startswith("the join link is damaged")
        for daemon in (mesh.daemon, *mesh.members.values()):
            daemon.process.terminate()
            daemon.process.wait()
    daemons = [mesh.daemon, *mesh.members.values()]
    for daemon in daemons:
        for event in events(daemon):
            assert event["schema"] == 1
            assert {"at", "level", "event"} <= event.keys()
            assert "exception" not in event
    assert {"started", "handshake", "published"} <= {event["event"] for event in events(mesh.daemon)}
    assert [line for member in mesh.members.values() for line in member.out] == []
    assert {"started", "connected", "member", "order", "direct"} <= {
        event["event"] for event in events(mesh.members["alice"])
    }
    everything = "".join(line for daemon in daemons for line in daemon.err) + failed.stderr
    for secret in [*secrets, *(link.rpartition("/")[2] for link in links.values())]:
        assert secret
        assert secret not in everything
