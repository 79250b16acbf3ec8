"""TCB info and QE identity: strict JSON, every member checked."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from broch.errors import DecodeError
from broch.tee.dcap.tcb import QeIdentity, TcbInfo, TcbStatus

ZEROS = [{"svn": 0}] * 16


def info() -> dict[str, Any]:
    return {
        "id": "TDX",
        "version": 3,
        "issueDate": "2025-06-19T10:56:11Z",
        "nextUpdate": "2025-07-19T10:56:11Z",
        "fmspc": "00A067110000",
        "pceId": "0001",
        "tcbType": 0,
        "tcbEvaluationDataNumber": 17,
        "tcbLevels": [
            {
                "tcb": {
                    "sgxtcbcomponents": [{"svn": svn, "category": "x"} for svn in range(16)],
                    "tdxtcbcomponents": ZEROS,
                    "pcesvn": 5,
                },
                "tcbDate": "2024-03-13T00:00:00Z",
                "tcbStatus": "UpToDate",
                "advisoryIDs": ["INTEL-SA-1"],
            }
        ],
        "somethingNew": [1, 2],
    }


def identity() -> dict[str, Any]:
    return {
        "id": "QE",
        "version": 2,
        "issueDate": "2025-06-19T10:01:18Z",
        "nextUpdate": "2025-07-19T10:01:18Z",
        "tcbEvaluationDataNumber": 17,
        "miscselect": "01020304",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11" + "00" * 15,
        "attributesMask": "FB" + "FF" * 7 + "00" * 8,
        "mrsigner": "8C" * 32,
        "isvprodid": 1,
        "tcbLevels": [
            {"tcb": {"isvsvn": n}, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": "OutOfDate"}
            for n in (6, 8, 7)
        ],
    }


def test_tcb_info() -> None:
    read = TcbInfo.from_bytes(json.dumps(info()).encode())
    assert (read.id, read.fmspc.hex(), read.pceid) == ("TDX", "00a067110000", b"\0\1")
    assert read.issue_date == datetime(2025, 6, 19, 10, 56, 11, tzinfo=UTC)
    assert read.evaluation_number == 17
    (level,) = read.levels
    assert level.sgx == tuple(range(16))
    assert level.tdx == (0,) * 16
    assert (level.pcesvn, level.status) == (5, TcbStatus.UP_TO_DATE)
    assert level.advisories == ("INTEL-SA-1",)
    assert read.document["somethingNew"] == [1, 2]


def test_qe_identity() -> None:
    read = QeIdentity.from_bytes(json.dumps(identity()).encode())
    assert (read.miscselect, read.miscselect_mask) == (0x04030201, 0xFFFFFFFF)
    assert read.attributes[0] == 0x11
    assert read.mrsigner == b"\x8c" * 32
    assert [level.isvsvn for level in read.levels] == [8, 7, 6]


Edit = Callable[[dict[str, Any]], object]


def put(*path: str | int, value: object) -> Edit:
    def edit(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return edit


LEVEL = ("tcbLevels", 0)
COMPONENTS = (*LEVEL, "tcb", "sgxtcbcomponents")


@pytest.mark.parametrize(
    "edit",
    [
        *(
            pytest.param(lambda d, key=key: d.pop(key), id=f"no {key}")
            for key in sorted(set(info()) - {"tcbType", "somethingNew"})
        ),
        pytest.param(put("version", value=2), id="version"),
        pytest.param(put("version", value="3"), id="version as text"),
        pytest.param(put("version", value=True), id="version as bool"),
        pytest.param(put("id", value=1), id="id as number"),
        pytest.param(put("fmspc", value="00A06711000"), id="odd hex"),
        pytest.param(put("fmspc", value="00A0671100"), id="short hex"),
        pytest.param(put("fmspc", value="00A06711000G"), id="no hex"),
        pytest.param(put("fmspc", value="00A0 6711000"), id="hex with a space"),
        pytest.param(put("fmspc", value="٠٠" * 6), id="digits of elsewhere"),
        pytest.param(put("issueDate", value="2025-06-19"), id="date only"),
        pytest.param(put("issueDate", value="2025-06-19T10:56:11+00:00"), id="other zone"),
        pytest.param(put("issueDate", value="2025-13-19T10:56:11Z"), id="month 13"),
        pytest.param(put("issueDate", value=1750330571), id="seconds"),
        pytest.param(put("tcbEvaluationDataNumber", value=-1), id="negative"),
        pytest.param(put("tcbEvaluationDataNumber", value=1.0), id="float"),
        pytest.param(put("tcbLevels", value={}), id="levels no list"),
        pytest.param(put("tcbLevels", value=[1]), id="levels no objects"),
        pytest.param(put(*LEVEL, "tcb", value=[]), id="tcb no object"),
        pytest.param(put(*LEVEL, "tcb", "pcesvn", value=65536), id="pcesvn"),
        pytest.param(put(*LEVEL, "tcbStatus", value="uptodate"), id="status in lower case"),
        pytest.param(put(*LEVEL, "tcbStatus", value=["UpToDate"]), id="status a list"),
        pytest.param(put(*LEVEL, "tcbDate", value=""), id="no date"),
        pytest.param(put(*LEVEL, "advisoryIDs", value="INTEL-SA-1"), id="advisories no list"),
        pytest.param(put(*LEVEL, "advisoryIDs", value=[1]), id="advisories no text"),
        pytest.param(put(*COMPONENTS, value=ZEROS[1:]), id="15 components"),
        pytest.param(put(*COMPONENTS, value=[*ZEROS, {"svn": 0}]), id="17 components"),
        pytest.param(put(*COMPONENTS, 0, value={"svn": 256}), id="component over 255"),
        pytest.param(put(*COMPONENTS, 0, value={}), id="component without svn"),
        pytest.param(put(*LEVEL, "tcb", "tdxtcbcomponents", value=[]), id="no TDX components"),
    ],
)
def test_each_member_of_tcb_info(edit: Edit) -> None:
    document = info()
    edit(document)
    with pytest.raises(DecodeError, match="tcb_info"):
        TcbInfo.from_bytes(json.dumps(document).encode())


@pytest.mark.parametrize(
    "edit",
    [
        *(pytest.param(lambda d, key=key: d.pop(key), id=f"no {key}") for key in identity()),
        pytest.param(put("version", value=1), id="version"),
        pytest.param(put("mrsigner", value="8C" * 31), id="mrsigner"),
        pytest.param(put("isvprodid", value=65536), id="isvprodid"),
        pytest.param(put(*LEVEL, "tcb", "isvsvn", value=-1), id="isvsvn"),
        pytest.param(put(*LEVEL, "tcbStatus", value="TDRelaunchAdvised"), id="status"),
    ],
)
def test_each_member_of_qe_identity(edit: Edit) -> None:
    document = identity()
    edit(document)
    with pytest.raises(DecodeError, match="qe_identity"):
        QeIdentity.from_bytes(json.dumps(document).encode())
