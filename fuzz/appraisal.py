"""What a relying party is given: evidence in any writing, policies, requests, signed results.

Besides that only our errors may come back: what is shown of evidence has to be plain data, a policy
that is accepted names what it accepts, and a result that is believed was signed.
"""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from tests.unit.attest.support import CASES
from tests.unit.attest.test_policy_file import FULL

from broch.attest import ear, explain, formats, policy_file, server
from broch.attest.inspection import result_in, taken_apart
from broch.attest.result import Result
from broch.wire import cmw
from fuzz.evidence import SOUND

_KEY: Final = ec.derive_private_key(61, ec.SECP256R1())
_AT: Final = datetime(2026, 3, 1, tzinfo=UTC)
Pair = tuple[Callable[[bytes], None], Callable[[], list[bytes]]]


@cache
def _evidence() -> list[bytes]:
    return [make().evidence for make in SOUND.values()]


def _any_evidence(data: bytes) -> None:
    found = formats.read(data)
    json.dumps(taken_apart(found), allow_nan=False)


def _writings() -> list[bytes]:
    wrapped = [cmw.Record(type="a/b", value=data).to_cbor() for data in _evidence()]
    return [
        *_evidence(),
        *wrapped,
        *(base64.b64encode(data) for data in _evidence()),
        *(data.hex().encode() for data in _evidence()),
    ]


def _policy(data: bytes) -> None:
    policy = policy_file.from_toml(data.decode("utf-8", "replace"), "policy.toml")
    assert policy.references, "accepted, and accepts nothing"
    list(policy.relaxations())


def _request(data: bytes) -> None:
    server.decode(data, "application/json", None)


def _requests() -> list[bytes]:
    return [
        json.dumps({"evidence": base64.b64encode(data).decode(), "nonce": "00" * 8}).encode()
        for data in _evidence()
    ]


def _result(data: bytes) -> None:
    """A JWT or CWT: it is taken apart, and believed only if it is one that was signed."""
    result_in(data)
    text = data.decode("latin-1")
    found = ear.read_jwt(text, _KEY.public_key(), at=_AT) if data[:1] == b"e" else None
    if found is None:
        ear.read_cwt(data, _KEY.public_key(), at=_AT)
    assert data in _results(), "believed, and never signed"


@cache
def _results() -> list[bytes]:
    result = CASES["psa"]().examine()
    return [
        ear.sign(result, _KEY, form=form, dialect=dialect, issued=_AT)
        for form in ear.Form
        for dialect in ear.Dialect
    ]


def _tcb_info(data: bytes) -> None:
    """A look ahead takes documents whose signature nobody asks for."""
    list(explain.explain(_judged(), explain.read_next(data)))


@cache
def _judged() -> Result:
    return CASES["tdx"]().examine()


def _tcb_infos() -> list[bytes]:
    return [CASES[tee]().endorsements.items["tcb_info"] for tee in ("tdx", "sgx")]


PAIRS: Final[dict[str, Pair]] = {
    "any_evidence": (_any_evidence, _writings),
    "policy": (_policy, lambda: [FULL.encode()]),
    "request": (_request, _requests),
    "result": (_result, lambda: list(_results())),
    "next_tcb_info": (_tcb_info, _tcb_infos),
}
