"""The purity line and the layers of the architecture: imports run downward only, and a core only computes."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "wgdisco").rglob("*.py")
}
IMPURE = {
    "asyncio",
    "socket",
    "select",
    "selectors",
    "ssl",
    "threading",
    "subprocess",
    "os",
    "time",
    "random",
    "secrets",
    "sqlite3",
    "signal",
    "fcntl",
    "ctypes",
    "multiprocessing",
    "concurrent",
    "aiohttp",
    "zeroconf",
    "pyroute2",
}
LAYERS = [
    {"vocabulary"},
    {"dnssd", "tunnel"},
    {"peer", "registry"},
    {"machine"},
    {"systemd"},
    {"dnssd.io", "tunnel.io"},
    {"peer.io", "registry.io"},
    {"lab"},
    {"composition"},
]
CORE_LAYERS = range(3)


def room(module: str) -> str:
    """Where a module belongs: `wgdisco.tunnel.io.udp` is in tunnel.io. Rooms of one layer do not know each other."""
    match module.split(".")[1:]:
        case [] | [
            "durations"
            | "keys"
            | "endpoint"
            | "nat"
            | "stun"
            | "api"
            | "errors"
            | "metrics"
            | "names"
            | "invitation"
            | "offers"
            | "paths"
            | "proof"
        ]:
            return "vocabulary"
        case ["dnssd" | "tunnel" | "peer" | "registry" as package, *rest] if rest != ["cli"]:
            return f"{package}.io" if rest[:1] == ["io"] else package
        case ["machine" | "systemd" as name]:
            return name
        case ["lab", *_]:
            return "lab"
    return "composition"


def layer(module: str) -> int:
    return next(number for number, rooms in enumerate(LAYERS) if room(module) in rooms)


def imports(module: str) -> set[str]:
    """All that a module imports, anywhere in it; our own modules by their full names."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES) or {str(node.module)}
    return found


def test_cores_import_nothing_impure() -> None:
    offences = [
        f"{module} imports {name}"
        for module in MODULES
        if layer(module) in CORE_LAYERS
        for name in imports(module)
        if name.split(".")[0] in IMPURE
    ]
    assert offences == []


def test_imports_run_downward_only() -> None:
    offences = [
        f"{module} imports {name}"
        for module in MODULES
        for name in imports(module) & set(MODULES)
        if room(name) != room(module) and layer(name) >= layer(module)
    ]
    assert offences == []


def test_no_module_imports_itself_by_a_detour() -> None:
    TopologicalSorter({module: imports(module) & set(MODULES) - {module} for module in MODULES}).prepare()


def test_the_command_line_loads_no_engine() -> None:
    """What every verb imports: parsers, and not what they lead to, which would take a quarter longer."""
    program = "import sys, wgdisco.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "wgdisco.process" in loaded
    assert "wgdisco.tunnel.device" not in loaded
