"""What cannot work: one line that says why, the exit code that says whose fault, and nothing left behind."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.system.network import PROGRAM, Network, await_, complaint
from wgdisco.lab.topology import Lab
from wgdisco.lab.world import Host

pytestmark = pytest.mark.usefixtures("needs_lab")

ENVIRONMENT, CONFIGURATION = 1, 2
BOTH = pytest.mark.parametrize("name", ["registry", "alice"])
HOLD = """
import os, socket, sys
family, kind, address = sys.argv[1:4]
held = socket.socket(getattr(socket, family), getattr(socket, kind))
held.bind((address, int(sys.argv[4])) if family == "AF_INET" else address)
if kind == "SOCK_STREAM": held.listen()
print(open("/proc/self/comm").read().strip(), f"(pid {os.getpid()})", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Lab() as lab, Network(lab) as network:
        yield network


def what_there_is(host: Host) -> str:
    """Interfaces, addresses, routes, sockets of any kind that a daemon could leave behind."""
    script = (
        "ip -o addr; ip -4 route show table all; ip -6 route show table all; ss -Hltunp; "
        "ls -A /run/wgdisco; ls -A /run/wireguard || true"
    )
    return host.run(["sh", "-c", f"{{ {script}; }} 2>/dev/null"]).stdout


def with_flag(command: Sequence[str], flag: str, value: str | None) -> list[str]:
    """The command with another value for a flag it has, or (None) without it."""
    at = command.index(flag)
    return [*command[:at], *([] if value is None else [flag, value]), *command[at + 2 :]]


def fails(host: Host, command: Sequence[str], code: int, *parts: str, log_before: bool = False) -> str:
    """Run it: it must end by itself, with `code` and one line that holds all `parts`. Returns the line.

    Only what fails while it runs (`log_before`) may have logged something before.
    """
    before = what_there_is(host)
    done = host.run(command, check=False, timeout=20)
    said = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    words = complaint(done.stderr)
    assert words.startswith("wgdisco: ")
    assert [line for line in said if line.startswith("wgdisco: ") or '"level": "error"' in line] == said[-1:]
    assert "Traceback" not in done.stderr
    if log_before:
        assert all(line.startswith("{") for line in said[:-1]), done.stderr
    else:
        assert len(said) == 1, done.stderr
    for part in parts:
        assert part in words
    assert what_there_is(host) == before
    return words


@contextmanager
def held(host: Host, family: str, kind: str, address: str, port: int = 0) -> Iterator[str]:
    """A process that holds an address; its name and pid as a message should have them."""
    command = [sys.executable, "-c", HOLD, family, kind, address, str(port)]
    with host.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()


def private_mounts(script: str, command: Sequence[str]) -> list[str]:
    """Run a command after `script` in a mount namespace of its own."""
    return ["unshare", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh", *command]


def without_capability(name: str, command: Sequence[str]) -> list[str]:
    return ["setpriv", f"--bounding-set=-{name}", f"--inh-caps=-{name}", *command]


@BOTH
class TestTheMachine:
    @pytest.mark.parametrize(
        ("script", "part"),
        [
            ("mount -t tmpfs tmpfs /dev/net", "no TUN device: load it with 'modprobe tun'"),
            ("mount -t tmpfs tmpfs /dev", "no TUN device"),
            ("mount --bind /dev/null /dev/net/tun", "/dev/net/tun is not the TUN device"),
        ],
    )
    def test_no_tun_device(self, network, name, script, part):
        fails(network.lab.hosts[name], private_mounts(script, network.command(name)), ENVIRONMENT, part)

    def test_a_tun_device_for_others_only(self, network, name):
        script = "mount -t tmpfs tmpfs /dev/net; mknod -m 600 /dev/net/tun c 10 200; chown 65534 /dev/net/tun"
        command = private_mounts(script, without_capability("dac_override", network.command(name)))
        fails(network.lab.hosts[name], command, ENVIRONMENT, "no permission to open /dev/net/tun: run as root")

    def test_no_privilege(self, network, name):
        command = without_capability("net_admin", network.command(name))
        fails(network.lab.hosts[name], command, ENVIRONMENT, "no permission to create interface", "CAP_NET_ADMIN")

    def test_too_few_open_files(self, network, name):
        command = ["prlimit", "--nofile=20:20", *network.command(name)]
        fails(network.lab.hosts[name], command, ENVIRONMENT, "20 open files are too few: allow 128")

    @pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1"])
    def test_the_wireguard_port_is_taken(self, network, name, address):
        host = network.lab.hosts[name]
        with held(host, "AF_INET", "SOCK_DGRAM", address, 51820) as owner:
            fails(host, network.command(name), ENVIRONMENT, f"UDP port 51820 is in use by {owner}")

    def test_the_interface_is_another_kind_of_interface(self, network, name):
        host = network.lab.hosts[name]
        host.run(["ip", "link", "add", name, "type", "veth"])
        try:
            fails(host, network.command(name), ENVIRONMENT, f"interface {name} exists and is no TUN interface")
        finally:
            host.run(["ip", "link", "del", name])

    def test_the_control_socket_is_served_already(self, network, name):
        host = network.lab.hosts[name]
        host.run(["mkdir", "-p", "/run/wgdisco"])
        path = f"/run/wgdisco/{name}.sock"
        with held(host, "AF_UNIX", "SOCK_STREAM", path):
            fails(host, network.command(name), ENVIRONMENT, f"another daemon already serves {path}")
        host.run(["rm", path])

    def test_the_control_socket_cannot_be_made(self, network, name):
        host = network.lab.hosts[name]
        host.run(["sh", "-ec", "rm -rf /run/wgdisco; touch /run/wgdisco"])
        try:
            part = f"cannot make the control socket /run/wgdisco/{name}.sock"
            fails(host, network.command(name), ENVIRONMENT, part, log_before=True)
        finally:
            host.run(["rm", "/run/wgdisco"])

    def test_another_interface_has_the_route(self, network, name):
        host = network.lab.hosts[name]
        conf = host.run(["cat", f"/run/lab/{name}.conf"]).stdout
        host.write_file("/run/lab/routed.conf", conf.replace("AllowedIPs = ", "AllowedIPs = 10.66.0.0/16, ", 1))
        host.run(["ip", "route", "add", "10.66.0.0/16", "dev", "eth0"])
        try:
            command = with_flag(network.command(name), "--conf", "/run/lab/routed.conf")
            fails(host, command, ENVIRONMENT, "cannot route 10.66.0.0/16 into routed: eth0 has that route already")
        finally:
            host.run(["ip", "route", "del", "10.66.0.0/16"])

    def test_the_interface_is_deleted_underneath(self, network, name):
        host = network.lab.hosts[name]
        before = what_there_is(host)
        with host.popen(network.command(name), stderr=subprocess.PIPE) as daemon:
            await_(lambda: host.run(["ip", "link", "show", "up", name], check=False).stdout, "the interface")
            host.run(["ip", "link", "del", name])
            try:
                _, said = daemon.communicate(timeout=30)
            finally:
                daemon.kill()
        assert daemon.returncode == ENVIRONMENT
        assert complaint(said) == f"wgdisco: {name} is gone: interface {name} was deleted"
        assert "Traceback" not in said
        assert what_there_is(host) == before


class TestDns:
    @pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_STREAM"])
    def test_the_port_is_taken(self, network, kind):
        host = network.lab.hosts["registry"]
        with held(host, "AF_INET", kind, "198.51.100.10", 53) as owner:
            fails(host, network.command("registry"), ENVIRONMENT, "DNS cannot listen on", f"is in use by {owner}")

    def test_the_address_is_not_ours(self, network):
        command = with_flag(network.command("registry"), "--dns", "203.0.113.99:53")
        fails(network.lab.hosts["registry"], command, ENVIRONMENT, "203.0.113.99:53: this machine has no such address")

    @BOTH
    @pytest.mark.parametrize("text", ["nonsense", "ns.example.com:53", "198.51.100.10:0", "198.51.100.10:99999"])
    def test_a_bad_address(self, network, name, text):
        command = with_flag(network.command(name), "--dns", text)
        fails(network.lab.hosts[name], command, CONFIGURATION, f"--dns: {text!r} is not ADDRESS:PORT")

    @BOTH
    @pytest.mark.parametrize("text", ["two..dots", "-", "sp ace", "a" * 64 + ".example"])
    def test_a_bad_zone(self, network, name, text):
        command = with_flag(network.command(name), "--zone", text)
        fails(network.lab.hosts[name], command, CONFIGURATION, f"--zone: {text!r} is not a zone")

    @BOTH
    @pytest.mark.parametrize("flag", ["--zone", "--dns", "--conf"])
    def test_a_missing_setting(self, network, name, flag):
        command = with_flag([*network.command(name), "--interface", name], flag, None)
        # without a .conf an interface is taken as it is found
        told = (
            f"is missing, and there is no interface {name}" if flag == "--conf" else f"is missing: for example {flag} "
        )
        fails(network.lab.hosts[name], command, CONFIGURATION, f"{flag} {told}")

    def test_a_zone_that_the_server_does_not_serve(self, network):
        network.start("registry")
        network.wait("registry", "started")
        try:
            command = with_flag(network.command("alice"), "--zone", "other.example.")
            parts = ("198.51.100.10:53 does not serve other.example.", "check --zone and --dns")
            fails(network.lab.hosts["alice"], command, ENVIRONMENT, *parts, log_before=True)
        finally:
            network.stop("registry")


@BOTH
class TestTheConf:
    @pytest.mark.parametrize(
        ("text", "line", "part"),
        [
            ("[Interface]\nListenPort = ninety\n", 2, "ListenPort is not a number from 0 to 65535"),
            ("[Interface]\n\n# so\nNonsense\n", 4, "this is neither"),
            ("ListenPort = 1\n", 1, "before any [Interface]"),
            ("[Interface]\nPostUp = touch /run/done\n", 2, "PostUp is not supported yet"),
            ("[Interface]\n[Peer]\nAllowedIPs = 10.0.0.0/33\n", 3, "AllowedIPs"),
            ("[Interface]\n[Peer]\n", 2, "this [Peer] has no PublicKey"),
        ],
    )
    def test_malformed_at_a_line(self, network, name, text, line, part):
        host = network.lab.hosts[name]
        host.write_file("/run/lab/bad.conf", text)
        command = with_flag(network.command(name), "--conf", "/run/lab/bad.conf")
        if part == "AllowedIPs":
            part = "prefix"
        fails(host, command, CONFIGURATION, f"wgdisco: /run/lab/bad.conf:{line}: ", part)
        assert host.run(["ls", "/run"]).stdout.count("done") == 0

    @pytest.mark.parametrize(
        ("make", "part"),
        [
            ("rm -f $0", "cannot read it: No such file or directory"),
            ("rm -f $0; mkdir $0", "cannot read it: Is a directory"),
            (r"printf '\377\376\000' >$0", "this is neither [Interface], [Peer] nor a line"),
            ("echo '[Interface]' >$0", "it has no PrivateKey under [Interface]"),
            ("echo >$0; chown 65534 $0; chmod 600 $0", "cannot read it: Permission denied"),
        ],
    )
    def test_unusable_as_a_whole(self, network, name, make, part):
        host = network.lab.hosts[name]
        path = "/run/lab/odd.conf"
        host.run(["sh", "-ec", f"rm -rf $0; {make}", path])
        command = without_capability("dac_override,-dac_read_search", with_flag(network.command(name), "--conf", path))
        fails(host, command, CONFIGURATION, f"wgdisco: {path}:", part)

    def test_a_peer_whose_name_is_no_name(self, network, name):
        host = network.lab.hosts[name]
        conf = host.run(["cat", f"/run/lab/{name}.conf"]).stdout
        host.write_file("/run/lab/named.conf", conf + "Endpoint = two..dots:51820\n")
        command = with_flag(network.command(name), "--conf", "/run/lab/named.conf")
        fails(host, command, CONFIGURATION, "/run/lab/named.conf: ", "two..dots:51820")

    @pytest.mark.parametrize("interface", ["no/slash", "sixteen-letters-x", "..", ""])
    def test_a_name_for_no_interface(self, network, name, interface):
        command = [*network.command(name), "--interface", interface]
        fails(network.lab.hosts[name], command, CONFIGURATION, "cannot name an interface")


class TestTheCommandLine:
    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["nonsense"],
            ["registry"],
            ["registry", "run"],
            ["join"],
            ["join", "--nonsense"],
            ["join", "--conf"],
            ["join", "--log", "xml"],
            ["registry", "run", "--conf", "a.conf", "more"],
        ],
    )
    def test_usage(self, network, arguments):
        fails(network.lab.hosts["bob"], [*PROGRAM, *arguments], CONFIGURATION)

    @pytest.mark.parametrize("text", ["", "nonsense", "A" * 43])
    def test_pubkey_of_no_key(self, network, text):
        done = network.lab.hosts["bob"].run([*PROGRAM, "pubkey"], text=text, check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (CONFIGURATION, "", 1)
        assert done.stderr.startswith("wgdisco: standard input: ")


@BOTH
def test_a_second_daemon_leaves_the_first_alone(network, name):
    host = network.lab.hosts[name]
    network.start(name)
    network.wait(name, "started", after=time.clock_gettime(time.CLOCK_BOOTTIME) - 1)
    await_(lambda: host.run(["test", "-S", f"/run/wgdisco/{name}.sock"], check=False).returncode == 0, "the socket")
    try:
        # In a member's first seconds its state changes by itself.
        done = host.run(network.command(name), check=False)
        assert (done.returncode, done.stderr.count("\n")) == (ENVIRONMENT, 1)
        assert complaint(done.stderr).startswith(f"wgdisco: another daemon already serves /run/wgdisco/{name}.sock")
        assert network.status(name)["interface"] == name
    finally:
        assert network.stop(name) == 0


@BOTH
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_at_any_early_moment_it_leaves_nothing(network, name, number):
    dice = random.Random(f"{name} {number}")
    host = network.lab.hosts[name]
    before = what_there_is(host)
    ends = set()
    for _ in range(12):
        with host.popen(network.command(name), stderr=subprocess.PIPE) as daemon:
            time.sleep(dice.uniform(0.02, 1.0))
            for _ in range(dice.choice([1, 3])):
                daemon.send_signal(number)
            try:
                _, said = daemon.communicate(timeout=10)
            finally:
                daemon.kill()
        # Python itself, before any line of ours runs, tells of a Ctrl-C in its own way, and ends with its own code.
        ends |= set() if "Traceback" in said else {daemon.returncode}
        assert "Traceback" not in said or "KeyboardInterrupt" in said.splitlines()[-1]
        assert "never awaited" not in said
        assert what_there_is(host) == before
    assert 0 in ends
    assert ends <= {0, -number, 130}
