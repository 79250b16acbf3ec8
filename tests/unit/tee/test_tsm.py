"""configfs-tsm, on a kernel that keeps its rules."""

import errno
from collections.abc import Callable

import pytest
from tests.kernels import NoKernel, TsmKernel

from broch.errors import BrochError, DecodeError, InternalError, UndecidedError, UsageError
from broch.tee import tsm

DATA = bytes(range(64))


def echo(report_data: bytes, level: int) -> bytes:
    return b"report %d " % level + report_data


def kernel(**changes: object) -> TsmKernel:
    fields: dict[str, object] = {"provider": "sev_guest", "make": echo, **changes}
    return TsmKernel(**fields)  # type: ignore[arg-type]


def get(of: object, pauses: list[float] | None = None, inblob: bytes = DATA) -> tsm.TsmReport:
    return tsm.get(
        of,  # type: ignore[arg-type]
        "broch.cloud",
        provider="sev_guest",
        what="AMD SEV-SNP",
        inblob=inblob,
        pause=(pauses if pauses is not None else []).append,
    )


def test_a_report_over_what_was_written() -> None:
    fake = kernel(aux=b"certificates")
    made = get(fake)
    assert made.outblob == echo(DATA, 0)
    assert made.auxblob == b"certificates"
    assert fake.calls[-5:] == ["inblob", "generation", "outblob", "auxblob", "generation"]


def test_an_instance_is_used_again() -> None:
    fake = kernel()
    assert get(fake).outblob == echo(DATA, 0)
    assert get(fake, inblob=DATA[::-1]).outblob == echo(DATA[::-1], 0)
    assert list(fake.instances) == ["broch.cloud"]
    assert fake.instances["broch.cloud"].write_generation == 2


def test_no_certificates_are_no_error() -> None:
    assert get(kernel()).auxblob == b""
    assert get(kernel(aux=b"")).auxblob == b""


@pytest.mark.parametrize("floor", [0, 1, 2, 3])
def test_the_report_is_of_the_kernels_own_privilege_level(floor: int) -> None:
    assert get(kernel(floor=floor)).outblob == echo(DATA, floor)


def test_a_level_beyond_those_that_there_are() -> None:
    with pytest.raises(DecodeError, match="level 4, expected 0 to 3"):
        get(kernel(floor=4))


@pytest.mark.parametrize("size", [0, 63, 65])
def test_report_data_has_64_bytes(size: int) -> None:
    with pytest.raises(UsageError, match=f"report data has {size} bytes, expected 64"):
        get(kernel(), inblob=bytes(size))


def test_a_machine_without_it() -> None:
    with pytest.raises(UndecidedError, match=r"no AMD SEV-SNP device: .*broch.cloud is missing"):
        get(NoKernel())
    with pytest.raises(UndecidedError, match="is missing"):
        get(kernel(provider=""))


def test_another_provider() -> None:
    with pytest.raises(UndecidedError, match="are of 'tdx_guest', expected 'sev_guest'"):
        get(kernel(provider="tdx_guest"))


def test_busy_is_tried_again_and_again_longer() -> None:
    pauses: list[float] = []
    fake = kernel(trouble=[errno.EBUSY, errno.EINTR, errno.ETIMEDOUT])
    assert get(fake, pauses).outblob == echo(DATA, 0)
    assert pauses == [0.05, 0.1, 0.2]


def test_busy_for_ever() -> None:
    pauses: list[float] = []
    with pytest.raises(UndecidedError, match=r"broch.cloud is busy") as caught:
        get(kernel(trouble=[errno.EBUSY] * 9), pauses)
    assert len(pauses) == 4
    assert caught.value.hint


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOMEM, errno.EFAULT])
def test_other_errors_are_told_at_once(code: int) -> None:
    fake = kernel(trouble=[code] * 9)
    with pytest.raises(InternalError, match=r"broch.cloud failed"):
        get(fake)
    assert len(fake.trouble) == 8


def meddler(fake: TsmKernel, times: int) -> Callable[[], None]:
    """Another process that writes to our instance while the report is made."""
    left = [times]

    def meddle() -> None:
        if left[0]:
            left[0] -= 1
            fake.write("/sys/kernel/config/tsm/report/broch.cloud/inblob", bytes(64))

    return meddle


def test_a_report_over_what_another_wrote_is_not_taken() -> None:
    fake = kernel()
    fake.before_read = meddler(fake, 2)
    assert get(fake).outblob == echo(DATA, 0)


def test_another_that_never_ends() -> None:
    fake = kernel()
    fake.before_read = meddler(fake, 99)
    with pytest.raises(UndecidedError, match="another process writes to"):
        get(fake)


def test_a_write_that_the_kernel_refused_without_a_word_is_noticed() -> None:
    fake = kernel(refused_writes=1)
    get(fake, inblob=bytes(64))  # the first is refused, the second taken
    fake.refused_writes = 2
    assert get(fake).outblob == echo(DATA, 0)  # and not the cached report over zeros
    fake.refused_writes = 99
    with pytest.raises(UndecidedError, match="took none of our writes"):
        get(fake)


def test_a_blob_that_is_too_long() -> None:
    with pytest.raises(BrochError, match="File too large"):
        get(kernel(make=lambda data, level: bytes(32 * 1024 + 1)))


def test_a_generation_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = kernel()
    plain = fake.read
    monkeypatch.setattr(
        fake, "read", lambda p, n: b"\xb2\n" if p.endswith("generation") else plain(p, n)
    )
    with pytest.raises(DecodeError, match="is no number"):
        get(fake)
