"""The results of all programs of bench/: performance.json, and the document and the plot made of it."""

import json
import os
import platform
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from bench import document, plot, registry_document
from wgdisco.errors import LocalError

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def check_tools(*tools: str) -> None:
    """LocalError unless all are installed."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise LocalError(f"not installed: {', '.join(missing)}; `make bench` sets up what it needs")


def run(main: Callable[[], int]) -> NoReturn:
    """Be that program; what cannot be measured here is one line."""
    try:
        sys.exit(main())
    except LocalError as error:
        sys.exit(f"bench: {error}")


def machine() -> dict[str, Any]:
    """Where and when and of which source something is measured."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": _git("rev-parse", "--short=12", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else ""),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libcrypto": ssl.OPENSSL_VERSION,
        "load_before": round(os.getloadavg()[0], 2),
    }


def _git(*words: str) -> str:
    said = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False)
    return said.stdout.strip()


def update(directory: Path, section: str, results: dict[str, Any], about: dict[str, Any]) -> None:
    """Put one section into performance.json, and write the document and the plot anew."""
    path = directory / "performance.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"schema": 1}
    record[section] = {"machine": about, **results}
    path.write_text(json.dumps(_rounded(record), indent=1) + "\n")
    write_documents(directory)


def write_documents(directory: Path) -> None:
    """Write the document and the plot of what performance.json has."""
    record = json.loads((directory / "performance.json").read_text())
    (directory / "performance.md").write_text(document.to_markdown(record))
    if "throughput" in record:
        (directory / "performance.svg").write_text(plot.to_svg(record["throughput"]))
    curves = registry_document.plot(record.get("registry", {}))
    if curves is not None:
        (directory / "registry.svg").write_text(curves)


def _rounded(value: Any) -> Any:
    """Floats to four digits: more were never measured."""
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {key: _rounded(inner) for key, inner in value.items()}
        case list():
            return [_rounded(inner) for inner in value]
    return value


if __name__ == "__main__":
    write_documents(DOCS)
