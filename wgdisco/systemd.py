"""systemd, for both daemons: whether it runs this machine, and what it is asked to do."""

import pwd
import shutil
import subprocess
import sys
from pathlib import Path

from wgdisco.errors import LocalError
from wgdisco.machine import DAEMON_USER

UNITS = Path("etc/systemd/system")
_RUNNING = Path("run/systemd/system")


def is_running(root: Path = Path("/")) -> bool:
    """Whether systemd runs the machine whose files are below `root`."""
    return (root / _RUNNING).is_dir()


def program() -> str:
    """The command line that runs this very wgdisco in a unit."""
    command = str(Path(sys.argv[0]).resolve())
    if not Path(command).is_file() or command.endswith("__main__.py"):
        return f"{sys.executable} -m wgdisco"
    return command


def write_unit(path: Path, text: str) -> None:
    """Have a unit file with that text, and the user it names. LocalError when that cannot be."""
    _make_user()
    try:
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            path.chmod(0o644)
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from error
    systemctl("daemon-reload")


def remove_unit(path: Path) -> None:
    """Take a unit file away."""
    if path.exists():
        path.unlink()
        systemctl("daemon-reload")


def is_active(unit: str) -> bool:
    """Whether it runs; False where nobody can be asked."""
    try:
        return subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode == 0
    except FileNotFoundError:
        return False


def systemctl(*arguments: str) -> None:
    """LocalError with systemd's reason when it refuses."""
    _run("systemctl", *arguments)


def _make_user() -> None:
    """Have the user that units name: `make install` makes it, other ways to install do not."""
    try:
        pwd.getpwnam(DAEMON_USER)
    except KeyError:
        text = f'u {DAEMON_USER} - "wgdisco daemons" /var/lib/wgdisco\n'
        _run("systemd-sysusers", "-", text=text)


def _run(*command: str, text: str = "") -> None:
    if shutil.which(command[0]) is None:
        raise LocalError(f"there is no {command[0]} here: run the daemon in the foreground")
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise LocalError(f"{' '.join(command)}: {lines[-1]}")
