"""Evidence taken apart for people, by the parsers that verifiers use. Nothing is verified.

Each parser is strict, so what is shown is well formed; whether any of it is true, only a
verification says.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from broch.attest.formats import Evidence
from broch.attest.view import plain
from broch.errors import DecodeError

Plain = dict[str, Any]


def taken_apart(evidence: Evidence) -> Plain:
    """Everything in the evidence, as plain data.

    Raises:
        DecodeError: it is not well formed.
    """
    parse = _PARSERS.get(evidence.tee)
    found: Plain = parse(evidence.data) if parse is not None else {"data": evidence.data.hex()}
    if evidence.hcl is not None and evidence.quote is not None:
        from broch.tee.tpm.hcl import HclReport

        hcl = HclReport.from_bytes(evidence.hcl)
        found = {
            "hardware": found,
            "runtime_data": hcl.runtime_data.decode("utf-8", "backslashreplace"),
            "tpm": _tpm(evidence.quote),
        }
    return found


def result_in(data: bytes) -> Plain | None:
    """An attestation result (JWT or CWT) taken apart; None if it is none.

    Raises:
        DecodeError: a JWT that is no result.
    """
    from broch.wire import cbor, cose, jws, strict_json

    text = data.strip()
    if text.startswith(b"eyJ") and text.count(b".") == 2:
        header, payload = jws.peek(text.decode("ascii", "replace"))
        return {
            "kind": "JWT",
            "header": plain(header),
            "claims": strict_json.document(payload, "JWT"),
        }
    if data[:1] == b"\xd2":
        try:
            message = cose.Message.from_bytes(
                data, tag=cose.SIGN1_TAG, tagging=cose.Tagging.TAGGED, what="CWT"
            )
            claims = cbor.decode(message.payload, what="CWT")
        except DecodeError:
            return None
        if isinstance(claims, dict) and 266 in claims and 1004 in claims:
            return {"kind": "CWT", "header": plain(message.header), "claims": plain(claims)}
    return None


def _sgx(data: bytes) -> Plain:
    from broch.tee.dcap.report import ReportBody
    from broch.tee.sgx.verify import parse

    quote = parse(data)
    return {**_quote(quote), "report": plain(ReportBody.from_bytes(quote.body))}


def _tdx(data: bytes) -> Plain:
    from broch.tee.tdx.verify import parse

    quote, report = parse(data)
    return {
        **_quote(quote),
        "report": {**plain(report), "td_attribute_names": report.attribute_names()},
    }


def _quote(quote: Any) -> Plain:
    from broch.tee.dcap.report import ReportBody

    certification = quote.certification
    found: Plain = {
        "header": plain(quote.header),
        "qe_report": plain(ReportBody.from_bytes(certification.qe_report)),
        "certification_type": certification.cert_type,
    }
    if certification.cert_type == 5:
        from broch.tee.dcap import pckext
        from broch.tee.dcap.certs import read_chain

        chain = read_chain(certification.cert_data, "PCK certificate chain")
        found["certificates"] = [_certificate(cert) for cert in chain]
        extension = chain[0].extensions.get(pckext.OID)
        if extension is not None:
            found["pck"] = plain(pckext.PckExtension.from_bytes(extension))
    return found


def _certificate(cert: Any) -> Plain:
    return {
        "name": cert.name,
        "valid_from": cert.window.begin.isoformat(),
        "valid_until": cert.window.end.isoformat(),
    }


def _snp(data: bytes) -> Plain:
    from broch.tee.snp.report import PLATFORM_BITS, POLICY_BITS, Report

    report = Report.from_bytes(data)
    return {
        "report": {
            **plain(report),
            "signing_key": report.signing_key.name,
            "policy_bits": _set(POLICY_BITS, report.policy),
            "platform_bits": _set(PLATFORM_BITS, report.platform_info),
        }
    }


def _set(names: Mapping[str, int], value: int) -> list[str]:
    """Names of the bits that are set."""
    return [name for name, bit in names.items() if value & bit]


def _nitro(data: bytes) -> Plain:
    from broch.tee.nitro.document import Document
    from broch.wire.x509 import read_certificate

    document = Document.from_bytes(data)
    made = datetime.fromtimestamp(document.timestamp / 1000, UTC)
    leaf = read_certificate(document.certificate, "certificate")
    return {
        "module_id": document.module_id,
        "timestamp": made.isoformat(),
        "pcrs": plain(document.pcrs),
        "nonce": plain(document.nonce),
        "user_data": plain(document.user_data),
        "public_key": plain(document.public_key),
        "certificates": [
            _certificate(leaf),
            *(_certificate(read_certificate(der, "cabundle")) for der in document.cabundle[::-1]),
        ],
    }


def _psa(data: bytes) -> Plain:
    from broch.tee.psa.token import Token
    from broch.wire.cose import MAC0_TAG, SIGN1_TAG, Message, Tagging

    is_mac = data[:1] == b"\xd1"
    tag = MAC0_TAG if is_mac else SIGN1_TAG
    message = Message.from_bytes(data, tag=tag, tagging=Tagging.TAGGED, what="PSA token")
    return {
        "authentication": "MAC" if is_mac else "signature",
        "header": plain(message.header),
        "token": plain(Token.from_bytes(message.payload)),
    }


def _cca(data: bytes) -> Plain:
    from broch.tee.cca.token import Collection, Platform, Realm

    collection = Collection.from_bytes(data)
    return {
        "platform": plain(Platform.from_bytes(collection.platform.payload)),
        "realm": plain(Realm.from_bytes(collection.realm.payload)),
    }


def _tpm(data: bytes) -> Plain:
    from broch.tee.tpm.attest import Attest
    from broch.tee.tpm.evidence import Evidence as Quote
    from broch.tee.tpm.reader import BANKS
    from broch.tee.tpm.signature import Signature

    quote = Quote.from_bytes(data)
    signature = Signature.from_bytes(quote.signature)
    return {
        "attest": plain(Attest.from_bytes(quote.attest)),
        "signature": {"scheme": f"0x{signature.scheme:04x}", "hash": f"0x{signature.hash:04x}"},
        "pcrs": {BANKS[bank]: plain(values) for bank, values in quote.pcrs.items()},
        **({} if quote.event_log is None else {"event_log": _log(quote.event_log)}),
    }


def _log(data: bytes) -> list[Plain]:
    from broch.tee.tpm.event_log import EventLog
    from broch.tee.tpm.reader import BANKS

    return [
        {
            "pcr": event.pcr,
            "type": f"0x{event.type:08x}",
            **{
                BANKS.get(bank, f"0x{bank:04x}"): made.hex() for bank, made in event.digests.items()
            },
            "data": event.data.hex(),
        }
        for event in EventLog.from_bytes(data).events
    ]


def _keystone(data: bytes) -> Plain:
    from broch.tee.keystone.report import Report

    return {"report": plain(Report.decode(data))}


def _trustzone(data: bytes) -> Plain:
    from broch.tee.trustzone.attestation import Envelope

    return {"statement": plain(Envelope.from_bytes(data))}


def _sancus(data: bytes) -> Plain:
    from broch.tee.sancus.evidence import Evidence as Answer

    answer = Answer.from_bytes(data)
    return {**plain(answer), "text": answer.text.hex()}


_PARSERS: Final[Mapping[str, Callable[[bytes], Plain]]] = {
    "sgx": _sgx,
    "tdx": _tdx,
    "snp": _snp,
    "nitro": _nitro,
    "psa": _psa,
    "cca": _cca,
    "tpm": _tpm,
    "keystone": _keystone,
    "trustzone": _trustzone,
    "sancus": _sancus,
}
