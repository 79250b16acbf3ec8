"""The firmware's event log: read strictly, and believed as far as it leads to the registers."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels import NoKernel
from tests.pki import NOW

from broch.attest.appraise import check
from broch.attest.checks import Outcome
from broch.attest.policy import Policy
from broch.attest.reference import TpmReference
from broch.attest.view import claims_view
from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee.contract import Endorsements
from broch.tee.tpm.event_log import MAX_LOG, EventLog, explained, secure_boot
from broch.tee.tpm.evidence import Evidence
from broch.tee.tpm.native import EVENT_LOG, with_event_log
from broch.tee.tpm.verify import TpmClaims
from broch.tee.tpm.verify import verify as verify_evidence

from .attester import AK_EC, NONCE, Attester, public
from .booted import IPL, NO_ACTION, SHA1, SHA256, SHA384, VARIABLE, Machine, header, variable

ENROLLED = Endorsements(anchors=(), items={"ak_public": public(AK_EC)})


def verify(attester: Attester) -> TpmClaims:
    return verify_evidence(attester.evidence(), ENROLLED, at=NOW)


def with_log(attester: Attester, log: bytes | None) -> Attester:
    attester.event_log = log
    return attester


def outcomes(claims: TpmClaims, **reference: Any) -> dict[str, Outcome]:
    accepted = TpmReference(allow_any_measurement=True, **reference)
    policy = Policy(name="p", references={"tpm": accepted})
    return {item.rule: item.outcome for item in check(claims, policy, at=NOW, nonce=NONCE)}


def test_a_log_that_leads_to_the_registers() -> None:
    found = verify(Machine().boot().attester())
    assert found.explained == frozenset(range(9))
    assert not found.skipped
    assert [event.pcr for event in found.events][:4] == [0, 0, 7, 7]
    assert found.details["secure_boot"] == "on"
    events = claims_view(found)["tpm"]["events"]
    assert events[0]["data"] == "1.2".encode("utf-16-le").hex()
    assert set(events[0]["digests"]) == {"sha256"}


def test_without_a_log_the_step_is_not_made() -> None:
    found = verify(with_log(Machine().boot().attester(), None))
    assert "event_log" in found.skipped
    assert (found.events, found.explained) == ((), frozenset())
    assert found.details["secure_boot"] == "not shown"


@pytest.mark.parametrize("pcr", range(8))
def test_an_event_too_many_or_too_few_of_the_firmwares(pcr: int) -> None:
    machine = Machine().boot()
    before = machine.attester()
    log = machine.log()
    after = machine.event(pcr, IPL, b"one more").attester()
    for bent in (with_log(before, machine.log()), with_log(after, log)):
        with pytest.raises(UntrustedError, match=f"does not lead to the registers sha256:{pcr}$"):
            verify(bent)


def test_events_in_another_order() -> None:
    machine = Machine().boot()
    events = [machine.events[1], machine.events[0], *machine.events[2:]]
    with pytest.raises(UntrustedError, match="sha256:0"):
        verify(with_log(machine.attester(), header(machine.banks) + b"".join(events)))


def test_an_empty_log_explains_no_register_that_was_extended() -> None:
    with pytest.raises(UntrustedError, match=r"sha256:0, sha256:1, .* sha256:7"):
        verify(with_log(Machine().boot().attester(), header((SHA256,))))


def test_what_the_system_measured_later_drops_the_events_of_that_register_only() -> None:
    machine = Machine().boot()
    log = machine.log()
    machine.event(8, IPL, b"by the system, which keeps its own log")
    found = verify(with_log(machine.attester(), log))
    assert found.explained == frozenset(range(8))
    assert all(event.pcr < 8 for event in found.events)


def test_data_that_are_not_what_was_hashed_are_dropped() -> None:
    """Beside a digest anybody can write anything."""
    found = verify(Machine().boot().attester())
    of_pcr4 = {event.data for event in found.events if event.pcr == 4}
    assert of_pcr4 == {bytes(4), b""}, "the path of the boot manager was not measured"
    lie = Machine().event(7, VARIABLE, variable("SecureBoot", b"\1"), hashed=b"SecureBoot is off")
    assert verify(lie.attester()).details["secure_boot"] == "not shown"


def test_sha1_proves_no_data() -> None:
    found = verify(Machine().boot().attester(bank=SHA1))
    assert found.explained
    assert {event.data for event in found.events} == {b""}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"\1", True), (b"\0", False), (b"", False), (b"\2", None), (b"\1\1", None)],
)
def test_secure_boot(value: bytes, expected: bool | None) -> None:
    assert secure_boot(verify(Machine().boot(value).attester()).events) is expected


def test_secure_boot_that_is_on_and_off() -> None:
    machine = Machine().boot(b"\1").event(7, VARIABLE, variable("SecureBoot", b"\0"))
    assert secure_boot(verify(machine.attester()).events) is None


def test_secure_boot_of_another_vendors_variable_or_register() -> None:
    other = Machine().event(7, VARIABLE, variable("SecureBoot", b"\1", guid=b"?" * 16))
    assert secure_boot(verify(other.attester()).events) is None
    elsewhere = Machine().event(8, VARIABLE, variable("SecureBoot", b"\1"))
    assert secure_boot(verify(elsewhere.attester()).events) is None


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_where_register_0_begins(locality: int) -> None:
    machine = Machine()
    for registers in machine.registers.values():
        registers[0] = bytes((locality,)).rjust(len(registers[0]), b"\0")
    machine.event(0, NO_ACTION, b"StartupLocality\0" + bytes((locality,))).boot()
    assert 0 in verify(machine.attester()).explained


def test_register_0_begins_nowhere_else() -> None:
    """Otherwise a log of one line would explain any value."""
    machine = Machine().boot()
    value = machine.registers[SHA256][0]
    for start in (value, value[-1:], b"\5"):
        lie = Machine().event(0, NO_ACTION, b"StartupLocality\0" + start)
        with pytest.raises(UntrustedError, match="sha256:0"):
            verify(with_log(machine.attester(indices=(0,)), lie.log()))


def test_a_bank_that_the_log_does_not_have() -> None:
    with pytest.raises(UntrustedError, match="no digests of sha256"):
        verify(with_log(Machine().boot().attester(), Machine(banks=(SHA384,)).boot().log()))


def test_every_quoted_bank_counts() -> None:
    machine = Machine(banks=(SHA256, SHA384)).boot()
    log = EventLog.from_bytes(machine.log())
    both = {bank: {0: machine.registers[bank][0]} for bank in machine.banks}
    assert explained(log, both)[1] == {0}
    both[SHA384][0] = bytes(48)
    with pytest.raises(UntrustedError, match="sha384:0"):
        explained(log, both)


def test_policies() -> None:
    passed, failed = Outcome.PASSED, Outcome.FAILED
    wanted = {"require_event_log": True, "require_secure_boot": True}
    silent = with_log(Machine().boot().attester(), None)
    for made, log, secure in (
        (Machine().boot().attester(), passed, passed),
        (Machine().boot(b"\0").attester(), passed, failed),
        (Machine().boot().attester(indices=(0, 7)), failed, passed),
        (silent, failed, failed),
    ):
        found = outcomes(verify(made), **wanted)
        assert (found["firmware_log"], found["secure_boot"]) == (log, secure)
    lax = outcomes(verify(silent))
    assert lax["firmware_log"] is Outcome.SKIPPED
    assert "secure_boot" not in lax


# Strictness


def spec(tail: bytes, size: int | None = None) -> bytes:
    data = b"Spec ID Event03\0" + bytes(8) + tail
    return struct.pack("<II20xI", 0, NO_ACTION, len(data) if size is None else size) + data


@pytest.mark.parametrize(
    ("log", "problem"),
    [
        (b"", "4 bytes expected"),
        (struct.pack("<II20sI", 0, 8, b"\1" * 20, 4) + b"1.2\0", "a log of TPM 1.2"),
        (spec(struct.pack("<I", 0) + b"\0"), "0 algorithms"),
        (spec(struct.pack("<I", 99) + b"\0" * 64), "99 algorithms"),
        (spec(struct.pack("<IHHHH", 2, 11, 32, 11, 32) + b"\0"), "each once"),
        (spec(struct.pack("<IHH", 1, 11, 20) + b"\0"), "0x000b with digests of 20 bytes"),
        (spec(struct.pack("<IHH", 1, 0x12, 65) + b"\0"), "digests of 65 bytes"),
        (spec(struct.pack("<IHH", 1, 11, 32) + b"\0", size=5), "is not where it ends"),
        (header((SHA256,)) + b"\xff" * 16, "register 4294967295"),
        (header((SHA256,)) + struct.pack("<III", 0, 8, 2), "2 digests, expected 1"),
        (header((SHA256,)) + struct.pack("<IIIH", 0, 8, 1, 4), "algorithm 0x0004"),
        (Machine().boot().log()[:-1], "bytes expected"),
        (Machine().boot().log() + b"\0", "4 bytes expected, 1 left"),
        (bytes(MAX_LOG + 1), "longer than"),
    ],
)
def test_what_is_no_log(log: bytes, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        EventLog.from_bytes(log)
    with pytest.raises(DecodeError):
        verify(with_log(Machine().boot().attester(), log))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 600))
def test_noise_is_an_error_of_ours_or_a_log(noise: bytes, at: int) -> None:
    log = Machine().boot().log()
    for data in (header((SHA256,)) + noise, log[:at] + noise + log[at + len(noise) :]):
        try:
            EventLog.from_bytes(data)
        except DecodeError:
            continue


# On this machine


class Logged(NoKernel):
    """A kernel that has a log to give."""

    def __init__(self, log: bytes | None) -> None:
        self.log = log

    def read(self, path: str, limit: int) -> bytes:
        assert path == EVENT_LOG
        if self.log is None:
            raise FileNotFoundError(2, "No such file or directory")
        assert len(self.log) <= limit
        return self.log


def test_the_kernels_log_goes_with_the_quote() -> None:
    machine = Machine().boot()
    quote = with_log(machine.attester(), None).evidence()
    whole = with_event_log(Logged(machine.log()), quote)
    assert Evidence.from_bytes(whole).event_log == machine.log()
    assert verify_evidence(whole, ENROLLED, at=NOW).details["secure_boot"] == "on"
    with pytest.raises(UndecidedError, match="binary_bios_measurements is missing"):
        with_event_log(Logged(None), quote)
    with pytest.raises(DecodeError, match=r"a log of TPM 1\.2"):
        with_event_log(Logged(bytes(64)), quote)
