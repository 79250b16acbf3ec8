"""The verifier as a service: POST /verify answers what ``broch verify --json`` prints.

A request is evidence in any written form (application/octet-stream or text/plain, the nonce as
``?nonce=HEX``), or JSON:

    {"evidence": "base64", "nonce": "hex", "endorsements": {"tcb_info": "base64", ...}}

The policy, the roots, enrolled keys and the clock are the server's. A client's endorsements may
only be those that prove themselves under a root (collateral, certificates, revocation lists): an
enrolled key is the operator's to give, and where both have an item the operator's counts.

Only 200 means accepted, so that a client that looks at nothing but the status is right:
refused and untrusted are 403, malformed is 400, undecided 503.
"""

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from broch.attest import formats
from broch.attest.endorsements import items as known_items
from broch.attest.policy import Policy
from broch.attest.result import Result, Source, Status, examine
from broch.errors import (
    BrochError,
    DecodeError,
    MalformedError,
    UndecidedError,
    UntrustedError,
    UsageError,
)
from broch.tee.cache import VerificationCache
from broch.tee.contract import Endorsements
from broch.wire import jws, strict_json

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_LOG: Final = logging.getLogger("broch.verifier")
MAX_BODY: Final = 1024 * 1024  # bytes
MAX_WAIT: Final = 10.0  # seconds until a request has come whole
_HTTP: Final = {
    Status.ACCEPTED: 200,
    Status.REFUSED: 403,
    Status.UNTRUSTED: 403,
    Status.MALFORMED: 400,
    Status.UNDECIDED: 503,
}
_RAW: Final = ("application/octet-stream", "text/plain", "")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})+")
_W: Final = "request"
# Items that are nothing without a root above them. All others are a caller's word, taken as such.
_SELF_PROVING: Final = {
    "sgx": frozenset(known_items.ITEMS["sgx"]),
    "tdx": frozenset(known_items.ITEMS["tdx"]),
    "snp": frozenset({"vek", "ask", "crl"}),
    "tpm": frozenset(
        {"ak_certificate", "ak_issuer", "crl"}
        | {"certified_public", "certify_info", "certify_signature"}
    ),
    "keystone": frozenset({"device_endorsement"}),
    "trustzone": frozenset({"attestation_key_certificate"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the server decides by."""

    policy: Policy
    source: Source  # the operator's endorsements
    key: jws.SigningKey | None = field(default=None, repr=False)  # signs results
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    cache: VerificationCache = field(default_factory=VerificationCache)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, decoded."""

    evidence: formats.Evidence
    nonce: bytes | None


def answer(settings: Settings, asked: Asked) -> tuple[int, dict[str, Any]]:
    """HTTP status and body.

    Raises:
        UsageError: a nonce of another size.
    """
    at = settings.clock()

    def source(tee: str, data: bytes) -> Endorsements:
        found = _operators(settings.source, tee, data)
        return replace(found, cache=settings.cache)

    result = examine(asked.evidence, source, settings.policy, at=at, nonce=asked.nonce)
    return _HTTP[result.status], {**result.to_dict(), "ear": _ear(result, settings)}


def _operators(source: Source, tee: str, data: bytes) -> Endorsements:
    """What the operator has. That it cannot be read is not the client's doing, nor his to know of.

    Raises:
        UndecidedError: it cannot be used.
    """
    try:
        return source(tee, data)
    except MalformedError as exc:
        _LOG.error("endorsements: %s", exc)
        # If it is the evidence that is malformed, its verifier says so.
        return Endorsements(anchors=())
    except (UsageError, UntrustedError) as exc:
        _LOG.error("endorsements: %s", exc)
        raise UndecidedError("the server's endorsements cannot be used") from None


def _ear(result: Result, settings: Settings) -> str | None:
    if settings.key is None:
        return None
    from broch.attest import ear

    return ear.sign(result, settings.key, issued=settings.clock()).decode("ascii")


def decode(body: bytes, content_type: str, nonce: str | None) -> Asked:
    """What a request asks.

    Raises:
        DecodeError: not a request, or not evidence.
        UsageError: another content type.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in _RAW:
        return Asked(evidence=formats.read(body), nonce=_nonce(nonce))
    if kind != "application/json":
        hint = "send application/octet-stream or application/json"
        raise UsageError(f"content type {kind!r:.60}", hint=hint)
    fields = strict_json.document(body, _W)
    unknown = fields.keys() - {"evidence", "nonce", "endorsements"}
    if unknown or nonce is not None:
        raise DecodeError(0, f"unknown member {min(unknown, default='nonce')!r:.60}", what=_W)
    found = fields.get("nonce")
    if found is not None and not isinstance(found, str):
        raise DecodeError(0, "nonce is no text", what=_W)
    evidence = formats.open_wrapping(_base64(strict_json.text(fields, "evidence", _W), "evidence"))
    given = strict_json.mapping(fields, "endorsements", _W) if "endorsements" in fields else {}
    items = {**evidence.items, **_items(evidence.tee, given)}
    return Asked(evidence=replace(evidence, items=items), nonce=_nonce(found))


def _items(tee: str, given: Mapping[str, Any]) -> dict[str, bytes]:
    """Endorsements that a client may give."""
    allowed = _SELF_PROVING.get(tee, frozenset())
    found: dict[str, bytes] = {}
    for name, value in given.items():
        if name not in allowed:
            raise DecodeError(
                0,
                f"endorsement {name!r:.60} of {tee}: only the server's operator can give that",
                what=_W,
            )
        if not isinstance(value, str):
            raise DecodeError(0, f"endorsement {name} is no text", what=_W)
        form = known_items.form(tee, name, _W)
        found[name] = known_items.normal(form, _base64(value, name), name)
    return found


def _base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise DecodeError(0, f"{what} is not base64", what=_W) from None


def _nonce(text: str | None) -> bytes | None:
    if text is None:
        return None
    if not _HEX.fullmatch(text):
        raise DecodeError(0, "nonce is not hexadecimal digits", what=_W)
    return bytes.fromhex(text)


def application(settings: Settings) -> "Starlette":
    """The ASGI application.

    Raises:
        UsageError: Starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse
        from starlette.routing import Route
    except ImportError:
        raise UsageError(
            "the server needs Starlette, which is not installed",
            hint="pip install 'broch[server]'",
        ) from None

    async def verify(request: "Request") -> "Response":
        try:
            body = await _body(request)
            if body is None:
                return _problem(413, UsageError(f"longer than {MAX_BODY} bytes"))
            status, made = await run_in_threadpool(_answer, settings, request, body)
        except TimeoutError:
            return _problem(408, UsageError("the request did not come whole in time"))
        except (UsageError, MalformedError) as exc:
            return _problem(400, exc)
        return JSONResponse(made, status_code=status)

    async def openapi(_: "Request") -> "Response":
        from broch.attest.openapi import document

        return JSONResponse(document())

    return Starlette(
        routes=[
            Route("/verify", verify, methods=["POST"]),
            Route("/openapi.json", openapi, methods=["GET"]),
        ]
    )


def _answer(settings: Settings, request: "Request", body: bytes) -> tuple[int, dict[str, Any]]:
    asked = decode(body, request.headers.get("content-type", ""), request.query_params.get("nonce"))
    return answer(settings, asked)


async def _body(request: "Request") -> bytes | None:
    """The body, or None if it is too long; what comes after the limit is never read."""
    body = bytearray()
    async with asyncio.timeout(MAX_WAIT):
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return None
    return bytes(body)


def _problem(status: int, error: BrochError) -> "Response":
    """An error as ``--json`` shows it."""
    from starlette.responses import JSONResponse

    told = {
        "code": error.code,
        "message": error.message,
        "place": error.place,
        "hint": error.hint,
    }
    made = {"status": "malformed", "exit_code": error.exit_code, "error": told}
    return JSONResponse(made, status_code=status)
