"""A registry, the examples' secondaries, and above them a root and a top-level domain, all in namespaces."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.system import network as system_network
from tests.system.network import PROGRAM, ZONE, Network
from wgdisco.dnssd.io.zone_server import COUNTS_INTERVAL
from wgdisco.lab.timeline import now
from wgdisco.lab.topology import Lab

EXAMPLES = Path(__file__).parents[2] / "examples" / "secondary"
KEY_FILE = "/run/lab/secondary.key"
REGISTRY, KNOT, BIND, ROOT, RESOLVER = (f"198.51.100.{number}" for number in (10, 53, 54, 100, 200))
SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = {"knotd": "knot", "named": "bind9", "unbound": "unbound", "kdig": "knot-dnsutils", "delv": "bind9-dnsutils"}

pytestmark = pytest.mark.usefixtures("needs_lab")


def await_(condition, what, seconds=30.0):
    """With the patience that a start takes on a machine with much else to do."""
    return system_network.await_(condition, what, seconds)


def example(name):
    return (EXAMPLES / name).read_text().replace("example.test", ZONE.removesuffix("."))


class Tree:
    """The lab with servers in its core: the root and com. (signed), Knot and BIND as secondaries, and a resolver."""

    def __init__(self, lab):
        self.network = Network(lab)
        self.core = lab.hosts["core"]
        self.registry_host = lab.hosts["registry"]
        link = re.search(r"dev (\S+)", self.core.run(["ip", "route", "get", REGISTRY]).stdout)[1]
        for address in (KNOT, BIND, ROOT, RESOLVER):
            self.core.run(["ip", "address", "add", f"{address}/24", "dev", link])
        secret = re.search(r"secret: (\S+)", example("knot.conf"))[1]
        self.registry_host.write_file(KEY_FILE, f'key "secondary" {{ algorithm hmac-sha256; secret "{secret}"; }};\n')
        self.logs, self.processes = {}, {}

    def start_registry(self, *secondaries):
        words = [word for address in secondaries for word in ("--secondary", address)]
        started = now()
        self.network.start("registry", *words, "--tsig-key", KEY_FILE)
        self.network.wait("registry", "started", after=started)
        self.network.status("registry")

    def _start(self, name, command):
        log = f"/run/{name}.log"
        self.processes[name] = self.core.popen(["sh", "-c", 'exec "$@" >"$0" 2>&1', log, *command])
        self.logs[name] = log

    def start_secondaries(self):
        conf = example("knot.conf").replace("server:\n", "server:\n    rundir: /run/knot\n")
        conf = conf.replace("database:\n", "database:\n    storage: /run/knot\n").replace("syslog", "stderr")
        self.core.write_file("/run/knot/knot.conf", conf)
        self._start("knot", ["knotd", "-c", "/run/knot/knot.conf"])
        self.core.write_file("/run/named/named.conf", example("named.conf").replace("/var/cache/bind", "/run/named"))
        self._start("named", ["named", "-g", "-n", "1", "-c", "/run/named/named.conf"])

    def start_root(self):
        zones = "".join(
            f"  - domain: {name}\n    file: {path}\n    zonefile-sync: -1\n    journal-content: all\n"
            f"    zonefile-load: difference-no-serial\n    dnssec-signing: {signing}\n    dnssec-policy: one\n"
            for name, path, signing in ((".", "/run/root/root.zone", "off"), ("com.", "/run/root/com.zone", "on"))
        )
        self.core.write_file(
            "/run/root/knot.conf",
            f"server:\n  rundir: /run/root\n  listen: {ROOT}@53\nlog:\n  - target: stderr\n    any: info\n"
            "database:\n  storage: /run/root\n"
            "policy:\n  - id: one\n    algorithm: ecdsap256sha256\n    single-type-signing: on\n"
            f"zone:\n{zones}",
        )
        soa = "SOA ns.com. hostmaster.com. 1 3600 600 86400 5"
        self.core.write_file(
            "/run/root/root.zone", f". 5 IN {soa}\n. 5 IN NS ns.com.\ncom. 5 IN NS ns.com.\nns.com. 5 IN A {ROOT}\n"
        )
        self.write_com([])
        self._start("root", ["knotd", "-c", "/run/root/knot.conf"])

    def write_com(self, lines):
        """The parent's zone, with what `registry dns` printed."""
        soa = "SOA ns.com. hostmaster.com. 1 3600 600 86400 5"
        text = f"$TTL 5\ncom. IN {soa}\ncom. IN NS ns.com.\nns.com. IN A {ROOT}\n" + "\n".join(lines) + "\n"
        self.core.write_file("/run/root/com.zone", text)

    def reload_com(self, lines):
        self.write_com(lines)
        self.core.run(["knotc", "-c", "/run/root/knot.conf", "-b", "zone-reload", "com."])

    def start_resolver(self):
        key = self.dig(ROOT, "com.", "DNSKEY").strip().split(maxsplit=3)
        self.core.write_file("/run/unbound/hints", f". 3600000 NS ns.com.\nns.com. 3600000 A {ROOT}\n")
        self.core.write_file(
            "/run/unbound/unbound.conf",
            f'server:\n interface: {RESOLVER}\n access-control: 0.0.0.0/0 allow\n username: ""\n chroot: ""\n'
            ' directory: "/run/unbound"\n pidfile: ""\n use-syslog: no\n logfile: ""\n num-threads: 1\n'
            ' root-hints: "/run/unbound/hints"\n qname-minimisation: yes\n qname-minimisation-strict: yes\n'
            " harden-below-nxdomain: yes\n outgoing-interface: 198.51.100.200\n do-ip6: no\n"
            f' module-config: "validator iterator"\n trust-anchor: "com. DNSKEY {" ".join(key)}"\n'
            "remote-control:\n control-enable: no\n",
        )
        self._start("unbound", ["unbound", "-d", "-c", "/run/unbound/unbound.conf"])
        text = f'trust-anchors {{ com. static-key {key[0]} {key[1]} {key[2]} "{"".join(key[3].split())}"; }};\n'
        self.core.write_file("/run/delv.anchors", text)

    def dig(self, server, *words):
        """The answer's data, "" when there is none."""
        said = self.core.run(["dig", "+short", "+tries=1", "+time=2", f"@{server}", *words], check=False).stdout
        return "" if said.startswith(";") else said

    def log(self, name):
        return self.core.run(["cat", self.logs[name]]).stdout

    def instance(self, member):
        return f"{self.network.keys[member].to_label()}._wireguard._udp.{ZONE}"

    def registry_dns(self, *words):
        command = [*PROGRAM, "registry", "dns", "--interface", "registry", "--root-server", ROOT, *words]
        return self.registry_host.run(command, check=False)


@pytest.fixture(scope="module")
def tree():
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program, path=SBIN) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    with Lab() as lab:
        tree = Tree(lab)
        with tree.network:
            tree.start_root()
            tree.start_registry(KNOT)
            tree.start_secondaries()
            tree.network.start("alice")
            tree.network.wait("registry", "handshake", "alice")
            await_(lambda: tree.dig(ROOT, "com.", "DNSKEY"), "the parent")
            yield tree


def test_the_example_serves_the_zone_signed(tree):
    await_(lambda: tree.dig(KNOT, "SRV", tree.instance("alice")), "Knot to have alice")
    port = tree.network.dig("alice", "+short", "SRV", tree.instance("alice")).split()[2]
    assert tree.dig(KNOT, "SRV", tree.instance("alice")).split()[2] == port
    assert "RRSIG" in tree.core.run(["dig", "+dnssec", f"@{KNOT}", "SOA", ZONE]).stdout


def test_a_member_that_comes_is_at_the_secondary_at_once(tree):
    knot = tree.processes["knot"]

    def go_on():
        knot.send_signal(signal.SIGCONT)
        os.kill(knot.pid, signal.SIGCONT)  # nsenter stops with what it runs

    knot.send_signal(signal.SIGSTOP)  # late, as on a busy machine
    going_on = threading.Timer(COUNTS_INTERVAL + 2.0, go_on)
    going_on.start()
    try:
        tree.network.start("bob")
        tree.network.wait("registry", "published", "bob")
        time.sleep(COUNTS_INTERVAL)  # until the registry hears what its zone's server gave to whom
        assert "does it hear of changes" not in tree.registry_dns().stdout, "it has a moment"
    finally:
        going_on.join()
    await_(lambda: tree.dig(KNOT, "SRV", tree.instance("bob")), "Knot to have bob")


@pytest.mark.rule("DNS11")
def test_strangers_get_no_transfer(tree):
    for words in ((), ("-y", "hmac-sha256:secondary:c2l4dGVlbiBieXRlcyBhcmUgZW5vdWdoIQ==")):
        said = tree.network.lab.hosts["alice"].run(["dig", *words, f"@{REGISTRY}", "AXFR", ZONE], check=False).stdout
        assert "Transfer failed" in said
        assert "_wireguard" not in said


def test_what_the_parent_needs_is_said_until_it_is_there(tree):
    await_(lambda: tree.dig(KNOT, "DNSKEY", ZONE), "the key")
    before = tree.registry_dns()
    assert before.returncode == 4
    assert "FAIL  delegation: com. does not know the zone: have the lines above put there\n" in before.stdout
    assert f"ok    ns1.{ZONE} at {KNOT}: serial " in before.stdout
    lines = [line for line in before.stdout.splitlines() if " IN " in line]
    assert lines[:2] == [f"{ZONE} IN NS ns1.{ZONE}", f"ns1.{ZONE} IN A {KNOT}"]
    assert lines[2].startswith(f"{ZONE} IN DS ")

    tree.reload_com(lines[:2])
    await_(lambda: f"ok    delegation: com. names ns1.{ZONE}" in tree.registry_dns().stdout, "the delegation")
    assert "FAIL  DS: the zone is signed, and com. has none" in tree.registry_dns().stdout

    tree.reload_com(lines)
    done = await_(lambda: (said := tree.registry_dns()).returncode == 0 and said, "all to be well")
    assert "FAIL" not in done.stdout
    assert "ok    DS: com. vouches for the key" in done.stdout


def test_a_validating_resolver_takes_the_answers(tree):
    """Unbound with QNAME minimisation and harden-below-nxdomain, asked by dig, kdig and delv."""
    name = tree.instance("alice")
    tree.start_resolver()
    await_(lambda: tree.dig(RESOLVER, "SRV", name), "the resolver's answer")
    for program in ("dig", "kdig"):
        said = tree.core.run([program, f"@{RESOLVER}", "+dnssec", "SRV", name]).stdout
        assert re.search(r"[Ff]lags:[^;]* ad[ ;]", said), said
        nothing = tree.core.run([program, f"@{RESOLVER}", "A", f"nobody.{ZONE}"]).stdout
        assert "NXDOMAIN" in nothing
    delv = ["delv", "-a", "/run/delv.anchors", "+root=com.", f"@{RESOLVER}"]
    for rdtype, asked in (("SRV", name), ("TXT", name), ("PTR", f"_wireguard._udp.{ZONE}"), ("A", f"nobody.{ZONE}")):
        said = tree.core.run([*delv, asked, rdtype])
        assert "fully validated" in said.stdout, said.stdout + said.stderr


def test_the_exported_zone_is_clean(tree):
    tree.registry_dns("--export", "/run/lab/zone")
    text = tree.registry_host.run(["cat", "/run/lab/zone"]).stdout
    assert text.count(" SRV ") == 2
    tree.core.write_file("/run/zone", text)
    said = tree.core.run(["named-checkzone", "-k", "fail", ZONE, "/run/zone"]).stdout
    assert said.endswith("OK\n")
    assert said.count("\n") == 2, said
    assert tree.registry_dns("--export", "-").stdout.startswith(f"{ZONE} 5 IN SOA ns1.{ZONE}")


def test_a_second_server_that_does_not_sign_is_told_of(tree):
    """The registry starts again with both, and BIND has the zone from the example for it."""
    tree.network.stop("registry")
    tree.network.stop("alice")
    tree.start_registry(KNOT, BIND)
    tree.network.start("alice")
    for server in (KNOT, BIND):
        await_(lambda server=server: tree.dig(server, "SRV", tree.instance("alice")), f"{server} to have alice")
    found = tree.registry_dns().stdout
    assert f"FAIL  delegation: com. lacks ns2.{ZONE}" in found
    assert f"FAIL  glue of ns2.{ZONE}: com. has none: it should be {BIND}" in found
    assert f"FAIL  DS: {BIND} does not sign, and {KNOT} does" in found


def test_a_registry_of_its_own_store_gives_what_strangers_may_be_told(tree):
    """Asked by dig from the secondary's address, with the key: of all of the zone, then of what is published."""
    host, secret = tree.registry_host, re.search(r"secret: (\S+)", example("knot.conf"))[1]
    zone, address = "mesh.example.com.", "198.51.100.11"
    init = ["--network", "mesh", "--zone", zone, "--endpoint", address, "--port", "51821", "--firewall", "none"]
    host.run([*PROGRAM, "registry", "init", *init])
    # those whom it serves already serve another zone of this registry
    flags = ["--dns", f"{address}:53", "--secondary", KNOT, "--tsig-key", KEY_FILE]

    def transferred(*words):
        with host.popen([*PROGRAM, "registry", "run", *flags, *words], stderr=subprocess.DEVNULL) as daemon:
            try:
                ask = ["dig", "-b", KNOT, "-y", f"hmac-sha256:secondary:{secret}", f"@{address}", "AXFR", zone]
                await_(lambda: "XFR size" in tree.core.run(ask, check=False).stdout, "a transfer")
                await_(lambda: host.run(["test", "-S", "/run/wgdisco/mesh.sock"], check=False).returncode == 0, "it")
                return tree.core.run(ask).stdout, host.run([*PROGRAM, "registry", "dns", "--export", "-"]).stdout
            finally:
                daemon.stop()

    for text in transferred("--public-zone", "full"):
        assert f"\nregistry.{zone}" in text
        assert re.search(rf"ns1\.{zone}\s+3600\s+IN\s+A\s+{KNOT}", text)
    for text in transferred("--publish", "nobody"):
        assert f"\n_services._dns-sd._udp.{zone}" in text
        assert "registry" not in text
    private = host.run([*PROGRAM, "registry", "dns"], check=False)
    assert (private.returncode, private.stderr.count("\n")) == (3, 1)
