"""Whose WireGuard runs an interface."""

from enum import Enum


class EngineKind(Enum):
    """Ours, in this process; the kernel's; that of a program with a UAPI socket; or (auto) the kernel's, else ours."""

    AUTO = "auto"
    USERSPACE = "userspace"
    KERNEL = "kernel"
    EXTERNAL = "external"
