"""The API's own description, as members may ask for it."""

import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from wgdisco.registry.facts import Member
from wgdisco.registry.openapi import document
from wgdisco.registry.operations import API


def add_document(router: web.UrlDispatcher, member: Callable[[web.Request], Awaitable[Member]]) -> None:
    """Add `GET /v1/openapi.json`; `member` refuses whoever is none."""
    told = json.dumps(document(API)).encode()

    async def get(request: web.Request) -> web.StreamResponse:
        await member(request)
        return web.Response(body=told, content_type="application/json")

    router.add_get("/v1/openapi.json", get, allow_head=False)
