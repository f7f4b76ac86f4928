"""What is to be undone, in /run/wgdisco/IFACE.WHAT before it is done: whoever comes after a kill can do it."""

import json
import os
from pathlib import Path
from typing import Any

from wgdisco.errors import LocalError
from wgdisco.tunnel.io.control import DIRECTORY, make_directory


def kept_path(interface: str, what: str) -> Path:
    """The file."""
    return DIRECTORY / f"{interface}.{what}"


def read_kept(path: Path) -> dict[str, Any] | None:
    """The object in the file, an empty one for what is none; None where there is no file."""
    try:
        kept = json.loads(path.read_text())
    except OSError:
        return None
    except ValueError:
        kept = {}
    return kept if isinstance(kept, dict) else {}


def write_kept(path: Path, kept: dict[str, Any]) -> None:
    """Have that object in the file, or LocalError."""
    new = path.with_name(path.name + ".new")
    try:
        make_directory(path.parent)
        new.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(new, flags, 0o644), "w") as file:
            file.write(json.dumps(kept))
        new.replace(path)
    except OSError as error:
        raise LocalError(f"cannot write {path}, by which the host is put back as it was: {error.strerror}") from error
