"""The page, as files: `GET /` and `GET /page/…`, for members. All of them are read at the start, and none later."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from wgdisco.registry.io.gate import Gate, RefusedError

FILES = Path(__file__).parents[1] / "page"
INDEX = "index.html"
# Of our own: what the host knows of types differs, and browsers are told not to guess
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
# The page runs its own scripts and asks this registry, and nothing else
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # kept, and asked each time whether it is still the one
}


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    content_type: str
    tag: str


class Page:
    """Adds its routes to `router`."""

    def __init__(self, gate: Gate, router: web.UrlDispatcher, files: Path = FILES) -> None:
        self._gate = gate
        self._files = {path.relative_to(files).as_posix(): _read(path) for path in files.rglob("*") if path.is_file()}
        router.add_get("/", self._get)
        router.add_get("/page/{name:.+}", self._get)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        try:
            await self._gate.member(request)
        except RefusedError as refusal:
            return web.Response(text=f"{refusal}\n", status=refusal.status, headers=HEADERS)
        file = self._files.get(request.match_info.get("name", INDEX))
        if file is None:
            raise RefusedError(404, "there is no such file")
        headers = {**HEADERS, "ETag": file.tag}
        if request.headers.get("If-None-Match") == file.tag:
            return web.Response(status=304, headers=headers)
        charset = "utf-8" if file.content_type.startswith("text/") else None
        return web.Response(body=file.data, content_type=file.content_type, charset=charset, headers=headers)


def _read(path: Path) -> _File:
    data = path.read_bytes()
    return _File(
        data,
        TYPES.get(path.suffix, "application/octet-stream"),
        f'"{hashlib.blake2s(data, digest_size=12).hexdigest()}"',
    )
