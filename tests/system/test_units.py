"""The systemd units: the daemons under a real systemd, as the user `wgdisco` with the capabilities they name."""

import json
import shutil
import subprocess

import pytest

from tests.system.machine import ROOT, machine
from tests.system.network import PROGRAM, Network, await_
from tests.system.resolvers import give_resolved_to_machine
from tests.system.test_walled import WALLS
from wgdisco.lab.topology import Lab
from wgdisco.peer.io import service
from wgdisco.tunnel.engines import EngineKind

pytestmark = pytest.mark.usefixtures("needs_lab")

UNITS = ROOT / "examples" / "systemd"
NET_ADMIN, NET_BIND_SERVICE = 1 << 12, 1 << 10
RESOLVECTL = "/usr/local/sbin/resolvectl"
EXPOSURE_MAX = 20  # tenths
GROUP = "4242"
INVITE = ("wgdisco", "registry", "invite")
MAKE_USER = 'u wgdisco - "wgdisco daemons" /var/lib/wgdisco\n'


def unit_texts():
    """Every unit there is, by file name: those that are installed, and those that `join` writes."""
    texts = {path.name: path.read_text() for path in UNITS.glob("*.service")}
    joins = {
        f"wgdisco-join@{kind.value}.service": service.unit_text(kind.value, "/usr/local/bin/wgdisco", kind)
        for kind in EngineKind
    }
    return texts | joins


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze (systemd) is not installed")
@pytest.mark.parametrize("name", unit_texts())
def test_exposure_is_at_most_two(tmp_path, name):
    path = tmp_path / name
    path.write_text(unit_texts()[name])
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager", path]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert "Overall exposure level" in done.stdout, done.stderr
    assert done.returncode == 0, done.stdout


def install(booted):
    """What `make install` leaves of units, and its user."""
    for path in UNITS.glob("*.service"):
        booted.run("cp", f"/opt/wgdisco/source/examples/systemd/{path.name}", "/etc/systemd/system/")
    booted.run("systemd-sysusers", "-", text=MAKE_USER)
    booted.run("systemctl", "daemon-reload")


def daemon(booted, unit):
    """The user and the effective capabilities of a unit's process."""
    pid = booted.run("systemctl", "show", "--property=MainPID", "--value", unit).stdout.strip()
    lines = booted.run("cat", f"/proc/{pid}/status").stdout.splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    user = booted.run("id", "-nu", fields["Uid"].split()[1]).stdout.strip()
    return user, int(fields["CapEff"], 16)


def wg_sees(booted, interface):
    """Whether root's `wg` sees the daemon's peers and is not let change them. True where there is no `wg` to ask."""
    if shutil.which("wg") is None:
        return True
    owners = booted.run("stat", "-c", "%U %a", "/run/wireguard", f"/run/wireguard/{interface}.sock").stdout
    assert owners == "root 1775\nwgdisco 700\n"
    refused = booted.run("wg", "set", interface, "listen-port", "7", check=False)
    assert refused.stderr == "Unable to modify interface: Operation not permitted\n"
    return "latest handshake" in booted.run("wg", "show", interface).stdout


def join(booted, link, name, *flags):
    done = booted.run("wgdisco", "join", "-", "--name", name, *flags, text=link, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + booted.journal("wgdisco-join@mesh")
    return done.stdout


def address(registry, name):
    return json.loads(registry.run("wgdisco", "registry", "show", name, "-o", "json").stdout)["addresses"][0]


def test_a_network_under_systemd_from_init_to_uninstall():
    with (
        Lab() as lab,
        machine(lab.hosts["registry"]) as registry,
        machine(lab.hosts["alice"]) as alice,
        machine(lab.hosts["bob"]) as bob,
    ):
        # nothing is installed but the program: `init` and `join` do the rest
        registry.run("sh", "-ec", WALLS["docker"])
        done = registry.run("wgdisco", "registry", "init", check=False)
        assert "runs, and starts with the machine" in done.stderr, done.stderr + registry.journal("wgdisco-registry")
        join(alice, registry.run(*INVITE).stdout, "alice")
        assert "alice " in join(bob, registry.run(*INVITE).stdout, "bob", "--block-incoming")
        assert " 0% packet loss" in bob.run("ping", "-q", "-c3", "-i0.2", address(registry, "alice")).stdout
        assert "wgdisco_mesh" in bob.run("nft", "list", "tables").stdout

        assert daemon(registry, "wgdisco-registry") == ("wgdisco", NET_ADMIN | NET_BIND_SERVICE)
        assert daemon(alice, "wgdisco-join@mesh") == ("wgdisco", NET_ADMIN)
        for booted in (registry, alice):
            owners = booted.run("find", "/var/lib/wgdisco", "-printf", "%u %m %P\n").stdout.splitlines()
            assert owners[0].split() == ["wgdisco", "700"]
            assert {line.split()[0] for line in owners} == {"wgdisco"}
            assert {line.split()[1] for line in owners[1:]} == {"600"}
            assert wg_sees(booted, "mesh")
        assert registry.run("cat", "/proc/sys/net/ipv4/conf/mesh/forwarding").stdout == "1\n"
        checked = registry.run("wgdisco", "registry", "check", check=False)
        assert checked.returncode == 0, checked.stdout

        registry.run("wgdisco", "registry", "backup", "/root/registry.backup")
        assert registry.run("stat", "-c", "%U %a", "/root/registry.backup").stdout == "root 600\n"
        registry.run("systemctl", "stop", "wgdisco-registry")
        registry.run("wgdisco", "registry", "restore", "/root/registry.backup")
        registry.run("wgdisco", "registry", "invite", "carol")
        assert "wgdisco-mesh" not in registry.run("iptables", "-S").stdout
        registry.run("systemctl", "start", "wgdisco-registry")
        await_(lambda: registry.run("wgdisco", "status", check=False).returncode == 0, "the registry again")
        assert "wgdisco-mesh" in registry.run("iptables", "-S").stdout
        assert "carol" in registry.run("wgdisco", "registry", "list").stdout

        alice.run("wgdisco", "down")
        assert alice.run("systemctl", "is-active", "wgdisco-join@mesh", check=False).stdout == "inactive\n"
        assert "bob " in alice.run("wgdisco", "up", check=False).stdout
        assert "mesh" in alice.run("wgdisco", "leave", "--yes").stdout
        assert alice.run("ls", "-A", "/var/lib/wgdisco").stdout == ""
        registry.run("wgdisco", "registry", "uninstall", "--yes")
        assert registry.run("ls", "-A", "/var/lib/wgdisco").stdout == ""
        assert registry.run("cat", "/proc/sys/net/ipv6/conf/all/forwarding").stdout == "0\n"


def test_a_network_of_files_under_systemd():
    """Pinned: root's own files are handed to the daemons' user."""
    with Lab() as lab:
        network = Network(lab)
        files = {
            name: lab.hosts[name].run(["cat", f"/run/lab/{name}.conf"]).stdout for name in ("registry", "alice", "bob")
        }
        network.timeline.close()
        with machine(lab.hosts["registry"]) as registry, machine(lab.hosts["alice"]) as alice:
            for booted, name in ((registry, "registry"), (alice, "alice")):
                install(booted)
                booted.run("install", "-d", "-m700", "/etc/wireguard")
                booted.run("install", "-d", "/etc/wgdisco")
                booted.run("sh", "-c", f"umask 077; cat >/etc/wireguard/{name}.conf", text=files[name])
            settings = "WGDISCO_ZONE=example.com.\nWGDISCO_DNS=10.0.0.254:53\n"
            alice.run("sh", "-c", "cat >/etc/wgdisco/alice.env", text=settings)
            registry.run("sh", "-c", "cat >/etc/wgdisco/registry.env", text=settings)
            told = [line.removeprefix("#   ") for line in (UNITS / "wgdisco-registry.service").read_text().splitlines()]
            drop_in = "\n".join(told[told.index("[Service]") :][:3])
            place = "/etc/systemd/system/wgdisco-registry.service.d"
            registry.run("sh", "-c", f"mkdir {place}; cat >{place}/pinned.conf", text=drop_in)
            registry.run("systemctl", "daemon-reload")
            registry.run("systemctl", "enable", "--now", "wgdisco-registry")
            alice.run("systemctl", "enable", "--now", "wgdisco-join@alice")
            ping = ["ping", "-q", "-c1", "-W1", "10.0.0.254"]
            try:
                await_(lambda: alice.run(*ping, check=False).returncode == 0, "alice to reach the registry")
            finally:
                print(alice.journal("wgdisco-join@alice"), registry.journal("wgdisco-registry"))
            assert "path: direct" in alice.run("wgdisco", "status").stdout
            assert daemon(alice, "wgdisco-join@alice") == ("wgdisco", NET_ADMIN | NET_BIND_SERVICE)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is not installed")
@pytest.mark.parametrize("host", ["registry", "alice"])
def test_the_group_may_ask_for_status(host):
    """Without systemd: as an ordinary user with a unit's capabilities, and nobody of the group but another."""
    with Lab() as lab, Network(lab) as network:
        booted = lab.hosts[host]
        users = (
            f"(cat /etc/group; echo wgdisco:x:{GROUP}:) >/run/group; mount -B /run/group /etc/group;"
            f"install -d -o {GROUP} -g {GROUP} /run/wgdisco; chmod 755 /run/lab; chown {GROUP} /run/lab/{host}.conf;"
            "mount -t tmpfs -o mode=755 tmpfs /run/dev 2>/dev/null || mkdir -p /run/dev;"
            "mknod -m 666 /run/dev/tun c 10 200; mount -B /run/dev/tun /dev/net/tun"
        )
        booted.run(["sh", "-ec", users])
        names = "+net_admin,+net_bind_service"
        confined = ["setpriv", f"--reuid={GROUP}", f"--regid={GROUP}", "--clear-groups", "--no-new-privs"]
        confined += [f"--inh-caps=-all,{names}", f"--ambient-caps=-all,{names}", f"--bounding-set=-all,{names}"]
        booted.popen([*confined, *network.command(host)])
        ask = ["setpriv", "--reuid=12345", "--regid=12345", f"--groups={GROUP}", *PROGRAM, "status"]
        await_(lambda: f"interface: {host}" in booted.run(ask, check=False).stdout, "a status for the group", 15)


def test_the_zone_is_looked_up_at_the_registry_though_the_member_is_not_root():
    with Lab() as lab, machine(lab.hosts["registry"]) as registry, machine(lab.hosts["alice"]) as alice:
        for booted in (registry, alice):
            install(booted)
        give_resolved_to_machine(alice)
        registry.run("wgdisco", "registry", "init")
        join(alice, registry.run(*INVITE).stdout, "alice")
        assert daemon(alice, "wgdisco-join@mesh") == ("wgdisco", NET_ADMIN)
        assert alice.run(RESOLVECTL, "domain", "mesh").stdout.endswith(": ~wg.internal\n")
        assert "NOERROR" in alice.run("dig", "@127.0.0.53", "_wireguard._udp.wg.internal", "PTR").stdout
        confined = (
            "setpriv",
            "--reuid=wgdisco",
            "--inh-caps=+net_admin",
            "--ambient-caps=+net_admin",
            "--clear-groups",
        )
        refused = alice.run(*confined, "--regid=wgdisco", RESOLVECTL, "dns", "mesh", "10.0.0.1", check=False)
        assert refused.returncode, "the unit's daemon could do it by itself"
        alice.run("wgdisco", "down")
        assert "wg.internal" not in alice.run(RESOLVECTL, "domain").stdout
        assert "mesh.dns" not in alice.run("ls", "/run/wgdisco").stdout
