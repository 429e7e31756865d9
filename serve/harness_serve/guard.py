"""The guard in front of engine and page: an ASGI middleware that decides who may ask.

A server on 127.0.0.1 is reached by every web page that its user's browser shows: by requests across sites, and by names
that are pointed at 127.0.0.1 after the page was loaded (DNS rebinding). So a request must call the server by a name of
its own, and may not come from another site's page. The engine's guard in `engine_guard.py` and the page's in `login.py`
ask for a key besides. Standard library only.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import harness

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERY_ADDRESS = ("0.0.0.0", "::")
CODES = {
    400: "invalid_value",
    401: "invalid_api_key",
    404: "not_found",
    413: "too_large",
    429: "rate_limit_exceeded",
    502: "remote_unavailable",
    503: "engine_unavailable",
}  # else `forbidden`
SHORTEST_KEY = 16  # of a server that other machines reach
AUTHORITY = re.compile(r"(?P<name>[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def require_key(host: str, key: str | None) -> None:
    """Raise HarnessError where the key, or its absence, would leave the server open."""
    advice = "set HARNESS_API_KEY to a long random text, such as the output of `openssl rand -hex 24`"
    if key is None:
        if host not in LOOPBACK:
            raise harness.HarnessError(
                f"--host {host} opens the endpoint to other machines, so it needs a key: {advice}"
            )
        return
    if not key.strip():
        raise harness.HarnessError(f"the key is empty: {advice}, or unset it to serve this machine without a key")
    if key != key.strip() or not all(" " <= character <= "~" for character in key):
        raise harness.HarnessError(
            "the key has characters that HTTP headers do not carry unchanged (white space at an end, control or "
            f"non-ASCII characters): {advice}"
        )
    if host not in LOOPBACK and len(key) < SHORTEST_KEY:
        raise harness.HarnessError(
            f"--host {host} opens the endpoint to other machines, and a key of {len(key)} characters can be guessed; "
            f"at least {SHORTEST_KEY} are needed: {advice}"
        )


def url_host(host: str) -> str:
    """Return the address to reach a server on this machine that listens on `host`, as written in a URL."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{reachable}]" if ":" in reachable else reachable


@dataclass(frozen=True, slots=True)
class Names:
    """The names by which a server may be called: `host`, on which it listens, and those that `--allow-host` adds.

    A server of this machine alone answers to loopback addresses and `localhost`. One that others reach answers to every
    IP address (no DNS answer can forge one) and to the machine's own names.
    """

    host: str = "127.0.0.1"
    allowed: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[str, ...]:
        names = ["localhost", *self.allowed]
        if self.host not in (*LOOPBACK, *EVERY_ADDRESS):
            names.insert(0, self.host.lower())
        if self.host not in LOOPBACK:
            machine = socket.gethostname().lower()
            names += [machine, f"{machine.partition('.')[0]}.local"]
        return tuple(dict.fromkeys(names))

    def accept(self, authority: str) -> bool:
        """Return True if `authority`, a Host header, is one of the server's names. Any port: tunnels change it."""
        parsed = AUTHORITY.fullmatch(authority.lower())
        if parsed is None:
            return False
        name = parsed["name"].strip("[]").removesuffix(".")
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self.known
        return address.is_loopback if self.host in LOOPBACK else True

    def __str__(self) -> str:
        addresses = ("127.0.0.1", "[::1]") if self.host in LOOPBACK else ("its IP addresses",)
        return ", ".join((*addresses, *self.known))

    @classmethod
    def checked(cls, host: str, allowed: tuple[str, ...]) -> Names:
        """Return the names that a person typed. Raises HarnessError where one is not a host name."""
        for name in allowed:
            if not NAME.fullmatch(name.lower()):
                raise harness.HarnessError(
                    f"--allow-host {name}: expected a host name alone, as in compare.example.org, "
                    f"without scheme, port or *"
                )
        return cls(host, tuple(name.lower() for name in allowed))


class Guard:
    """ASGI middleware that answers 403 to requests of another site or under another name; `admit` decides the rest."""

    def __init__(self, app: App, names: Names) -> None:
        self.app = app
        self.names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        reason = _unknown_name(scope, self.names) or self.foreign(scope)
        if reason is not None:
            await self.refuse(scope, send, 403, reason)
        else:
            await self.admit(scope, receive, send)

    def foreign(self, scope: Scope) -> str | None:
        """Return why a request that another site's page makes is refused, or None."""
        return _foreign_site(scope, self.names)

    async def admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that came by a known name from no other site."""
        await self.app(scope, receive, send)

    async def refuse(self, scope: Scope, send: Send, status: int, reason: str, *headers: tuple[bytes, bytes]) -> None:
        """Refuse a request with an error as OpenAI's API writes it, a WebSocket by closing it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        await respond(send, status, error_json(status, reason), (b"content-type", b"application/json"), *headers)


def error_json(status: int, reason: str) -> bytes:
    """Return an error as OpenAI's API writes it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json.dumps({"error": {"message": reason, "type": kind, "code": CODES.get(status, "forbidden")}}).encode()


async def read_body(receive: Receive, longest: int) -> bytes | None:
    """Return the body of a request; None where it is larger than `longest` bytes, nothing of a client that has gone."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        body += message.get("body", b"")
        if len(body) > longest:
            return None
        if not message.get("more_body", False):
            return bytes(body)


async def respond(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Send one whole HTTP response."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


def adding(send: Send, ours: Headers) -> Send:
    """Return a `send` that puts headers on a response, in place of those of the same names."""
    names = {name for name, _ in ours}

    async def sending(message: Scope) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]
            message = {**message, "headers": [*kept, *ours]}
        await send(message)

    return sending


def header(scope: Scope, name: bytes) -> list[bytes]:
    """Return the values of a header, one for each time that it was sent."""
    return [value for key, value in scope["headers"] if key.lower() == name]


def _authorities(scope: Scope) -> list[str]:
    """Return the names by which a request calls this server: its Host, and what proxies in front were called by."""
    forwarded = [part.strip() for value in header(scope, b"x-forwarded-host") for part in value.split(b",")]
    return [value.decode("latin-1") for value in (*header(scope, b"host"), *forwarded)]


def _unknown_name(scope: Scope, names: Names) -> str | None:
    """Return why the request's Host is refused, or None."""
    if len(header(scope, b"host")) != 1 or not scope["path"].startswith("/"):
        return "the request must have one Host header, and a path that begins with /"
    for authority in _authorities(scope):
        if not names.accept(authority):
            return (
                f"`{authority[:100]}` is not a name of this server, which answers to {names}. "
                f"Where you started it, `harness serve --allow-host NAME` adds a name"
            )
    return None


def _foreign_site(scope: Scope, names: Names) -> str | None:
    """Return why a request that another site's page makes is refused, or None. Following a link here is not one."""
    for origin in header(scope, b"origin"):
        shown = origin.decode("latin-1")
        if not _is_own_origin(shown, _authorities(scope), names):
            return f"requests from pages of another site (`{shown[:100]}`) are refused"
    sites = header(scope, b"sec-fetch-site")
    is_link = (
        scope.get("method") in ("GET", "HEAD")
        and header(scope, b"sec-fetch-mode") == [b"navigate"]
        and header(scope, b"sec-fetch-dest") == [b"document"]
    )
    if any(site not in (b"same-origin", b"none") for site in sites) and not is_link:
        return "requests from pages of another site are refused"
    return None


def _is_own_origin(origin: str, authorities: list[str], names: Names) -> bool:
    try:
        parts = urlsplit(origin.lower())
        default = {"http": 80, "https": 443, "ws": 80, "wss": 443}[parts.scheme]
        name, port = parts.hostname, parts.port or default
    except (KeyError, ValueError):  # `null` too: the origin of sandboxed frames and local files
        return False
    if AUTHORITY.fullmatch(parts.netloc) is None or parts.path or parts.query or parts.fragment:
        return False
    if name in names.allowed and port == default:  # a proxy in front that passes its own Host on
        return True
    own = (AUTHORITY.fullmatch(authority.lower()) for authority in authorities)
    return any(
        match is not None and match["name"].strip("[]") == name and int(match["port"] or default) == port
        for match in own
    )
