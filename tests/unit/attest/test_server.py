"""The service: the command's own result, bounded requests, and nothing that a client can relax."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.unit.attest import support
from tests.unit.attest.support import CASES, Case

from broch.attest import ear, server
from broch.attest.result import Result
from broch.attest.server import MAX_BODY, Settings, application
from broch.errors import BrochError, MalformedError, UntrustedError, UsageError
from broch.tee.contract import Endorsements

KEY: Final = ec.derive_private_key(31, ec.SECP256R1())
RAW: Final = {"content-type": "application/octet-stream"}


def settings(case: Case, **changes: Any) -> Settings:
    found = Settings(
        policy=case.policy(), source=lambda tee, data: case.endorsements, clock=lambda: case.at
    )
    return replace(found, **changes)


def post(
    found: Settings,
    content: bytes | AsyncIterator[bytes],
    headers: Mapping[str, str] = RAW,
    nonce: bytes | None = None,
    path: str = "/verify",
    method: str = "POST",
) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app=application(found))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            params = {} if nonce is None else {"nonce": nonce.hex()}
            return await client.request(
                method, path, content=content, headers=dict(headers), params=params
            )

    return asyncio.run(run())


def ask(case: Case, found: Settings | None = None, **fields: Any) -> httpx.Response:
    """A request as JSON; a field that is None is left out."""
    sound = {"evidence": b64(case.evidence), "nonce": case.nonce.hex(), **fields}
    body = {name: value for name, value in sound.items() if value is not None}
    headers = {"content-type": "application/json; charset=utf-8"}
    return post(found or settings(case), json.dumps(body).encode(), headers)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def expected(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(result.to_dict()))
    return {**found, "ear": None}


@pytest.mark.parametrize("tee", sorted(CASES))
def test_the_same_result_as_without_a_server(tee: str) -> None:
    case = CASES[tee]()
    for reply in (
        post(settings(case), case.evidence, nonce=case.nonce),
        post(
            settings(case), b64(case.evidence).encode(), {"content-type": "text/plain"}, case.nonce
        ),
        ask(case),
    ):
        assert reply.status_code == 200
        assert reply.json() == expected(case.examine())


@pytest.mark.parametrize("tee", sorted(CASES))
def test_only_accepted_is_200(tee: str) -> None:
    case = CASES[tee]()
    for reply, status, code in (
        (ask(case, nonce="00" * 8), 403, 5),
        (ask(case, nonce=None), 403, 5),
        (ask(case, evidence=b64(case.evidence[:-1])), 400, 3),
        (ask(case, settings(case, policy=replace(case.policy(), references={}))), 403, 5),
    ):
        assert reply.status_code == status, reply.text
        assert reply.json()["exit_code"] == code
        assert reply.json()["status"] != "accepted"


def test_what_is_not_authentic_and_what_is_undecided() -> None:
    case = support.sgx()
    place = case.evidence.index(case.nonce)
    bad = case.evidence[:place] + b"\xff" + case.evidence[place + 1 :]
    reply = ask(case, evidence=b64(bad))
    assert (reply.status_code, reply.json()["status"]) == (403, "untrusted")
    nothing = settings(case, source=lambda tee, data: Endorsements(anchors=()))
    reply = ask(case, nothing)
    assert (reply.status_code, reply.json()["status"]) == (503, "undecided")


def test_a_client_can_bring_collateral_and_no_trust() -> None:
    case = support.sgx()
    roots = settings(case, source=lambda tee, data: Endorsements(anchors=case.endorsements.anchors))
    items = {name: b64(value) for name, value in case.endorsements.items.items()}
    assert ask(case, roots).status_code == 503
    assert ask(case, roots, endorsements=items).status_code == 200
    # Under a root that the operator does not know it is worth nothing.
    none = settings(case, source=lambda tee, data: Endorsements(anchors=()))
    assert ask(case, none, endorsements=items).status_code == 503
    for name in ("anchors", "unsafe_no_crl", "attestation_key", "tcb-info", ""):
        reply = ask(case, roots, endorsements={**items, name: ""})
        assert reply.status_code == 400
        assert "only the server's operator can give that" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("tee", "name"),
    [
        ("psa", "attestation_key"),
        ("psa", "mac_key"),
        ("psa", "implementation_id"),
        ("cca", "platform_key"),
        ("tpm", "ak_public"),
        ("tpm", "attestation_key"),
        ("tpm", "unsafe_no_crl"),
        ("snp", "unsafe_no_crl"),
    ],
)
def test_enrolled_keys_are_the_operators(tee: str, name: str) -> None:
    """Whoever could send the key could send any evidence."""
    case = CASES[tee]()
    nothing = settings(case, source=lambda tee, data: Endorsements(anchors=()))
    value = case.endorsements.items.get(name, b"")
    reply = ask(case, nothing, endorsements={name: b64(value)})
    assert reply.status_code == 400
    assert "only the server's operator" in reply.json()["error"]["message"]


def test_the_operators_items_count() -> None:
    case = support.snp()
    reply = ask(case, endorsements={"vek": b64(b"junk"), "crl": b64(b"junk")})
    assert reply.status_code == 200


def test_the_time_is_the_servers() -> None:
    case = support.sgx()
    late = settings(case, clock=lambda: datetime.fromisoformat("2060-01-01T00:00:00Z"))
    assert ask(case, late).json()["exit_code"] == 4
    reply = ask(case, at=case.at.isoformat())
    assert reply.status_code == 400
    assert "unknown member 'at'" in reply.json()["error"]["message"]


def test_signed_results() -> None:
    case = support.sgx()
    for nonce, status in ((case.nonce, "warning"), (b"another nonce", "contraindicated")):
        reply = ask(case, settings(case, key=KEY), nonce=nonce.hex())
        found = ear.read_jwt(reply.json()["ear"], KEY.public_key(), at=case.at)
        assert found.status == {"sgx": status}
        assert found.nonce == nonce


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "evidence is missing"),
        (b'{"evidence": 3}', "evidence is missing or no string"),
        (b'{"evidence": "?"}', "evidence is not base64"),
        (b'{"evidence": "\xc3\xa4"}', "evidence is not base64"),
        (b'{"evidence": "AAAA"}', "not evidence of a known kind"),
        (b'{"evidence": "AAAA", "evidence": "AAAA"}', "a key comes twice"),
        (b'{"evidence": "AAAA", "nonce": 3}', "nonce is no text"),
        (b'{"evidence": "AAAA", "policy": {}}', "unknown member 'policy'"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_requests_that_are_none(body: bytes, message: str) -> None:
    reply = post(settings(support.sgx()), body, {"content-type": "application/json"})
    assert reply.status_code == 400
    assert message in reply.json()["error"]["message"]
    assert reply.json()["exit_code"] == 3


@pytest.mark.parametrize("nonce", ["0", "xy", "00" * 7, "00" * 1025, ""])
def test_nonces_that_are_none(nonce: str) -> None:
    case = support.sgx()
    reply = ask(case, nonce=nonce)
    assert reply.status_code == 400
    assert "nonce" in reply.json()["error"]["message"]


def test_fields_of_the_wrong_type() -> None:
    case = support.sgx()
    wrong: list[Any] = [[], "x", {"tcb_info": 3}, {"tcb_info": "?"}]
    for endorsements in wrong:
        assert ask(case, endorsements=endorsements).status_code == 400


def test_other_types_methods_and_paths() -> None:
    found = settings(support.sgx())
    reply = post(found, b"x", {"content-type": "application/xml"})
    assert reply.status_code == 400
    assert reply.json()["error"]["hint"] == "send application/octet-stream or application/json"
    assert post(found, b"", method="GET").status_code == 405
    assert post(found, b"", path="/policy").status_code == 404


def test_a_body_that_does_not_end() -> None:
    """It is not read to its end: what is too long is refused as soon as it is."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield bytes(64 * 1024)

    # httpx's transport reads lazily, so that an application that never stops would hang here.
    reply = post(settings(support.sgx()), endless())
    assert reply.status_code == 413
    assert sent <= MAX_BODY // (64 * 1024) + 2


def test_a_body_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_WAIT", 0.01)

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    assert post(settings(support.sgx()), slow()).status_code == 408


@pytest.mark.parametrize("kind", [UsageError, UntrustedError, MalformedError])
def test_the_operators_folder_is_bad(
    kind: type[BrochError], caplog: pytest.LogCaptureFixture
) -> None:
    """That is no mistake of the client's; he is told no path, and nothing is accepted."""
    case = support.sgx()

    def bad(tee: str, data: bytes) -> Endorsements:
        raise kind("cannot be read", place="/etc/verifier/keys/secret")

    reply = ask(case, settings(case, source=bad))
    assert (reply.status_code, reply.json()["status"]) == (503, "undecided")
    assert "/etc/verifier" not in reply.text
    assert "/etc/verifier/keys/secret: cannot be read" in caplog.text
    # Evidence that is malformed is malformed, whatever the folder is.
    if kind is MalformedError:
        cut = ask(case, settings(case, source=bad), evidence=b64(case.evidence[:-1]))
        assert cut.status_code == 400


def test_openapi() -> None:
    reply = post(settings(support.sgx()), b"", path="/openapi.json", method="GET")
    document = reply.json()
    assert document["openapi"] == "3.1.0"
    operation = document["paths"]["/verify"]["post"]
    assert operation["responses"].keys() == {"200", "400", "403", "408", "413", "503"}
    schema = document["components"]["schemas"]["Result"]["properties"]
    case = support.sgx()
    assert ask(case).json().keys() == schema.keys()


def test_verified_chains_are_kept_from_request_to_request() -> None:
    case = support.sgx()
    found = settings(case)
    assert not len(found.cache)
    ask(case, found)
    kept = len(found.cache)
    assert kept
    ask(case, found)
    assert len(found.cache) == kept
