"""The Nitro enclave around us: requests to the Secure Module, documents, registers, no keys."""

import errno
import hashlib
from typing import Any

import cbor2
import pytest
from tests.kernels import NoKernel, NsmKernel
from tests.pki import NOW
from tests.unit.tee.nitro.test_nitro import Attester, cabundle

from broch.errors import (
    BrochError,
    DecodeError,
    InternalError,
    PolicyError,
    UndecidedError,
    UsageError,
)
from broch.tee.contract import Endorsements
from broch.tee.guest import NativeSettings
from broch.tee.nitro import VERIFIER, native
from broch.tee.nitro.native import NitroEnclave

DIGEST = b"D" * 48
MEASURED = {0: b"0" * 48, 1: b"1" * 48, 2: b"2" * 48}


def document(fields: dict[str, Any], pcrs: dict[int, bytes]) -> bytes:
    return Attester(fields={**fields, "pcrs": {**pcrs, **MEASURED}}).evidence()


def enclave(kernel: Any) -> NitroEnclave:
    return NitroEnclave(NativeSettings(name="cloud", kernel=kernel))


def verified(evidence: bytes) -> Any:
    return VERIFIER.verify(evidence, Endorsements(anchors=tuple(cabundle(evidence)[:1])), at=NOW)


def test_the_document_is_verified_as_any_other() -> None:
    claims = verified(enclave(NsmKernel(make=document)).evidence(bytes(range(64))))
    assert claims.report_data == bytes(range(64))
    assert claims.measurement == MEASURED[0]
    assert claims.nonce is None


def test_all_fields_of_a_document() -> None:
    evidence = native.attestation(
        NsmKernel(make=document), b"data", nonce=b"nonce", public_key=b"key"
    )
    claims = verified(evidence)
    assert (claims.report_data, claims.nonce, claims.public_key) == (b"data", b"nonce", b"key")


@pytest.mark.parametrize("name", ["user_data", "nonce", "public_key"])
def test_fields_have_1024_bytes_at_most(name: str) -> None:
    fields: dict[str, Any] = {"user_data": b"", name: bytes(1024)}
    assert native.attestation(NsmKernel(), **fields) == b"document"
    with pytest.raises(UsageError, match="longer than 1024 bytes"):
        native.attestation(NsmKernel(), **{**fields, name: bytes(1025)})


def test_requests_have_4_kib_at_most() -> None:
    with pytest.raises(UsageError, match="at most 4096"):
        native.ask(NsmKernel(), "ExtendPCR", index=16, data=bytes(4090))


@pytest.mark.parametrize(
    ("kernel", "kind", "text"),
    [
        (NoKernel(), UndecidedError, "no AWS Nitro Enclaves device: /dev/nsm is missing"),
        (NsmKernel(trouble=[errno.ETIMEDOUT]), UndecidedError, "is busy"),
        (NsmKernel(trouble=[errno.EFAULT]), InternalError, "/dev/nsm failed"),
        (NsmKernel(answer=cbor2.dumps({"Error": "InvalidOperation"})), InternalError, "refused D"),
        (NsmKernel(answer=b""), DecodeError, "NSM response"),
        (NsmKernel(answer=b"\xff" * 9), DecodeError, "NSM response"),
        (NsmKernel(answer=cbor2.dumps("LockPCR")), DecodeError, "not the response to DescribeNSM"),
        (NsmKernel(answer=cbor2.dumps({"DescribeNSM": []})), DecodeError, "is not a map"),
        (NsmKernel(answer=cbor2.dumps({"DescribeNSM": {}, "x": 1})), DecodeError, "not the resp"),
        (NsmKernel(answer=cbor2.dumps({"DescribeNSM": {}}) + b"\0"), DecodeError, "after the item"),
    ],
)
def test_what_is_no_such_enclave(kernel: Any, kind: type[BrochError], text: str) -> None:
    with pytest.raises(kind, match=text):
        enclave(kernel)


def test_a_response_that_was_cut_off() -> None:
    kernel = NsmKernel(make=lambda fields, pcrs: bytes(0x3000))
    with pytest.raises(DecodeError, match="NSM response"):
        enclave(kernel).evidence(bytes(64))


@pytest.mark.parametrize("answer", [{}, {"document": "text"}, {"document": None}])
def test_a_response_without_its_document(answer: object) -> None:
    kernel = NsmKernel(answer=cbor2.dumps({"Attestation": answer}))
    with pytest.raises(DecodeError, match="document is no byte string"):
        native.attestation(kernel, b"")


def test_each_image_has_a_register_that_documents_show() -> None:
    kernel = NsmKernel(make=document)
    this = enclave(kernel)
    this.extend(DIGEST)
    this.extend(b"E" * 48)
    this.extend(DIGEST)  # it was started again
    pcrs = verified(this.evidence(bytes(64))).document.pcrs
    assert {index: value for index, value in pcrs.items() if index >= 16} == {
        16: hashlib.sha384(bytes(48) + DIGEST).digest(),
        17: hashlib.sha384(bytes(48) + b"E" * 48).digest(),
    }
    assert kernel.locked >= {16, 17}


def test_a_register_that_somebody_has_used_is_passed_over() -> None:
    kernel = NsmKernel()
    kernel.pcrs[16] = b"x" * 48
    enclave(kernel).extend(DIGEST)
    assert kernel.locked == {*range(16), 17}


def test_sixteen_images_and_no_more() -> None:
    this = enclave(NsmKernel())
    for number in range(16):
        this.extend(bytes([number]) * 48)
    this.extend(bytes(48))  # the first again
    with pytest.raises(UndecidedError, match="16 images ran in this enclave") as caught:
        this.extend(DIGEST)
    assert caught.value.hint


def test_a_register_with_another_value_than_it_was_extended_to() -> None:
    kernel = NsmKernel()
    this = enclave(kernel)
    plain = kernel._serve

    def lie(asked: Any) -> Any:
        found = plain(asked)
        return {"ExtendPCR": {"data": bytes(48)}} if "ExtendPCR" in found else found

    kernel._serve = lie  # type: ignore[method-assign]
    with pytest.raises(InternalError, match="register 16 has another value"):
        this.extend(DIGEST)
    assert 16 not in kernel.locked


def test_nitro_keeps_no_secrets() -> None:
    assert native.TEE.seal_bindings == ()
    with pytest.raises(PolicyError, match="AWS Nitro Enclaves have no sealing keys"):
        enclave(NsmKernel()).seal_secret()


def test_the_enclave_hands_out_nothing() -> None:
    assert enclave(NsmKernel()).endorsements() == Endorsements(anchors=())
