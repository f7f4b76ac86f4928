"""The relay on the registry's own device: what that hands over as another's goes on from the same port."""

from collections.abc import Mapping

from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.registry.facts import Member
from wgdisco.registry.membership import Membership
from wgdisco.registry.relay import Forward, Relay
from wgdisco.tunnel.events import Foreign
from wgdisco.tunnel.io.engine import Engine


class Relaying:
    """A relay and its device, which must be one that `relays`."""

    def __init__(self, engine: Engine) -> None:
        self.relay = Relay()
        self._engine = engine

    def pass_on(self, foreign: Foreign) -> None:
        """Send on what may be, and drop the rest."""
        self._forward(self.relay.receive(foreign, boot_time()))

    def admit(self, a: PublicKey, b: PublicKey) -> bool:
        """Let two members reach each other here (`Relay.admit`): who asks has seen to it that they may."""
        now = boot_time()
        is_admitted = self.relay.admit(a, b, now)
        for forward in self.relay.held(a, b, now) if is_admitted else ():
            self._forward(forward)
        return is_admitted

    def _forward(self, forward: Forward | None) -> None:
        if forward is not None:
            self._engine.send_burst(forward.data, forward.row, forward.endpoint)

    def follow(self, before: Mapping[PublicKey, Member], membership: Membership) -> None:
        """Membership has changed: nobody passes who is revoked, or shares no group any more."""
        members = membership.members
        now = {member.number: key for key, member in members.items()}
        for key, member in before.items():
            if key not in members and now.get(member.number) is not None:
                self.relay.rename(key, now[member.number])
            elif key not in members:
                self.relay.revoke(key)

        def may(a: PublicKey, b: PublicKey) -> bool:
            return a in members and b in members and membership.sees(members[a], members[b])

        self.relay.keep(may)

    def drops(self) -> dict[str, int]:
        """What was not passed on, by reason."""
        return {reason.value: count for reason, count in self.relay.drops.items()}
