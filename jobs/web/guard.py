"""Which requests are answered at all, and what browsers are told to allow.

What always holds: the server reads and never writes, so that only GET and HEAD are answered and there is nothing to
forge; a name that is not its own is refused, so that a page from elsewhere cannot reach it by changing what its name
resolves to (DNS rebinding); and no script, style or frame comes from anywhere but here.
"""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "vacancy_token"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script';"
    " trusted-types lit-html"
)
HEADERS = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_MAX_QUERY_BYTES = 16_384


class Guard:
    """Refuses what is not to be answered, and adds the headers to what is.

    Args:
        app: what answers.
        allow_hosts: names, without ports, by which browsers may call the server, besides those of loopback.
        token: what a browser or a proxy must show; None: nothing.
        secure: whether the server speaks TLS, so that the cookie is sent only over that.
    """

    def __init__(self, app: ASGIApp, allow_hosts: tuple[str, ...], token: str | None, *, secure: bool) -> None:
        self._app = app
        self._names = LOOPBACK | {name.lower() for name in allow_hosts}
        self._token = token
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or hands it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # there are no WebSockets here

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if _without_port(headers.get("host", "")) not in self._names:
            return PlainTextResponse("not a name of this server; see --allow-host\n", 421)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("only GET\n", 405, {"allow": "GET, HEAD"})
        if len(scope["query_string"]) > _MAX_QUERY_BYTES:
            return PlainTextResponse("too long\n", 414)
        # A page from elsewhere may send us, but not read us: a browser says where a request comes from.
        if headers.get("sec-fetch-site", "none") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return PlainTextResponse("from another site\n", 403)
        if self._token is None or scope["path"] == "/healthz":
            return None
        return self._token_refusal(scope, headers)

    def _token_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(shown.strip()):
            return None
        if self._is_token(_cookie(headers.get("cookie", ""))):
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = query.pop("token", [""])[0]
        if scope["path"] == "/" and self._is_token(given):
            # Kept in a cookie that no script sees, and out of the address at once.
            answer = RedirectResponse("/?" + urlencode(query, doseq=True) if query else "/", 303)
            answer.set_cookie(
                COOKIE, given, max_age=12 * 3600, secure=self._secure, httponly=True, samesite="strict", path="/"
            )
            return answer
        return PlainTextResponse(
            "this page needs its token: open it as /?token=…, or send Authorization: Bearer …\n",
            401,
            {"www-authenticate": "Bearer"},
        )

    def _is_token(self, given: str) -> bool:
        assert self._token is not None  # noqa: S101  # asked only where there is one
        return hmac.compare_digest(given.encode(), self._token.encode())


def _without_port(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


def _cookie(text: str) -> str:
    try:
        found = SimpleCookie(text).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""
