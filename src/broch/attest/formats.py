"""What somebody hands over as evidence: how it is written down, and of which hardware it is.

Evidence has no common head. :func:`identify` looks at what each format must begin with, and at
nothing that a verifier would have to believe; the verifier then parses it strictly. Written forms:
as it is, PEM (one block, any label), hexadecimal digits, base64 (also the URL's alphabet).
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Final

from broch.errors import DecodeError
from broch.tee import registry

MAX_INPUT: Final = 512 * 1024  # bytes, written down; the largest evidence has some 16 KiB
_PEM: Final = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]{1,64})-----\s([A-Za-z0-9+/=\s]+)-----END \1-----\s*"
)
_HEX: Final = re.compile(rb"(?:0[xX])?((?:[0-9a-fA-F]{2})+)")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
_SPACE: Final = re.compile(rb"\s+")
_SNP_SIZE: Final = 1184
_SANCUS: Final = b"SNC1"
_KEYSTONE_SIZE: Final = 1352
_KEYSTONE_EXTRA: Final = 328  # a compressed report has this and its data
_TDREPORT_SIZE: Final = 1024
_SGX, _TDX = 0x00, 0x81
_QUOTE_HEADER: Final = 48
_W: Final = "evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Evidence as its verifier wants it, and what came along in the same file."""

    tee: str  # name of its verifier
    data: bytes = field(repr=False)
    items: dict[str, bytes] = field(default_factory=dict, repr=False)  # endorsements: not believed
    wrapped: str = ""  # what it was inside: "configfs-tsm"
    hcl: bytes | None = field(default=None, repr=False)  # Azure: what binds a vTPM's key to it
    quote: bytes | None = field(default=None, repr=False)  # Azure: the vTPM's quote

    def digest(self) -> str:
        """SHA-256 in hex; of Azure's three parts, one after the other."""
        parts = (self.data, self.hcl or b"", self.quote or b"")
        return hashlib.sha256(b"".join(parts)).hexdigest()


def unwrap(data: bytes) -> tuple[bytes, str]:
    """The bytes that were written down, and how: "binary", "PEM", "hex" or "base64".

    Raises:
        DecodeError: empty, too long, or PEM that is not exactly one block.
    """
    if not data:
        raise DecodeError(0, "is empty", what=_W)
    if len(data) > MAX_INPUT:
        raise DecodeError(MAX_INPUT, f"longer than {MAX_INPUT} bytes", what=_W)
    if data.lstrip().startswith(b"-----BEGIN"):
        match = _PEM.fullmatch(data.strip())
        if match is None:
            raise DecodeError(0, "not exactly one PEM block", what=_W)
        return _from_base64(_SPACE.sub(b"", match[2])), "PEM"
    text = _SPACE.sub(b"", data)
    if match := _HEX.fullmatch(text):
        return bytes.fromhex(match[1].decode("ascii")), "hex"
    if len(text) >= 32 and _BASE64.fullmatch(text):
        return _from_base64(text), "base64"
    return data, "binary"


def _from_base64(text: bytes) -> bytes:
    text = text.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as exc:
        raise DecodeError(0, f"not base64: {exc}", what=_W) from None


def read(data: bytes) -> Evidence:
    """Evidence in any written form and wrapping.

    Raises:
        DecodeError: not evidence of hardware that is known here.
    """
    inner, _ = unwrap(data)
    return open_wrapping(inner)


def open_wrapping(data: bytes) -> Evidence:
    """Evidence out of the container of configfs-tsm, Azure or CMW, or as it is.

    Raises:
        DecodeError: not evidence, or a container that is not right.
    """
    if data[:1] in _CMW_STARTS or data.startswith(_CMW_TAGS):
        return _from_cmw(data)
    if data[:1] == b"{" and not data.startswith(b'{"device_pubkey"'):
        return _from_json(data)
    wrapped = _map(data)
    if wrapped is not None and {"outblob", "provider"} <= wrapped.keys():
        return _from_tsm(wrapped)
    return Evidence(tee=identify(data), data=data)


def identify(data: bytes) -> str:
    """The hardware that ``data`` seems to be evidence of.

    Raises:
        DecodeError: none that is known here.
    """
    found = _quote(data) or _binary(data) or _cbor(data)
    if len(data) == _TDREPORT_SIZE and data[0] == _TDX:
        problem = "a TDREPORT, which only the processor that made it can check: ask for a quote"
        raise DecodeError(0, problem, what=_W)
    if data.startswith(b"HCLA"):
        raise DecodeError(0, "an HCL report without the vTPM's quote: give the bundle", what=_W)
    if found is None:
        raise DecodeError(
            0,
            "not evidence of a known kind: neither an SGX or TDX quote, an SNP report, a Nitro "
            "document, a PSA or CCA token, a TPM quote, nor a Keystone, OP-TEE or Sancus statement",
            what=_W,
        )
    if found not in registry.verifier_names():
        raise DecodeError(0, f"evidence of {found}, which has no verifier here", what=_W)
    return found


def _quote(data: bytes) -> str | None:
    """SGX and TDX: version and attestation key type, then the TEE type (4 and 5)."""
    version = int.from_bytes(data[:2], "little")
    if len(data) < _QUOTE_HEADER or data[2:4] != b"\2\0":
        return None
    if version == 3:
        return "sgx"
    if version in (4, 5):
        kind = int.from_bytes(data[4:8], "little")
        return {_SGX: "sgx", _TDX: "tdx"}.get(kind)
    return None


def _binary(data: bytes) -> str | None:
    if len(data) == _SNP_SIZE and data[0] in (2, 3, 5) and not any(data[1:4]):
        return "snp"
    if data.startswith(_SANCUS):
        return "sancus"
    if data.startswith(b'{"device_pubkey"') or len(data) == _KEYSTONE_SIZE:
        return "keystone"
    size = int.from_bytes(data[64:72], "little")
    if size <= 1024 and len(data) == _KEYSTONE_EXTRA + size:
        return "keystone"
    return None


_TAGS: Final = {0xD1: "psa", 0xD2: "psa"}  # 17 COSE_Mac0, 18 COSE_Sign1
_CCA: Final = bytes.fromhex("d9018f")  # 399
_FIELDS: Final = {
    "attest": "tpm",
    "broch-optee-attestation": "trustzone",
}


def _cbor(data: bytes) -> str | None:
    if data.startswith(_CCA):
        return "cca"
    if data[:1] == b"\x84":  # an array of four: an untagged COSE_Sign1
        return "nitro"
    if data and data[0] in _TAGS:
        return _TAGS[data[0]]
    fields = _map(data)
    if fields is None:
        return None
    return next((tee for name, tee in _FIELDS.items() if name in fields), None)


def _map(data: bytes) -> dict[Any, Any] | None:
    """A CBOR map, if it is one."""
    if not data or data[0] >> 5 != 5:
        return None
    from broch.wire import cbor

    try:
        found = cbor.decode(data, what=_W)
    except DecodeError:
        return None
    return found if isinstance(found, dict) else None


def _from_json(data: bytes) -> Evidence:
    """Bundles: Azure's, and that of SNP guests, with the report and its key's certificate."""
    from broch.wire import strict_json

    document = strict_json.document(data, "bundle")
    if document.get("platform") != "snp":
        from broch.attest.azure import from_document

        return from_document(document)
    inner = strict_json.mapping(document, "evidence", "bundle")
    report = _from_base64(strict_json.text(inner, "attestation_report", "bundle").encode())
    certs = inner.get("cert_chain", {})
    if not isinstance(certs, dict) or not inner.keys() <= {"attestation_report", "cert_chain"}:
        raise DecodeError(0, "unknown members, or cert_chain is no object", what="bundle")
    if not certs.keys() <= _SNP_CERTS.keys():
        raise DecodeError(0, f"certificates other than {', '.join(_SNP_CERTS)}", what="bundle")
    items = {
        _SNP_CERTS[name]: _from_base64(strict_json.text(certs, name, "bundle").encode())
        for name in certs
    }
    if identify(report) != "snp":
        raise DecodeError(0, "attestation_report is no SNP report", what="bundle")
    return Evidence(tee="snp", data=report, items=items, wrapped="JSON")


_SNP_CERTS: Final = {"vcek": "vek", "ask": "ask"}
# An array of two or three, in JSON or CBOR, or a tag for a CoAP content format.
_CMW_STARTS: Final = (b"[", b"\x82", b"\x83")
_CMW_TAGS: Final = b"\xdact"


def _from_cmw(data: bytes) -> Evidence:
    """A conceptual message wrapper with one message; the bytes say what it is, not the type."""
    from broch.wire import cmw

    wrapper = cmw.decode(data)
    if not isinstance(wrapper, cmw.Record):
        raise DecodeError(0, "a collection, expected one message", what="CMW")
    if wrapper.indicator is not None and cmw.Indicator.EVIDENCE not in wrapper.indicator:
        raise DecodeError(0, "the message is not evidence, by its own word", what="CMW")
    inner = wrapper.value
    return Evidence(tee=identify(inner), data=inner, wrapped=f"CMW {wrapper.type}")


def _from_tsm(fields: dict[Any, Any]) -> Evidence:
    """What configfs-tsm gives: outblob, the provider, and for SNP the host's certificates."""
    from broch.tee.tsm import PROVIDERS

    what = "configfs-tsm bundle"
    if not fields.keys() <= {"outblob", "provider", "auxblob", "manifestblob"}:
        raise DecodeError(0, "unknown members", what=what)
    provider, report = fields["provider"], fields["outblob"]
    if not isinstance(provider, str) or provider.strip() not in PROVIDERS:
        raise DecodeError(0, f"provider {provider!r:.40} is not known", what=what)
    if not isinstance(report, bytes):
        raise DecodeError(0, "outblob is no byte string", what=what)
    tee = PROVIDERS[provider.strip()]
    items: dict[str, bytes] = {}
    extra = fields.get("auxblob")
    if tee == "snp" and extra:
        if not isinstance(extra, bytes):
            raise DecodeError(0, "auxblob is no byte string", what=what)
        from broch.tee.snp import cert_table

        items = cert_table.items(extra)
    return Evidence(tee=tee, data=report, items=items, wrapped="configfs-tsm")
