"""EREPORT and EGETKEY as an enclave executes them, and EENTER's rules."""

from dataclasses import replace

import pytest

from broch.tee.dcap.report import ReportBody
from broch.tee.sgx.device import CPUSVN, SgxDevice
from broch.tee.sgx.faults import SgxFaultError, SgxNumber
from broch.tee.sgx.keys import cmac
from broch.tee.sgx.run import leaves
from broch.tee.sgx.run.ends import EnclaveFaultError
from broch.tee.sgx.run.leaves import Leaf
from broch.tee.sgx.run.loading import LoadedEnclave, Tcs
from broch.tee.sgx.structures import (
    POLICY_MRENCLAVE,
    KeyName,
    KeyRequest,
    Report,
    TargetInfo,
)

from .conftest import Start
from .programs import BUFFER, COPY, ENCLU, SHOW
from .test_usercalls import Bench

TARGET, DATA, REPORT = BUFFER, BUFFER + 512, BUFFER + 1024
KEY = BUFFER + 4096


@pytest.fixture
def bench(start: Start, scripted: bytes, engine: str) -> Bench:
    return Bench(start(scripted, engine))


def _request(**values: object) -> bytes:
    defaults = {"keyname": KeyName.SEAL, "keypolicy": POLICY_MRENCLAVE, "cpusvn": CPUSVN}
    return KeyRequest(**{**defaults, **values}).to_bytes()  # type: ignore[arg-type]


def test_a_report_for_oneself_is_checked_with_the_own_key(bench: Bench) -> None:
    secs = bench.runner.enclave.secs
    source = bench.put(TargetInfo.of(secs).to_bytes() + bytes(range(64)))
    shown, key = bench.put(bytes(432)), bench.put(bytes(16))
    found = bench.run(
        (COPY, source, 72),
        (ENCLU, Leaf.EREPORT, TARGET, DATA, REPORT),
        (SHOW, shown, 54, 1024),
    )
    report = Report.from_bytes(bench.memory.read(shown, 432))
    assert found[1][0] == 0
    body: ReportBody = report.body
    assert (body.mrenclave, body.mrsigner) == (secs.mrenclave, secs.mrsigner)
    assert (body.flags, body.xfrm) == (secs.flags, secs.xfrm)
    assert body.reportdata == bytes(range(64))
    assert key
    device = bench.runner._device
    own = device.key(
        bench.runner.enclave.identity, KeyRequest(keyname=KeyName.REPORT, keyid=report.keyid)
    )
    assert cmac(own, report.body.to_bytes()) == report.mac


def test_a_key_is_that_of_the_device(bench: Bench, device: SgxDevice) -> None:
    request = _request(keyid=b"K" * 32)
    source, shown = bench.put(request), bench.put(bytes(16))
    found = bench.run(
        (COPY, source, 64), (ENCLU, Leaf.EGETKEY, BUFFER, KEY, 0), (SHOW, shown, 2, 4096)
    )
    assert found[1] == (0, 0), "RAX 0, ZF 0"
    expected = device.key(bench.runner.enclave.identity, KeyRequest.from_bytes(request))
    assert bench.memory.read(shown, 16) == expected


@pytest.mark.parametrize(
    ("values", "number"),
    [
        ({"isvsvn": 1}, SgxNumber.INVALID_ISVSVN),
        ({"cpusvn": b"\xff" * 16}, SgxNumber.INVALID_CPUSVN),
        ({"keyname": 9}, SgxNumber.INVALID_KEYNAME),
        ({"keyname": KeyName.PROVISION}, SgxNumber.INVALID_ATTRIBUTE),
        ({"keyname": KeyName.EINITTOKEN}, SgxNumber.INVALID_ATTRIBUTE),
    ],
)
def test_refusals_are_numbers_in_rax(
    bench: Bench, values: dict[str, object], number: SgxNumber
) -> None:
    source, shown = bench.put(_request(**values)), bench.put(b"x" * 16)
    found = bench.run(
        (COPY, source, 64), (ENCLU, Leaf.EGETKEY, BUFFER, KEY, 0), (SHOW, shown, 2, 4096)
    )
    assert found[1] == (number, 1), "ZF is set"
    assert bench.memory.read(shown, 16) == bytes(16), "no key is written"


FAULTS = [
    ("EREPORT unaligned target", Leaf.EREPORT, TARGET + 8, DATA, REPORT, "not aligned to 512"),
    ("EREPORT unaligned data", Leaf.EREPORT, TARGET, DATA + 64, REPORT, "not aligned to 128"),
    ("EREPORT unaligned out", Leaf.EREPORT, TARGET, DATA, REPORT + 64, "not aligned to 512"),
    ("EREPORT user target", Leaf.EREPORT, 0x7000_0000_0000, DATA, REPORT, "outside the enclave"),
    ("EREPORT user out", Leaf.EREPORT, TARGET, DATA, 0x7000_0000_0000, "outside the enclave"),
    ("EREPORT to a gap", Leaf.EREPORT, TARGET, DATA, "gap", "#PF in EREPORT: no writable page"),
    ("EREPORT to code", Leaf.EREPORT, TARGET, DATA, "code", "#PF in EREPORT: no writable page"),
    ("EREPORT from a TCS", Leaf.EREPORT, "tcs", DATA, REPORT, "no readable page"),
    ("EGETKEY unaligned request", Leaf.EGETKEY, BUFFER + 16, KEY, 0, "not aligned to 512"),
    ("EGETKEY unaligned out", Leaf.EGETKEY, BUFFER, KEY + 8, 0, "not aligned to 16"),
    ("EGETKEY user out", Leaf.EGETKEY, BUFFER, 0x7000_0000_0000, 0, "outside the enclave"),
]


@pytest.mark.parametrize("case", FAULTS, ids=[case[0] for case in FAULTS])
def test_each_rule_of_operands(
    bench: Bench, case: tuple[str, Leaf, int | str, int, int | str, str]
) -> None:
    enclave = bench.runner.enclave
    last = enclave.regions[-1]
    places = {
        "gap": last.address + last.size,
        "code": next(r.address for r in enclave.regions if r.rights & 4),
        "tcs": enclave.base + enclave.threads[0].offset,
    }
    _, leaf, rbx, rcx, rdx, message = case
    values = [places[v] if isinstance(v, str) else v for v in (rbx, rcx, rdx)]
    with pytest.raises(EnclaveFaultError, match=message):
        bench.run((ENCLU, leaf, *values))


@pytest.mark.parametrize(
    ("leaf", "at", "message"),
    [
        (Leaf.EREPORT, 49, "TARGETINFO: reserved bytes"),
        (Leaf.EGETKEY, 6, "reserved bits of KEYREQUEST"),
        (Leaf.EGETKEY, 500, "reserved bits of KEYREQUEST"),
    ],
)
def test_reserved_bytes_fault(bench: Bench, leaf: Leaf, at: int, message: str) -> None:
    data = bytearray(_request() if leaf is Leaf.EGETKEY else bytes(512))
    data[at] = 1
    source = bench.put(bytes(data) + bytes(64))
    with pytest.raises(EnclaveFaultError, match=message):
        bench.run((COPY, source, 72), (ENCLU, leaf, BUFFER, DATA, REPORT))


@pytest.mark.parametrize("leaf", [3, 6, 7, 8, 9, 99])
def test_other_leaves_fault(bench: Bench, leaf: int) -> None:
    with pytest.raises(EnclaveFaultError, match="#GP"):
        bench.run((ENCLU, leaf, BUFFER, KEY, 0))


EENTER = [
    ({"ossa": 8}, "OSSA"),
    ({"ofsbase": 0x10}, "OFSBASE"),
    ({"ogsbase": 0x10}, "OGSBASE"),
    ({"ofsbase": 1 << 47}, "FS base"),
    ({"ogsbase": 1 << 63}, "GS base"),
    ({"flags": 4}, "FLAGS"),
    ({"nssa": 0}, "SSA frame"),
    ({"ossa": 0}, "cannot be written"),
    ({"oentry": 1 << 40}, "OENTRY"),
]


@pytest.mark.parametrize(("values", "message"), EENTER, ids=[case[1] for case in EENTER])
def test_each_rule_of_eenter(
    start: Start, scripted: bytes, values: dict[str, int], message: str
) -> None:
    enclave: LoadedEnclave = start(scripted, "unicorn").enclave
    tcs: Tcs = enclave.threads[0]
    leaves.check_eenter(enclave, tcs)
    with pytest.raises(SgxFaultError, match=message):
        leaves.check_eenter(enclave, replace(tcs, **values))
