"""What the kernel is asked to do for a whole burst at once. Each can be switched off; none is needed."""

from dataclasses import dataclass, fields
from typing import Self

from wgdisco.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Offloads:
    """Large frames on the TUN interface, of TCP (`tso`) and UDP (`uso`); many datagrams a call on the UDP sockets, when
    sending (`udp_gso`) and receiving (`udp_gro`).
    """

    tso: bool = True
    uso: bool = True
    udp_gso: bool = True
    udp_gro: bool = True

    @classmethod
    def from_text(cls, text: str) -> Self:
        """`all`, `none`, or the names of those that are to be on, with commas between; ConfigError otherwise."""
        names = [field.name for field in fields(cls)]
        if text == "all":
            return cls()
        wanted = set() if text == "none" else set(text.split(","))
        if not wanted <= set(names):
            raise ConfigError(f"offloads are {', '.join(names)} (with commas between), all, or none; not {text!r}")
        return cls(**{name: name in wanted for name in names})

    def to_text(self) -> str:
        """What `from_text` reads."""
        on = [field.name for field in fields(self) if getattr(self, field.name)]
        return "all" if self == type(self)() else ",".join(on) or "none"


ALL = Offloads()
