"""TCB levels, with the traps of TDX, and how statuses converge."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from broch.crypto.ecdsa import VerifyingKey
from broch.tee.dcap import emulated, platform
from broch.tee.dcap.ecdsa import derive_key
from broch.tee.dcap.pckext import PckExtension
from broch.tee.dcap.tcb import QeIdentity, TcbInfo, TcbLevel, TcbStatus, isv_levels
from broch.tee.dcap.trust import Trusted

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PCK = PckExtension(
    ppid=bytes(16),
    components=(5,) * 16,
    pcesvn=5,
    cpusvn=bytes(16),
    pceid=bytes(2),
    fmspc=bytes(6),
    sgx_type=0,
)


def level(
    status: TcbStatus, sgx: tuple[int, ...], tdx: tuple[int, ...] = (), pcesvn: int = 5
) -> TcbLevel:
    return TcbLevel(sgx=sgx, tdx=tdx, pcesvn=pcesvn, date=NOW, status=status, advisories=())


def trusted(*levels: TcbLevel) -> Trusted:
    dates = {"issue_date": NOW, "next_update": NOW + timedelta(days=30)}
    return Trusted(
        emulated=True,
        pck_key=VerifyingKey(derive_key(b"platform", "pck").public_key()),
        pck=PCK,
        tcb_info=TcbInfo(
            id="TDX",
            fmspc=PCK.fmspc,
            pceid=PCK.pceid,
            evaluation_number=1,
            levels=levels,
            document={},
            **dates,
        ),
        qe_identity=QeIdentity(
            id="TD_QE",
            evaluation_number=1,
            miscselect=0,
            miscselect_mask=0,
            attributes=bytes(16),
            attributes_mask=bytes(16),
            mrsigner=bytes(32),
            isvprodid=0,
            levels=(),
            **dates,
        ),
        windows=(),
        begin=NOW,
        end=NOW,
        details={},
    )


FIVES = (5,) * 16


@pytest.mark.parametrize("place", range(16))
def test_every_component_counts(place: int) -> None:
    too_high = (*FIVES[:place], 6, *FIVES[place + 1 :])
    reached, missed = level(TcbStatus.UP_TO_DATE, FIVES), level(TcbStatus.UP_TO_DATE, too_high)
    assert platform.match_level(trusted(reached)) is reached
    assert platform.match_level(trusted(missed)) is None
    assert platform.match_level(trusted(missed, reached)) is reached


def test_pcesvn_counts() -> None:
    assert platform.match_level(trusted(level(TcbStatus.REVOKED, FIVES, pcesvn=6))) is None


def test_tdx_components_0_and_1_are_the_modules_once_it_has_a_version() -> None:
    """[A naive comparison of 16 components calls a real platform OutOfDate.]"""
    wanted = level(TcbStatus.UP_TO_DATE, FIVES, (9, 9, *FIVES[2:]))
    with_module = bytes((1, 3, *FIVES[2:]))
    without = bytes((1, 0, *FIVES[2:]))
    assert platform.match_level(trusted(wanted), with_module) is wanted
    assert platform.match_level(trusted(wanted), without) is None
    assert platform.match_level(trusted(wanted), bytes((9, 9, *FIVES[2:]))) is wanted


@pytest.mark.parametrize("place", range(2, 16))
def test_the_other_tdx_components_count(place: int) -> None:
    wanted = level(TcbStatus.UP_TO_DATE, FIVES, FIVES)
    own = bytes((5, 5, *(4 if index == place else 5 for index in range(2, 16))))
    assert platform.match_level(trusted(wanted), own) is None


def test_a_level_without_tdx_components_is_no_level_for_tdx() -> None:
    assert platform.match_level(trusted(level(TcbStatus.UP_TO_DATE, FIVES)), bytes(16)) is None


RANK = {
    TcbStatus.UP_TO_DATE: 0,
    TcbStatus.SW_HARDENING_NEEDED: 1,
    TcbStatus.CONFIGURATION_NEEDED: 2,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED: 3,
    TcbStatus.TD_RELAUNCH_ADVISED: 4,
    TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED: 5,
    TcbStatus.OUT_OF_DATE: 6,
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED: 7,
    TcbStatus.REVOKED: 8,
    TcbStatus.NOT_SUPPORTED: 9,
}


@pytest.mark.parametrize(("own", "qe"), list(product(TcbStatus, TcbStatus)))
def test_both_together_are_never_better_than_the_platform(own: TcbStatus, qe: TcbStatus) -> None:
    total = platform.converge_qe(own, qe)
    assert RANK[total] >= RANK[own]
    if qe in (TcbStatus.REVOKED, TcbStatus.NOT_SUPPORTED):
        assert RANK[total] >= RANK[qe]
    if qe is not TcbStatus.UP_TO_DATE:
        assert total is not TcbStatus.UP_TO_DATE


def test_levels_of_a_qe() -> None:
    document = emulated.qe_identity_document(
        emulated.QeDescription(id="QE", mrsigner=bytes(32), isvprodid=1, isvsvn=8, flags=0, xfrm=0),
        NOW,
    )
    levels = isv_levels(document, "test")
    assert platform.match_isv_level(levels, 8) is levels[0]
    assert platform.match_isv_level(levels, 9) is levels[0]
    assert platform.match_isv_level(levels, 7) is None
