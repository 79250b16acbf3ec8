"""Quotes, keys and NV memory of a real TPM in software, by commands of our own marshalling."""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broch.errors import InternalError, PolicyError, UndecidedError, UntrustedError
from broch.tee.contract import Endorsements
from broch.tee.guest import NativeSettings
from broch.tee.tpm import VERIFIER, native
from broch.tee.tpm.attest import Selection
from broch.tee.tpm.commands import OWNER, Commands, digest_of
from broch.tee.tpm.evidence import Evidence
from broch.tee.tpm.native import BOOT, TpmMachine
from broch.tee.tpm.public import ATTESTATION, Public
from broch.tee.tpm.reader import SHA256, sized

from .swtpm import PASSWORD, SoftwareTpm, extend, software_tpm

NOW = datetime.now(UTC)
NONCE = bytes(range(32))
STARTUP, SHUTDOWN = 0x144, 0x145
NV_DEFINE, NV_WRITE, CHANGE_AUTH = 0x12A, 0x137, 0x129


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    """One that the tests of this module share; those that change it make their own."""
    with software_tpm(tmp_path_factory.mktemp("tpm") / "state") as made:
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path / "state") as made:
        yield made


def enrolled(tpm: SoftwareTpm) -> Endorsements:
    return Endorsements(anchors=(), items={"ak_public": native.ak_public(tpm)})


def test_a_real_quote_is_accepted(tpm: SoftwareTpm) -> None:
    claims = VERIFIER.verify(native.quote(tpm, NONCE), enrolled(tpm), at=NOW)
    assert claims.report_data == NONCE
    assert claims.measurement == hashlib.sha256(bytes(8 * 32)).digest()
    assert {bank: set(values) for bank, values in claims.pcrs.items()} == {SHA256: set(range(8))}
    assert claims.key.attributes_checked


def test_the_key_is_an_attestation_key_and_always_the_same(tpm: SoftwareTpm) -> None:
    public = Public.from_bytes(native.ak_public(tpm))
    public.check_attestation()
    assert public.attributes & ATTESTATION == ATTESTATION
    assert native.ak_public(tpm) == public.to_bytes()


def test_nothing_is_left_in_the_tpm(tpm: SoftwareTpm) -> None:
    machine = TpmMachine(NativeSettings(name="cloud", kernel=tpm))
    for _ in range(8):  # a TPM has room for three objects and as many sessions
        machine.evidence(NONCE)
        machine.seal_secret()


def test_more_registers_than_one_answer_holds(tpm: SoftwareTpm) -> None:
    whole = Selection(bank=SHA256, width=3, indices=tuple(range(24)))
    claims = VERIFIER.verify(native.quote(tpm, NONCE, whole), enrolled(tpm), at=NOW)
    assert set(claims.pcrs[SHA256]) == set(range(24))
    assert claims.pcrs[SHA256][17] == b"\xff" * 32  # of a dynamic launch that did not happen


@pytest.mark.parametrize("bank", [0x000B, 0x000C])
def test_other_banks(tpm: SoftwareTpm, bank: int) -> None:
    selection = Selection(bank=bank, width=3, indices=(0, 7, 23))
    claims = VERIFIER.verify(native.quote(tpm, NONCE, selection), enrolled(tpm), at=NOW)
    assert set(claims.pcrs) == {bank}


def test_a_register_that_was_extended(own: SoftwareTpm) -> None:
    before = VERIFIER.verify(native.quote(own, NONCE), enrolled(own), at=NOW)
    extend(own, 7)
    after = VERIFIER.verify(native.quote(own, NONCE), enrolled(own), at=NOW)
    assert after.measurement != before.measurement
    assert after.pcrs[SHA256][7] == hashlib.sha256(bytes(32) + b"e" * 32).digest()


def test_a_quote_with_another_register_is_refused(tpm: SoftwareTpm) -> None:
    sound = Evidence.from_bytes(native.quote(tpm, NONCE))
    bent = replace(sound, pcrs={SHA256: {**sound.pcrs[SHA256], 7: b"x" * 32}})
    with pytest.raises(UntrustedError, match="registers are not those"):
        VERIFIER.verify(bent.to_bytes(), enrolled(tpm), at=NOW)


def test_another_tpm_is_another_key(tpm: SoftwareTpm, own: SoftwareTpm) -> None:
    with pytest.raises(UntrustedError, match="signature does not hold"):
        VERIFIER.verify(native.quote(own, NONCE), enrolled(tpm), at=NOW)


def test_registers_that_change_between_quote_and_reading(
    own: SoftwareTpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, left = Commands.registers, [1]

    def registers(self: Commands, selection: Selection) -> dict[int, bytes]:
        if left[0]:
            left[0] -= 1
            extend(own, 0)
        return plain(self, selection)

    monkeypatch.setattr(Commands, "registers", registers)
    claims = VERIFIER.verify(native.quote(own, NONCE), enrolled(own), at=NOW)
    assert claims.pcrs[SHA256][0] != bytes(32)
    left[0] = 99
    with pytest.raises(UndecidedError, match="registers change all the time"):
        native.quote(own, NONCE)


def secret(tpm: SoftwareTpm) -> bytes:
    return TpmMachine(NativeSettings(name="cloud", kernel=tpm)).seal_secret()


def test_the_sealing_key_is_of_this_tpm_and_this_boot(tmp_path: Path, tpm: SoftwareTpm) -> None:
    with software_tpm(tmp_path / "state") as first:
        key = secret(first)
        assert len(key) == 32
        extend(first, 16)  # not one of those that say what was booted
        assert secret(first) == key
        extend(first, 4)
        assert secret(first) != key
        with native.commands(first) as commands:
            commands.run(SHUTDOWN, parameters=b"\0\0")
    with software_tpm(tmp_path / "state") as again:
        assert secret(again) == key
    assert secret(tpm) != key


def test_the_tpm_itself_keeps_the_policy(own: SoftwareTpm) -> None:
    with native.commands(own) as commands:
        then = digest_of(commands.registers(BOOT).values())
        key, _ = commands.create_primary(native.seal_template(then))
        assert len(commands.hmac_under_policy(key, BOOT, then, b"data")) == 32
        extend(own, 4)
        now = digest_of(commands.registers(BOOT).values())
        with pytest.raises(InternalError, match="refused with 0x1c4"):  # VALUE: not so now
            commands.hmac_under_policy(key, BOOT, then, b"data")
        with pytest.raises(InternalError, match="refused with 0x99d"):  # POLICY_FAIL
            commands.hmac_under_policy(key, BOOT, now, b"data")


def test_an_owner_with_a_password(own: SoftwareTpm) -> None:
    machine = TpmMachine(NativeSettings(name="cloud", kernel=own))
    with native.commands(own) as commands:
        commands.run(CHANGE_AUTH, [OWNER], sized(b"secret"), sessions=[PASSWORD])
    with pytest.raises(UndecidedError, match="authorisation that is not empty") as caught:
        machine.evidence(NONCE)
    assert caught.value.hint
    with pytest.raises(PolicyError, match="the TPM gives no sealing key"):
        machine.seal_secret()


def write_nv(tpm: SoftwareTpm, index: int, data: bytes) -> None:
    """Define an index that its owner reads and writes, and write it."""
    attributes = 1 << 1 | 1 << 17  # OWNERWRITE, OWNERREAD
    public = struct.pack(">IHI", index, SHA256, attributes) + sized(b"")
    public += len(data).to_bytes(2, "big")
    with native.commands(tpm) as commands:
        commands.run(NV_DEFINE, [OWNER], sized(b"") + sized(public), sessions=[PASSWORD])
        for start in range(0, len(data), 512):
            part = sized(data[start : start + 512]) + start.to_bytes(2, "big")
            commands.run(NV_WRITE, [OWNER, index], part, sessions=[PASSWORD])


def hcl(runtime: bytes) -> bytes:
    """Azure's report (see broch.tee.tpm.hcl): header, hardware report, runtime data."""
    header = struct.pack("<4sIIII12s", b"HCLA", 1, 0, 2, 0, bytes(12))
    return (
        header
        + bytes(1184)
        + struct.pack("<IIIII", len(runtime) + 20, 1, 2, 1, len(runtime))
        + runtime
    )


def test_azures_report_is_read_from_nv_memory(own: SoftwareTpm) -> None:
    report = hcl(b'{"keys":[],"filler":"' + b"f" * 500 + b'"}').ljust(2048, b"\0")
    write_nv(own, native.AZURE_HCL, report)
    found = native.hcl_report(own)
    assert found.to_bytes() == report
    assert len(found.runtime_data) == 523


def test_a_tpm_that_is_not_azures(tpm: SoftwareTpm) -> None:
    with pytest.raises(UndecidedError, match="no such object"):
        native.hcl_report(tpm)
    with pytest.raises(UndecidedError, match="no such object"):
        native.ak_public(tpm, native.AZURE_AK)


def test_a_persistent_key_signs_as_azures_does(own: SoftwareTpm) -> None:
    evict = 0x120
    with native.commands(own) as commands:
        handle, public = commands.create_primary(native.AK_TEMPLATE)
        parameters = native.AZURE_AK.to_bytes(4, "big")
        commands.run(evict, [OWNER, handle], parameters, sessions=[PASSWORD])
        commands.flush(handle)
    assert native.ak_public(own, native.AZURE_AK) == public
    evidence = native.quote(own, NONCE, handle=native.AZURE_AK)
    key = Public.from_bytes(public).key.public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    given = Endorsements(anchors=(), items={"attestation_key": key})
    assert VERIFIER.verify(evidence, given, at=NOW).report_data == NONCE


def test_one_key_of_a_tpm_certifies_another(own: SoftwareTpm) -> None:
    """TPM2_Certify as a real TPM does it: one key is enrolled, another one signs the quotes."""
    certify = 0x148
    other = native.AK_TEMPLATE[:-4] + sized(b"x" * 32) + sized(b"y" * 32)  # not the same key
    with native.commands(own) as commands:
        enrolled_key, enrolled_public = commands.create_primary(native.AK_TEMPLATE)
        quoting, public = commands.create_primary(other)
        parameters = sized(NONCE) + b"\x00\x10"  # the key's own scheme
        _, answer = commands.run(
            certify, [quoting, enrolled_key], parameters, sessions=[PASSWORD, PASSWORD]
        )
        info, signature = answer.sized(2048), answer.take(len(answer.data) - answer.offset)
        attest, quoted = commands.quote(quoting, NONCE, native.BOOT)
        values = commands.registers(native.BOOT)
        commands.flush(quoting)
        commands.flush(enrolled_key)
    assert public != enrolled_public
    evidence = Evidence(attest=attest, signature=quoted, pcrs={SHA256: values}).to_bytes()
    items = {
        "ak_public": enrolled_public,
        "certified_public": public,
        "certify_info": info,
        "certify_signature": signature,
        "certify_challenge": NONCE,
    }
    claims = VERIFIER.verify(evidence, Endorsements(anchors=(), items=items), at=NOW)
    assert claims.key.certified
    assert claims.key.attributes_checked
    for wrong in ({"certify_challenge": b""}, {"certified_public": enrolled_public}):
        with pytest.raises(UntrustedError, match="the certification is"):
            VERIFIER.verify(evidence, Endorsements(anchors=(), items={**items, **wrong}), at=NOW)


def test_the_machine_hands_out_no_key(tpm: SoftwareTpm) -> None:
    machine = TpmMachine(NativeSettings(name="cloud", kernel=tpm))
    machine.extend(bytes(48))
    assert machine.endorsements() == Endorsements(anchors=())
    with pytest.raises(UndecidedError, match="expected 1"):
        VERIFIER.verify(machine.evidence(NONCE), machine.endorsements(), at=NOW)
