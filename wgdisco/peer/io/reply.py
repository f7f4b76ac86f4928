"""What the registry's API answered, bounded in size, and what went wrong with that, in words that are safe to print."""

import json

import aiohttp

MAX_REPLY_SIZE = 64 << 10
MAX_REASON_SIZE = 300
CHUNK = 64 << 10


async def bounded(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body; ValueError when there is more of it."""
    body = b""
    async for chunk in response.content.iter_chunked(CHUNK):
        body += chunk
        if len(body) > most:
            raise ValueError("too large")
    return body


async def reason(response: aiohttp.ClientResponse) -> str:
    """What the registry says is wrong, as one line that is safe to print."""
    try:
        told = json.loads(await bounded(response, MAX_REPLY_SIZE))
        text = told.get("error") if isinstance(told, dict) else None
    except (ValueError, RecursionError):
        text = None
    if isinstance(text, str) and text.isprintable() and 0 < len(text) <= MAX_REASON_SIZE:
        return text
    return f"the registry answers {response.status}"


def phrase(error: Exception) -> str:
    """Why there was no answer."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = getattr(error, "os_error", error)
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return "the connection broke"
