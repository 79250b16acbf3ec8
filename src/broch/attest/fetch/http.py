"""HTTP as a careful client speaks it: everything bounded, rate limits obeyed, outages survived.

1. HTTPS only, but for a service on this machine; redirects are not followed. 2. Bodies and headers
have a size limit, and a request a deadline, so that neither a flood nor a trickle holds us up.
3. Nothing is decompressed. 4. After 429 or 503 the service is left alone for as long as it asks
(RFC 9110, section 10.2.3), also by other threads that share the client; if that is too long, the
caller is told when to come back. 5. Other failures of the service or the line are tried again,
each time after twice the wait, refusals are not; a service that stays away is asked once at a time.
"""

import ipaddress
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from broch.errors import DecodeError, UndecidedError, UsageError

if TYPE_CHECKING:
    import httpx

MAX_HEADER: Final = 32 * 1024  # bytes of one value; issuer chains have 2 to 6 KiB
_AGAIN: Final = frozenset({429, 500, 502, 503, 504})
_TOO_MANY: Final = 429
_SPACING: Final = 10.0  # seconds; AMD's KDS gives one key in so many, and may not say so
_CHUNK: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how often, all times in seconds."""

    silence: float = 10.0  # between two pieces of an answer
    request: float = 30.0  # for a whole answer
    attempts: int = 4
    first_wait: float = 1.0  # after the first failure; doubled after each
    longest_wait: float = 60.0  # that a service may ask for


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An answer with status 200."""

    url: str
    body: bytes
    headers: Mapping[str, str] = field(repr=False)  # names in lower case

    def header(self, name: str) -> str:
        """The value of a header.

        Raises:
            DecodeError: it is not there, or too long.
        """
        value = self.headers.get(name.lower())
        if value is None:
            raise DecodeError(0, f"the answer has no header {name}", what=self.url)
        if len(value) > MAX_HEADER:
            raise DecodeError(MAX_HEADER, f"header {name} is too long", what=self.url)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failed:
    """An attempt that may be repeated after ``wait`` seconds, or after our own choice of them."""

    problem: str
    wait: float | None = None


class Http:
    """A client for one or several services; safe to share between threads.

    Args:
        limits: how long and how often.
        sleep, monotonic, now: the clocks.
        waiting: called with a text before each wait.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        waiting: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._limits = limits or Limits()
        self._sleep = sleep
        self._monotonic = monotonic
        self._now = now
        self._waiting = waiting
        self._not_before: dict[str, float] = {}  # host -> when it may be asked again
        self._away: dict[str, float] = {}  # host -> until when we expect little of it
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    def get(self, url: str, *, max_body: int) -> Response:
        """What the service answers, if it does with status 200.

        Raises:
            UsageError: a URL that is not to be used, or httpx is not installed.
            DecodeError: the answer is too long or compressed.
            UndecidedError: no answer, or a refusal.
        """
        host = _check_url(url)
        failed = _Failed(problem="")
        is_away = self._monotonic() < self._away.get(host, 0.0)
        last = 0 if is_away else self._limits.attempts - 1
        for attempt in range(last + 1):
            self._wait_for(host, url, failed)
            outcome = self._attempt(url, max_body)
            if isinstance(outcome, Response):
                self._away.pop(host, None)
                return outcome
            failed = outcome
            if outcome.wait is not None:
                self._hold(host, outcome.wait)
            elif attempt < last:
                self._hold(host, self._limits.first_wait * 2**attempt)
        self._away[host] = self._monotonic() + self._limits.longest_wait
        raise UndecidedError(failed.problem, place=url, hint=_hint(failed))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections; the client can still be used, and then opens new ones."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _hold(self, host: str, wait: float) -> None:
        """Ask the host nothing for ``wait`` seconds, whichever thread it is."""
        with self._lock:
            then = self._monotonic() + wait
            self._not_before[host] = max(self._not_before.get(host, 0.0), then)

    def _wait_for(self, host: str, url: str, failed: _Failed) -> None:
        """Until the host may be asked, also if another thread was told so."""
        with self._lock:
            wait = self._not_before.get(host, 0.0) - self._monotonic()
        if wait > self._limits.longest_wait:
            problem = failed.problem or "the service has asked to be left alone"
            raise UndecidedError(problem, place=url, hint=f"try again in {wait:.0f} s")
        if wait > 0:
            self._waiting(f"{host}: {failed.problem or 'rate limit'}; again in {wait:.0f} s")
            self._sleep(wait)

    def _attempt(self, url: str, max_body: int) -> Response | _Failed:
        client = self._open()  # says what to do if there is no httpx
        import httpx

        end = self._monotonic() + self._limits.request
        try:
            with client.stream("GET", url) as response:
                if response.status_code != 200:
                    return self._refused(url, response)
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise DecodeError(0, "the answer is compressed", what=url)
                body = bytearray()
                for chunk in response.iter_raw(_CHUNK):
                    body += chunk
                    if len(body) > max_body:
                        raise DecodeError(max_body, f"more than {max_body} bytes", what=url)
                    if self._monotonic() > end:
                        return _Failed(problem=f"no whole answer in {self._limits.request:.0f} s")
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Response(url=url, body=bytes(body), headers=headers)
        except httpx.TimeoutException:
            return _Failed(problem=f"no answer in {self._limits.silence:.0f} s")
        except (httpx.HTTPError, httpx.StreamError) as exc:
            return _Failed(problem=f"no whole answer: {type(exc).__name__}: {exc}"[:300])

    def _refused(self, url: str, response: "httpx.Response") -> _Failed:
        status = response.status_code
        problem = f"the service answers {status} {response.reason_phrase}".rstrip()
        if status in _AGAIN:
            wait = retry_after(response.headers.get("retry-after"), self._now())
            if wait is None and status == _TOO_MANY:
                wait = _SPACING
            return _Failed(problem=problem, wait=wait)
        if 300 <= status < 400:
            raise UndecidedError(f"{problem}, and points elsewhere", place=url, hint=_REDIRECT)
        hint = _NOT_THERE if status in (404, 410) else "compare the URL with the service's manual"
        raise UndecidedError(problem, place=url, hint=hint)

    def _open(self) -> "httpx.Client":
        with self._lock:
            if self._client is None:
                self._client = _client(self._limits.silence)
            return self._client


_REDIRECT: Final = "name the service itself; a redirect is not followed"
_NOT_THERE: Final = "the service knows no such platform or version"


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds that a ``Retry-After`` header asks for; None if that cannot be understood."""
    if value is None:
        return None
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())


def _hint(failed: _Failed) -> str:
    if failed.wait is not None:
        return f"try again in {failed.wait:.0f} s"
    return "try again later; meanwhile a bundle from elsewhere can be imported"


def _check_url(url: str) -> str:
    """The host (with its port) of a URL that may be used.

    Raises:
        UsageError: not HTTPS, or not a URL.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or parts.username is not None or parts.scheme not in ("http", "https"):
        raise UsageError("not the URL of a service", place=url, hint="https://HOST[:PORT]")
    if parts.scheme == "http" and not _is_loopback(host):
        raise UsageError("not HTTPS", place=url, hint="only a service on this machine goes without")
    return parts.netloc


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _client(silence: float) -> "httpx.Client":
    try:
        import httpx
    except ImportError:
        raise UsageError(
            "fetching needs the package httpx", hint="pip install 'broch[server]'"
        ) from None
    from broch import __version__

    return httpx.Client(
        follow_redirects=False,
        timeout=silence,
        headers={"accept-encoding": "identity", "user-agent": f"broch/{__version__}"},
    )
