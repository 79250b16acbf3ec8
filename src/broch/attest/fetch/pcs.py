"""Intel's Provisioning Certification Service (PCS), API v4, and caches of it (PCCS).

    GET BASE/sgx/certification/v4/pckcrl?ca=CA&encoding=der    SGX-PCK-CRL-Issuer-Chain
    GET BASE/TEE/certification/v4/tcb?fmspc=FMSPC              TCB-Info-Issuer-Chain
    GET BASE/TEE/certification/v4/qe/identity                  SGX-Enclave-Identity-Issuer-Chain
    GET BASE/sgx/certification/v4/rootcacrl                    PCCS only; PCS: a file elsewhere

Issuer chains are PEM, percent-encoded, in the named header: signer first, root last. Lists are DER
or, from a PCCS, hexadecimal digits of that. TCB info and identities are JSON in which one member is
signed: exactly its bytes are kept, and never written anew.

Source: Intel, "Provisioning Certification Service for ECDSA Attestation", API v4; Intel PCCS design
guide, section 3.
"""

import json
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote_to_bytes, urlsplit

from broch.attest.endorsements.subject import CHAIN, Kind, Subject
from broch.attest.fetch.http import Http, Response
from broch.errors import DecodeError, UsageError

INTEL_PCS: Final = "https://api.trustedservices.intel.com"
_INTEL_ROOT_CRL: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
MAX_CRL: Final = 1024 * 1024  # bytes
MAX_DOCUMENT: Final = 1024 * 1024
_HEX: Final = re.compile(rb"(?:[0-9A-Fa-f]{2})+\s*")
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_PEM_END: Final = b"-----END CERTIFICATE-----"


class IntelPcs:
    """Intel's service, or a PCCS.

    Args:
        http: the client.
        base: URL without the path of the API.
    """

    kinds: tuple[Kind, ...] = (Kind.DCAP_ROOT, Kind.DCAP_PCK, Kind.DCAP_TCB, Kind.DCAP_QE)

    def __init__(self, http: Http, base: str = INTEL_PCS) -> None:
        self._http = http
        self._base = base.rstrip("/")
        self._root = b""  # PEM of the root, once a chain has brought it along

    def get(self, subject: Subject) -> tuple[str, dict[str, bytes]]:
        """Where a subject's items came from, and the items. They have not been checked.

        Raises:
            DecodeError: not what the API promises.
            UndecidedError: no answer, or the service does not have it.
        """
        kind, arguments = subject.match()
        if kind is Kind.DCAP_ROOT:
            return self._root_crl()
        if kind is Kind.DCAP_PCK:
            return self._pck_crl(arguments[0])
        if kind is Kind.DCAP_TCB:
            tee, fmspc = arguments
            path = f"{tee}/certification/v4/tcb?fmspc={quote(fmspc.upper())}"
            return self._document(path, "tcbInfo", "tcb_info", "TCB-Info-Issuer-Chain")
        if kind is Kind.DCAP_QE:
            path = f"{arguments[0]}/certification/v4/qe/identity"
            header = "SGX-Enclave-Identity-Issuer-Chain"
            return self._document(path, "enclaveIdentity", "qe_identity", header)
        raise UsageError(f"Intel does not publish {subject}")

    def early_tcb_info(self, subject: Subject) -> tuple[bytes, dict[str, bytes]]:
        """The TCB info that will be the standard one some weeks later (``update=early``).

        Args:
            subject: ``dcap.tcb.TEE.FMSPC``.

        Returns:
            The service's whole reply, and its items as :meth:`get` gives them; not checked.

        Raises:
            DecodeError: not what the API promises.
            UndecidedError: no answer, or the service does not have it.
        """
        kind, arguments = subject.match()
        if kind is not Kind.DCAP_TCB:
            raise UsageError(f"{subject} has no early version")
        tee, fmspc = arguments
        url = f"{self._base}/{tee}/certification/v4/tcb?fmspc={quote(fmspc.upper())}&update=early"
        return self._read(url, "tcbInfo", "tcb_info", "TCB-Info-Issuer-Chain")

    def _root_crl(self) -> tuple[str, dict[str, bytes]]:
        is_intel = urlsplit(self._base).hostname == urlsplit(INTEL_PCS).hostname
        url = _INTEL_ROOT_CRL if is_intel else f"{self._base}/sgx/certification/v4/rootcacrl"
        response = self._http.get(url, max_body=2 * MAX_CRL)
        if not self._root:
            self._pck_crl("platform")  # whose chain brings the root along
        return url, {"root_ca_crl": crl(response), f"root_ca_crl{CHAIN}": self._root}

    def _pck_crl(self, ca: str) -> tuple[str, dict[str, bytes]]:
        url = f"{self._base}/sgx/certification/v4/pckcrl?ca={ca}&encoding=der"
        response = self._http.get(url, max_body=2 * MAX_CRL)
        chain = self._chain(response, "SGX-PCK-CRL-Issuer-Chain")
        return url, {"pck_crl": crl(response), f"pck_crl{CHAIN}": chain}

    def _document(
        self, path: str, member: str, name: str, header: str
    ) -> tuple[str, dict[str, bytes]]:
        url = f"{self._base}/{path}"
        return url, self._read(url, member, name, header)[1]

    def _read(
        self, url: str, member: str, name: str, header: str
    ) -> tuple[bytes, dict[str, bytes]]:
        response = self._http.get(url, max_body=MAX_DOCUMENT)
        document, signature = signed_member(response.body, member, url)
        return response.body, {
            name: document,
            f"{name}_signature": signature,
            f"{name}{CHAIN}": self._chain(response, header),
        }

    def _chain(self, response: Response, header: str) -> bytes:
        value = response.header(header)
        if not value.isascii():
            raise DecodeError(0, f"header {header} is not ASCII", what=response.url)
        chain = unquote_to_bytes(value)
        blocks = chain.split(_PEM_END)
        if len(blocks) > 1:
            self._root = blocks[-2].strip() + _PEM_END + b"\n"
        return chain


def crl(response: Response) -> bytes:
    """A revocation list as DER, from DER or hexadecimal digits.

    Raises:
        DecodeError: neither.
    """
    body = response.body
    if body[:1] == b"\x30":  # SEQUENCE; in hexadecimal digits it begins with "3"
        return body
    if _HEX.fullmatch(body):
        return bytes.fromhex(body.decode("ascii"))
    raise DecodeError(0, "a revocation list that is neither DER nor hex", what=response.url)


def signed_member(body: bytes, member: str, what: str) -> tuple[bytes, bytes]:
    """The bytes of ``member`` as they are in the document, and the signature over them.

    The document is ``{"MEMBER": {...}, "signature": "HEX"}``, in either order, and nothing else.

    Raises:
        DecodeError: it is not.
    """
    try:
        text = body.decode("utf-8")
        found = _members(text)
        if found.keys() != {member, "signature"} or found[member][:1] != "{":
            raise ValueError(f"members {sorted(found)}, expected {member} and signature")
        signature = json.loads(found["signature"])
        if not isinstance(signature, str) or len(signature) != 128:
            raise ValueError("the signature is not 64 bytes in hex")
        return found[member].encode("utf-8"), bytes.fromhex(signature)
    except (ValueError, RecursionError) as exc:
        raise DecodeError(0, str(exc), what=what) from None


def _members(text: str) -> Mapping[str, str]:
    """Names and *source text* of the members of a JSON object."""
    decoder = json.JSONDecoder()
    found: dict[str, str] = {}
    at = _skip(text, 0, "{")
    while True:
        name, at = decoder.raw_decode(text, _skip(text, at, ""))
        start = _skip(text, at, ":")
        _, at = decoder.raw_decode(text, start)
        if not isinstance(name, str) or name in found:
            raise ValueError("a member without a name, or twice")
        found[name] = text[start:at]
        at = _skip(text, at, "")
        if text[at : at + 1] == "}":
            break
        at = _skip(text, at, ",")
    if _skip(text, at, "}") != len(text):
        raise ValueError("something follows the object")
    return found


def _skip(text: str, at: int, wanted: str) -> int:
    """Past white space, ``wanted``, and white space."""
    at = _skip_space(text, at)
    if not text.startswith(wanted, at):
        raise ValueError(f"{wanted!r} expected at character {at}")
    return _skip_space(text, at + len(wanted))


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
