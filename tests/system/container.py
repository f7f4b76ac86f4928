"""Containers without an engine: the steps of a Containerfile run in chroots, and a process is put where an engine would
put it, by the words that compose.yaml has for that.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.members import Daemon

# What an engine gives a build of the network it is on
PASSED_ON = ("PIP_INDEX_URL", "http_proxy", "https_proxy", "no_proxy")
_STEP = """
root=$1; text=$2; shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
touch "$root/etc/resolv.conf"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
mkdir -p "$root/run/host-certificates"
[ ! -d /etc/ssl/certs ] || mount --bind /etc/ssl/certs "$root/run/host-certificates"
exec chroot "$root" env -i "$@" /bin/sh -c "$text"
"""


@dataclass(frozen=True)
class Step:
    """One instruction: its word, its --flags, the rest of it."""

    word: str
    flags: dict[str, str]
    text: str

    @property
    def words(self):
        """An array in JSON, or what a shell would make of it."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


def parse(text):
    """The steps of a Containerfile."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    steps = []
    for line in filter(str.strip, joined.splitlines()):
        word, _, rest = line.strip().partition(" ")
        flags = {}
        while match := re.match(r"\s*--([a-z]+)=(\S+)\s+", rest):
            flags[match[1]] = match[2]
            rest = rest[match.end() :]
        steps.append(Step(word, flags, rest.strip()))
    return steps


@dataclass
class Image:
    """A root file system, and how a process in it begins."""

    root: Path
    env: dict = field(default_factory=lambda: {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
    directory: str = "/"
    user: str = "root"
    entrypoint: list = field(default_factory=list)
    command: list = field(default_factory=list)
    volumes: list = field(default_factory=list)


def build(containerfile, context, bases, where):
    """The image of the last stage, below `where`; `bases` are archives by what FROM calls them."""
    stages = []
    names = {}
    for step in parse(containerfile.read_text()):
        if step.word == "FROM":
            base, *rest = step.words
            image = Image(where / str(len(stages)))
            image.root.mkdir(parents=True)
            subprocess.run(["tar", "-xf", bases[base], "-C", image.root], check=True)
            stages.append(image)
            if rest:
                names[rest[1]] = image
            continue
        match step.word:
            case "RUN":
                _run(image, step.text)
            case "COPY":
                source = names[step.flags["from"]].root if "from" in step.flags else context
                _copy(image, source, step.words)
            case "WORKDIR":
                image.directory = os.path.join(image.directory, step.text)
                (image.root / image.directory.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "ENV":
                image.env.update(word.split("=", 1) for word in step.words)
            case "USER":
                image.user = step.text
            case "ENTRYPOINT":
                image.entrypoint = step.words
            case "CMD":
                image.command = step.words
            case "VOLUME":
                image.volumes += step.words
            case _:
                raise ValueError(f"{step.word}: not understood")
    return stages[-1]


def _run(image, text):
    env = image.env | {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if "PIP_CERT" in os.environ:
        env["PIP_CERT"] = f"/run/host-certificates/{Path(os.environ['PIP_CERT']).name}"
    environment = [f"{name}={value}" for name, value in (env | {"DEBIAN_FRONTEND": "noninteractive"}).items()]
    text = f"cd {image.directory} && {text}"
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", _STEP, "sh", image.root, text]
    command += environment
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def _copy(image, source, words):
    *names, to = words
    target = image.root / os.path.join(image.directory, to).lstrip("/")
    for name in names:
        found = source / name.lstrip("/")
        if found.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so", "_native.c") if source != image.root else None
            keeps = any(part == "opt" for part in found.parts)  # another stage's: nothing is left out
            shutil.copytree(found, target, symlinks=True, dirs_exist_ok=True, ignore=None if keeps else ignored)
        else:
            shutil.copy2(found, target)


# Arguments: what is to be in /dev, as words; volumes and secrets, SOURCE:TARGET:ro|rw as words; sysctls, NAME=VALUE as
# words; the root file system; what to do there
_CONTAINED = """
devices=$1; mounts=$2; sysctls=$3; image=$4; shift 4
sysctl -qw net.ipv4.ping_group_range="0 2147483647"  # as engines do
for sysctl in $sysctls; do sysctl -qw "$sysctl"; done
base=$(mktemp -d /run/container.XXXXXX)
mkdir "$base/upper" "$base/work" "$base/root"
if [ "$image" = / ]; then
    mount --rbind / "$base/root"
else
    mount -t overlay -o "lowerdir=$image,upperdir=$base/upper,workdir=$base/work" overlay "$base/root"
fi
cd "$base/root"
mount -t proc -o nosuid,noexec,nodev proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro,nosuid,noexec,nodev sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
for device in $devices; do
    mkdir -p "$(dirname "dev/$device")"
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
for mount in $mounts; do
    source=${mount%%:*}; target=${mount#*:}; how=${target#*:}; target=${target%:*}
    mkdir -p ".${target%/*}"
    if [ -d "$source" ]; then mkdir -p ".$target"; else touch ".$target"; fi
    mount --bind "$source" ".$target"
    mount -o "remount,bind,$how" ".$target"
done
[ -e etc/resolv.conf ] || touch etc/resolv.conf
mount --bind etc/resolv.conf etc/resolv.conf
mount -o remount,bind,ro etc/resolv.conf
exec chroot . "$@"
"""
ALWAYS = ["null", "zero", "random", "urandom"]


class Container(Daemon):
    """A container on a host of the lab, in its network namespace; `service` is what compose.yaml says of it."""

    def __init__(self, host, image, service, volumes=(), secrets=(), command=None, env=None):
        self.host = host
        self._inside = self._command(image, service, env or {})
        devices = [*ALWAYS] + [device.removeprefix("/dev/") for device in service.get("devices", [])]
        mounts = [f"{source}:{target}:rw" for source, target in volumes]
        mounts += [f"{source}:/run/secrets/{name}:ro" for name, source in secrets]
        sysctls = [f"{name}={value}" for name, value in service.get("sysctls", {}).items()]
        begin = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "sh", "-ec", _CONTAINED, "sh"]
        begin += [" ".join(devices), " ".join(mounts), " ".join(sysctls), str(image.root)]
        super().__init__(host, [*begin, *self._inside, *image.entrypoint, *(command or service["command"])])

    @staticmethod
    def _command(image, service, env):
        """Whoever runs there, with what capabilities and environment."""
        added = ",".join(f"+{name.lower()}" for name in service.get("cap_add", []))
        bounding = "-all" if service.get("cap_drop") == ["ALL"] else "-sys_admin"
        env = image.env | service.get("environment", {}) | env
        user = [f"--reuid={image.user}", f"--regid={image.user}", "--init-groups"]
        confined = ["setpriv", *user, "--inh-caps=-all", f"--bounding-set={bounding}{added and ','}{added}"]
        return ["env", "-i", *(f"{name}={value}" for name, value in env.items()), *confined]

    @property
    def pid(self):
        """The container's first process, as seen from here."""
        pid = self.process.pid
        for _ in range(2):  # nsenter, unshare
            (pid,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(pid)

    def exec(self, *command):
        """Run something in it; what it said, and its exit code."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--uts", "--root", "--wd=/"]
        inside += [*self._inside, *command]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    def stop(self):
        """As an engine does it; the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(10)
