"""`wgdisco join LINK`: how this host becomes a member."""

import asyncio
import os
import socket
import time
from contextlib import suppress
from dataclasses import replace

from wgdisco import logs
from wgdisco.api import SelfRecord, Snapshot
from wgdisco.errors import LocalError, NotRunningError, RemoteError
from wgdisco.invitation import JoinLink, link_id, member_preshared_key
from wgdisco.keys import PrivateKey
from wgdisco.names import check_member_name, check_network_name, label_of
from wgdisco.peer.io.enrol import enrol
from wgdisco.peer.io.state import MemberState, StateStore
from wgdisco.peer.roster import Memory
from wgdisco.tunnel.firewall import Mode
from wgdisco.tunnel.io import control


def become_member(
    link: JoinLink, name: str | None, network: str | None, store: StateStore, *, is_external: bool
) -> MemberState:
    """Become a member. A key is kept before it is sent, so that the same link can be tried again."""
    if name is not None:
        check_member_name(name)
    if network is not None:
        check_network_name(network)
        _check_unused(network, store, is_external=is_external)
    if _is_registry_of(link):
        raise LocalError("this host is the registry of that network: members reach it as it is")
    identifier = link_id(link.secret)
    private_key = store.enrolment_key(identifier, PrivateKey(os.urandom(32)))
    wish = name or label_of(socket.gethostname()) or None
    told = asyncio.run(enrol(link, private_key.public_key(), wish))
    _check_told(told, link, private_key)
    network = network or told.network.name
    _check_unused(network, store, is_external=is_external)
    snapshot = Snapshot(told.network, told.member, [])
    state = MemberState(
        name=network,
        private_key=private_key,
        preshared_key=member_preshared_key(link.secret),
        registries=link.registries,
        registry_key=link.registry_key,
        link=identifier,
        memory=Memory(snapshot, time.time(), told.network.epoch, is_fresh=True),
        firewall=Mode.AUTO,
        zone=told.network.zone,
    )
    store.save(state)
    store.enrolment_done(identifier)
    logs.say(f"{told.member.name} is a member of {network}")
    return state


def _check_unused(network: str, store: StateStore, *, is_external: bool) -> None:
    otherwise = "call the new network otherwise with --network NAME"
    if network in store.names():
        raise LocalError(
            f"this host is a member of a network {network!r} already: `wgdisco leave {network}` first, or {otherwise}"
        )
    if not is_external and network in (name for _, name in socket.if_nameindex()):
        raise LocalError(f"there is an interface {network} here already: {otherwise}")


def _is_registry_of(link: JoinLink) -> bool:
    for interface in control.running_interfaces():
        with suppress(NotRunningError):
            if asyncio.run(control.fetch_status(interface)).public_key == link.registry_key.to_text():
                return True
    return False


def enrol_again(link: JoinLink, state: MemberState, store: StateStore) -> MemberState:
    """An ephemeral membership that was not given up in the end may be over: renew it, with the same key.

    Where the registry does not do that, it may hold still.
    """
    own = state.memory.snapshot.member
    try:
        told = asyncio.run(enrol(link, state.private_key.public_key(), own.name))
    except RemoteError as error:
        logs.say(f"{error}; going on as {own.name}")
        return state
    _check_told(told, link, state.private_key)
    snapshot = Snapshot(told.network, told.member, state.memory.snapshot.members)
    renewed = replace(state, memory=replace(state.memory, snapshot=snapshot, confirmed_at=time.time()))
    store.save(renewed)
    return renewed


def _check_told(told: SelfRecord, link: JoinLink, private_key: PrivateKey) -> None:
    if told.member.public_key != private_key.public_key().to_text():
        raise LocalError("the registry enrolled another key than ours: ask for another invitation")
    if told.network.registry_key != link.registry_key.to_text():
        raise LocalError("the registry that answers is not the one of the link: ask for another invitation")
