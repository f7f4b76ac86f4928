"""In a container: what examples/container says of it, and what the program says where an engine gives it too little."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.system.container import Container, Image, build, parse
from tests.system.members import Mesh, read_lab
from tests.system.network import PROGRAM, await_
from wgdisco.lab.world import environment

pytestmark = pytest.mark.usefixtures("needs_lab")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/container"
SERVICES = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())["services"]
SIDECAR = SERVICES["sidecar"]
NOWHERE = f"wgdisco://198.51.100.10:51820/1/{'A' * 43}/{'A' * 22}"


# This very checkout, on this machine's own files


def here():
    """An image of what is here, with this checkout in it."""
    env = {name: value for name, value in environment().items() if name in ("PATH", "PYTHONPATH")}
    return Image(Path("/"), env, entrypoint=list(PROGRAM))


def begin(host, link, **changes):
    service = SIDECAR | {"environment": {}} | changes
    return Container(host, here(), service, command=["join", link, *service["command"][1:]])


def members(mesh):
    return sorted(member["name"] for member in json.loads(mesh.registry("list", "-o", "json"))["members"])


def listed(container):
    _, said = container.exec("wgdisco", "registry", "list", "-o", "json")
    return sorted(member["name"] for member in json.loads(said)["members"])


@pytest.fixture(scope="module")
def mesh():
    with read_lab() as lab:
        mesh = Mesh(lab)
        mesh.join("bob")
        yield mesh


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("cap_add", ["no permission to create interface", "'--cap-add NET_ADMIN'"]),
        ("devices", ["no TUN device", "'--device /dev/net/tun'", "'--cap-add NET_ADMIN'"]),
    ],
)
def test_what_the_container_lacks_is_one_line(mesh, lacks, said):
    container = begin(mesh.lab.hosts["alice"], NOWHERE, **{lacks: []})
    assert container.process.wait(20) == 1
    await_(lambda: container.err, "what it says")
    (line,) = container.err
    assert line.startswith("wgdisco: ")
    for words in said:
        assert words in line


def test_a_sidecar_needs_nothing_but_net_admin_and_tun_and_goes_when_it_is_stopped(mesh):
    """No IPv6, no systemd; /proc/sys and /etc/resolv.conf are read-only; it is the first process."""
    host = mesh.lab.hosts["alice"]
    link = mesh.registry("invite", "--ephemeral", "web", "--uses", "3")
    host.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"])
    try:
        container = begin(host, link)
        container.wait_for("PEER ")
        assert mesh.ping("bob", mesh.address("web")) == 3
        assert container.exec(*PROGRAM, "wait", "--online", "--timeout", "5")[0] == 0
        assert (Path(f"/proc/{container.pid}/status").read_text().split("CapBnd:")[1].split()[0]) == f"{1 << 12:016x}"
        began = time.monotonic()
        assert container.stop() == 0
        assert time.monotonic() - began < 5
        await_(lambda: members(mesh) == ["bob"], "the registry to forget it", 5)
        assert [line for line in container.err if "rror" in line or "Traceback" in line] == []
    finally:
        host.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.default.disable_ipv6=0"])


def test_stopped_while_it_waits_for_an_answer_it_goes_at_once(mesh):
    """By default a signal does nothing to the first process."""
    host = mesh.lab.hosts["alice"]
    container = begin(host, NOWHERE)
    await_(lambda: "wgd-join" in host.run(["ip", "-br", "link"]).stdout, "it to try")
    began = time.monotonic()
    assert container.stop() == 128 + 15
    assert time.monotonic() - began < 3
    await_(lambda: "wgd-join" not in host.run(["ip", "-br", "link"]).stdout, "its interface to go")
    assert container.err == []


def test_a_link_in_a_file_that_is_not_there_is_one_line(mesh):
    env = {"WGDISCO_LINK_FILE": "/run/secrets/link"}
    container = Container(mesh.lab.hosts["alice"], here(), SIDECAR, env=env)
    assert container.process.wait(20) == 2
    await_(lambda: container.err, "what it says")
    assert container.err == ["wgdisco: /run/secrets/link: cannot read it: No such file or directory\n"]


def test_a_registry_that_may_not_switch_forwarding_on_says_what_to_give_it_and_serves(mesh):
    host = mesh.lab.hosts["alice"]
    store = ["--store", "/run/contained.db"]
    host.run([*PROGRAM, "registry", "init", *store, "--network", "contained", "--endpoint", "198.51.100.77"])
    service = SERVICES["registry"] | {"sysctls": {}}
    container = Container(host, here(), service, command=["registry", "run", *store])
    container.wait_for("started")
    (line,) = [line for line in container.err if "not reached" in line]
    assert "'--sysctl net.ipv4.ip_forward=1'" in line
    assert container.exec(*PROGRAM, "registry", "invite", *store, "x")[0] == 0
    assert container.stop() == 0
    container = Container(host, here(), SERVICES["registry"], command=["registry", "run", *store])
    container.wait_for("started")
    assert not [line for line in container.err if "not reached" in line]
    assert container.stop() == 0


# The image itself


def test_the_containerfile_names_what_is_there():
    steps = parse((EXAMPLE / "Containerfile").read_text())
    copied = [word for step in steps if step.word == "COPY" and not step.flags for word in step.words[:-1]]
    assert {"wgdisco", "requirements.lock"} <= set(copied)
    kept = {line.removeprefix("!") for line in (EXAMPLE / "Containerfile.dockerignore").read_text().splitlines()}
    for name in copied:
        assert (ROOT / name).exists()
        assert name in kept or "requirements*.lock" in kept
    installs = [part for step in steps if step.word == "RUN" for part in step.text.split("&&") if " install " in part]
    assert all(
        "--require-hashes" in part or "--no-index" in part or "apt-get" in part for part in installs if "pip" in part
    )
    assert [step.text for step in steps if step.word == "USER"] == ["wgdisco"]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    if shutil.which("mmdebstrap") is None:
        pytest.skip("needs mmdebstrap")
    where = tmp_path_factory.mktemp("image")
    bases = {step.words[0] for step in parse((EXAMPLE / "Containerfile").read_text()) if step.word == "FROM"}
    release = {base: base.partition(":")[2].partition("-")[0] for base in bases}
    for base in bases:
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", release[base], where / "base.tar"], check=True)
    yield build(EXAMPLE / "Containerfile", ROOT, dict.fromkeys(bases, where / "base.tar"), where / "image")
    shutil.rmtree(where)


@pytest.mark.soak
def test_registry_and_sidecar_of_the_image_as_compose_yaml_has_them(image, tmp_path):
    """Both run as a user that is not root."""
    volume, link = tmp_path / "volume", tmp_path / "link"
    shutil.copytree(image.root / "var/lib/wgdisco", volume)
    owner = (image.root / "var/lib/wgdisco").stat()
    os.chown(volume, owner.st_uid, owner.st_gid)
    with read_lab() as lab:
        vps, volumes = lab.hosts["registry"], [(volume, "/var/lib/wgdisco")]
        command = [word.replace("${REGISTRY:-}", "198.51.100.10") for word in SERVICES["init"]["command"]]
        init = Container(vps, image, SERVICES["init"], volumes, command=command)
        assert init.process.wait(30) == 0, init.err
        served = Container(vps, image, SERVICES["registry"], volumes)
        served.wait_for("started")
        assert served.exec(*SERVICES["registry"]["healthcheck"]["test"][1:])[0] == 0
        invite = "wgdisco registry invite --ephemeral web --uses 9 --expires 9d"
        code, said = served.exec(*invite.split())
        assert code == 0, said
        link.write_text(next(line for line in said.splitlines() if line.startswith("wgdisco://")))
        os.chown(link, owner.st_uid, owner.st_gid)
        sidecars = []
        for name in ("alice", "bob"):
            sidecars.append(Container(lab.hosts[name], image, SIDECAR, secrets=[("link", link)]))
            sidecars[-1].wait_for("PEER ", 40)
        for sidecar in sidecars:
            await_(lambda one=sidecar: one.exec(*SIDECAR["healthcheck"]["test"][1:])[0] == 0, "it to be healthy")
            assert Path(f"/proc/{sidecar.pid}/status").read_text().split("Uid:")[1].split()[0] == str(owner.st_uid)
        assert listed(served) == ["web", "web-2"]
        for one, other in zip(sidecars, ("web-2", "web"), strict=True):
            code, said = one.exec("wgdisco", "ping", other, "--until-direct")
            assert code == 0, said
        assert [sidecar.stop() for sidecar in sidecars] == [0, 0]
        await_(lambda: not listed(served), "the registry to forget both", 5)
        assert served.stop() == 0


@pytest.mark.soak
@pytest.mark.parametrize("lacks", ["cap_add", "devices"])
def test_the_image_says_what_its_container_lacks(image, lacks, tmp_path):
    link = tmp_path / "link"
    link.write_text(NOWHERE)
    link.chmod(0o644)
    with read_lab() as lab:
        container = Container(lab.hosts["alice"], image, SIDECAR | {lacks: []}, secrets=[("link", link)])
        assert container.process.wait(30) == 1
        await_(lambda: container.err, "what it says")
    (line,) = container.err
    assert "'--cap-add NET_ADMIN'" in line
