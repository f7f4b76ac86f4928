"""What admins do from inside the tunnel: the verbs of `wgdisco registry`, by the same commands."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web

from wgdisco.api import SCHEMA, parse_body, parse_key
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.registry.admin import InviteRequest, text_of
from wgdisco.registry.facts import Member, Role
from wgdisco.registry.io.commands import Commands
from wgdisco.registry.io.gate import Gate, RefusedError, body_of
from wgdisco.registry.io.ledger import Ledger, NotStoredError
from wgdisco.registry.qr import qr_svg

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")
_Verb = Callable[[Member, Any], Awaitable[dict[str, Any]]]


class Administration:
    """Adds its routes to `router`."""

    def __init__(self, ledger: Ledger, gate: Gate, router: web.UrlDispatcher, commands: Commands) -> None:
        self._membership = ledger.membership
        self._gate = gate
        self._commands = commands
        router.add_post("/v1/invite", self._handler(self._invite))
        router.add_post("/v1/invite/cancel", self._handler(self._cancel))
        router.add_post("/v1/rename", self._handler(self._rename))
        router.add_post("/v1/revoke", self._handler(self._revoke))

    def _handler(self, verb: _Verb) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            await self._admin(request)
            self._gate.limit(request)
            asked = await body_of(request, lambda data: data)
            admin = await self._admin(request)  # it may have been one no more for long when the body came
            try:
                answer = await verb(admin, asked)
            except NotStoredError:
                raise  # that is no answer of the rules: the gate tells whom to ask
            except LocalError as error:
                raise RefusedError(409, str(error)) from error
            return web.json_response({"schema": SCHEMA, **answer}, headers={"Cache-Control": "no-store"})

        return handle

    async def _admin(self, request: web.Request) -> Member:
        member = await self._gate.member(request)
        if member.role is not Role.ADMIN:
            raise RefusedError(403, f"{member.name} is no admin: `wgdisco registry set {member.name} role admin`")
        return member

    async def _invite(self, admin: Member, data: Any) -> dict[str, Any]:
        asked = _parsed(InviteRequest.from_json, data)
        made = await self._commands.invite(
            {
                "name": asked.name,
                "groups": list(asked.groups),
                "admin": asked.admin,
                "uses": asked.uses,
                "lifetime": asked.lifetime,
                "ephemeral": asked.ephemeral,
            }
        )
        _log(admin, "invited", asked.name or f"{asked.uses} members")
        return {
            "id": made["enrol_key"],
            "link": made["link"],
            "qr": qr_svg(made["link"]),
            "expires_at": int(made["expires_at"]),
            "was_revoked": made["was_revoked"],
        }

    async def _cancel(self, admin: Member, data: Any) -> dict[str, Any]:
        key = _key(data, "id")
        if key not in self._membership.invitations:
            raise RefusedError(404, "there is no such invitation: it has expired, or was used up")
        await self._commands.revoke({"name": key.to_text()})
        _log(admin, "cancelled", key.to_text())
        return {}

    async def _rename(self, admin: Member, data: Any) -> dict[str, Any]:
        member, name = self._named(data), _parsed(lambda told: text_of(told, "name"), data)
        await self._commands.rename({"public_key": member.public_key.to_text(), "new_name": name})
        _log(admin, "renamed", f"{member.name} to {name}")
        return {}

    async def _revoke(self, admin: Member, data: Any) -> dict[str, Any]:
        member = self._named(data)
        if member.number == admin.number:
            raise RefusedError(409, "that is yourself: have another admin do it, or type `wgdisco leave`")
        done = await self._commands.revoke({"public_key": member.public_key.to_text()})
        _log(admin, "revoked", member.name)
        return {"told": done["told"], "unseen": done["unseen"]}

    def _named(self, data: Any) -> Member:
        member = self._membership.members.get(_key(data, "public_key"))
        if member is None:
            raise RefusedError(404, "there is no such member (any longer)")
        return member


def _log(admin: Member, what: str, whom: str) -> None:
    LOG.info(what, extra={"fields": {"by": admin.name, "whom": whom}})


def _parsed(parse: Callable[[Any], _T], data: Any) -> _T:
    try:
        return parse(data)
    except (LocalError, ValueError) as error:
        raise RefusedError(400, str(error)) from error


def _key(data: Any, name: str) -> PublicKey:
    return PublicKey.from_text(_parsed(lambda told: parse_key(parse_body(told), name), data))
