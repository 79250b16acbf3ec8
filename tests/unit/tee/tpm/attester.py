"""A TPM, simulated: a key, registers, quotes and certifications that can be bent."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.pki import Cert, Tree, ec_key, rsa_key, usage

from broch.tee.tpm.attest import CERTIFY, QUOTE, Attest, Selection
from broch.tee.tpm.evidence import Evidence
from broch.tee.tpm.public import ATTESTATION
from broch.tee.tpm.reader import sized
from broch.tee.tpm.signature import ECDSA, RSAPSS, RSASSA, Signature
from broch.tee.tpm.trust import AIK_USAGE

SHA1, SHA256, SHA384 = 0x0004, 0x000B, 0x000C
NONCE: Final = bytes(range(32))
PCRS: Final[dict[int, dict[int, bytes]]] = {
    SHA256: {index: bytes((index + 1,)) * 32 for index in (0, 1, 2, 7, 14)}
}
AK_EC: Final = ec_key("ak", ec.SECP256R1)
AK_RSA: Final = rsa_key("ak")
AK_SERIAL: Final = 77
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def spki(key: Key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def public(
    key: Key,
    attributes: int = ATTESTATION,
    name_alg: int = SHA256,
    symmetric: bytes = b"\x00\x10",
    policy: bytes = b"",
) -> bytes:
    """TPMT_PUBLIC."""
    kind = 0x23 if isinstance(key, ec.EllipticCurvePrivateKey) else 1
    head = kind.to_bytes(2, "big") + name_alg.to_bytes(2, "big") + attributes.to_bytes(4, "big")
    head += sized(policy) + symmetric
    if isinstance(key, ec.EllipticCurvePrivateKey):
        numbers = key.public_key().public_numbers()
        point = sized(numbers.x.to_bytes(32, "big")) + sized(numbers.y.to_bytes(32, "big"))
        return head + b"\x00\x18\x00\x0b" + b"\x00\x03" + b"\x00\x10" + point
    modulus = key.public_key().public_numbers().n
    return head + b"\x00\x14\x00\x0b\x08\x00" + bytes(4) + sized(modulus.to_bytes(256, "big"))


def sign(key: Key, data: bytes, scheme: int | None = None, alg: int = SHA256) -> bytes:
    """TPMT_SIGNATURE."""
    digest: Any = {SHA256: hashes.SHA256(), SHA384: hashes.SHA384()}[alg]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        parts = tuple(
            number.to_bytes(32, "big")
            for number in decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
        )
        return Signature(scheme=ECDSA, hash=alg, parts=parts).to_bytes()
    used = scheme or RSASSA
    pad: Any = padding.PKCS1v15()
    if used == RSAPSS:
        pad = padding.PSS(padding.MGF1(digest), digest.digest_size)
    made = key.sign(data, pad, digest)
    return Signature(scheme=used, hash=alg, parts=(made,)).to_bytes()


def digest(values: list[bytes], alg: str = "sha256") -> bytes:
    return hashlib.new(alg, b"".join(values)).digest()


QUOTED: Final = Attest(
    type=QUOTE,
    qualified_signer=b"\x00\x0b" + b"Q" * 32,
    extra_data=NONCE,
    clock=861327613,
    reset_count=3,
    restart_count=1,
    safe=True,
    firmware_version=0x2020031200120003,
    selections=(Selection(bank=SHA256, width=3, indices=tuple(PCRS[SHA256])),),
    pcr_digest=digest(list(PCRS[SHA256].values())),
)


def certified(name: bytes, **changes: Any) -> Attest:
    """What TPM2_Certify signs about the key of this name."""
    plain: dict[str, Any] = {"selections": (), "pcr_digest": b"", "qualified_name": b"q"}
    return replace(QUOTED, **{"type": CERTIFY, "name": name, **plain, **changes})


@dataclass(kw_only=True)
class Attester:
    """A TPM; change something, then ask for evidence."""

    key: Key = AK_EC
    scheme: int | None = None
    alg: int = SHA256
    attest: Attest = QUOTED
    pcrs: dict[int, dict[int, bytes]] = field(default_factory=lambda: dict(PCRS))
    event_log: bytes | None = None

    def evidence(self) -> bytes:
        data = self.attest.to_bytes()
        return Evidence(
            attest=data,
            signature=sign(self.key, data, self.scheme, self.alg),
            pcrs=self.pcrs,
            event_log=self.event_log,
        ).to_bytes()


def tree() -> Tree:
    """A maker's: root, intermediate, and the certificate of an attestation key."""
    return Tree(
        certs={
            "root": Cert(
                common="Broch Emulated TPM Root",
                key=ec_key("tpm root"),
                ca=True,
                key_usage=usage(ca=True),
            ),
            "issuer": Cert(
                common="TPM Issuer",
                key=rsa_key("tpm issuer"),
                issuer="root",
                ca=True,
                path_length=0,
                key_usage=usage(ca=True),
                serial=2,
            ),
            "ak": Cert(
                common="AK",
                key=AK_EC,
                issuer="issuer",
                key_usage=usage(ca=False),
                extended=(AIK_USAGE,),
                serial=AK_SERIAL,
            ),
            "stranger": Cert(common="Stranger", key=ec_key("stranger")),
        }
    )


def certificate_items(made: Tree, **crl: Any) -> dict[str, bytes]:
    return {
        "ak_certificate": made.der("ak"),
        "ak_issuer": made.der("issuer"),
        "crl": made.crl("issuer", **crl),
    }


def certify_items(
    signer: Key, subject: Key, attributes: int = ATTESTATION, qualifying: bytes = b""
) -> dict[str, bytes]:
    """What TPM2_Certify gives: ``signer`` vouches for ``subject`` of the same TPM."""
    described = public(subject, attributes)
    name = SHA256.to_bytes(2, "big") + hashlib.sha256(described).digest()
    info = certified(name, extra_data=qualifying).to_bytes()
    return {
        "certified_public": described,
        "certify_info": info,
        "certify_signature": sign(signer, info),
    }
