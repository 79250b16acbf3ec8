"""What the verifiers of hardware that is not emulated here have in common."""

import subprocess
import sys
from datetime import UTC, datetime
from importlib import import_module

import pytest

from broch.errors import DecodeError, UsageError
from broch.tee.contract import Endorsements
from broch.tee.verifier import Verifier

NAMES = ("snp", "nitro", "tdx", "psa", "cca", "tpm")
AT = datetime(2026, 3, 1, tzinfo=UTC)


def verifier(name: str) -> Verifier:
    found: Verifier = import_module(f"broch.tee.{name}").VERIFIER
    return found


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    found = verifier(name)
    assert found.name == name
    assert found.title
    assert found.report_data_size >= 32


@pytest.mark.parametrize("name", NAMES)
def test_importing_one_imports_nothing_that_is_not_needed_yet(name: str) -> None:
    code = (
        f"import sys, broch.tee.{name} as tee\n"
        f"late = [m for m in sys.modules if m.startswith('broch.tee.{name}.')]\n"
        "sys.exit(bool(late) or 'broch.wire' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 1, 47, 672, 1184, 5000, 100_000])
def test_nothing_and_noise(name: str, size: int) -> None:
    for fill in (b"\0", b"\xff", b"\xd2", b"\x84"):
        with pytest.raises(DecodeError):
            verifier(name).verify(fill * size, Endorsements(anchors=()), at=AT)


@pytest.mark.parametrize("name", NAMES)
def test_a_time_without_zone_is_refused_or_never_reached(name: str) -> None:
    with pytest.raises((UsageError, DecodeError)):
        verifier(name).verify(b"", Endorsements(anchors=()), at=AT.replace(tzinfo=None))
