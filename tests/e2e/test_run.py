"""``broch run`` as a user has it: streams, exit codes, signatures, quotes, and Ctrl-C."""

import importlib.util
import os
import select
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.e2e.conftest import SECONDS, Broch
from tests.unit.tee.sgx.run import programs

from broch.attest.endorsements.loading import load
from broch.cpu import native
from broch.errors import UsageError
from broch.image import toolchain
from broch.tee.sgx.verify import verify

QUOTING = r"""
#include "broch.h"
static bool all(int64_t stream, uint8_t *to, size_t size) {
    for (int64_t got; size; to += got, size -= (size_t)got)
        if ((got = broch_read(stream, to, size)) <= 0) return false;
    return true;
}
int main(int argc, char **argv) {
    static uint8_t target[BROCH_TARGETINFO_SIZE], report[BROCH_REPORT_SIZE], quote[16384];
    static uint8_t data[BROCH_REPORT_DATA_SIZE] = "a nonce";
    uint32_t size;
    int64_t stream = broch_connect("quote.broch");
    if (stream < 0 || !all(stream, target, sizeof target)) return 1;
    broch_report(argc > 1 ? NULL : target, data, report);
    broch_write(stream, report, sizeof report);
    if (!all(stream, (uint8_t *)&size, 4) || size > sizeof quote || !all(stream, quote, size))
        return 2;
    printf("%u bytes for %s", size, argv[0]);
    return 0;
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The enclaves, built once."""
    try:
        toolchain.find("x86_64")
    except UsageError as exc:
        pytest.skip(str(exc))
    made = tmp_path_factory.mktemp("enclaves")
    (made / "trying.sgxs").write_bytes(programs.kit(programs.TRYING))
    (made / "quoting.sgxs").write_bytes(programs.kit(QUOTING))
    return made


@pytest.fixture(params=["native", "unicorn"])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "native" and (problem := native.missing()):
        pytest.skip(problem)
    if request.param == "unicorn" and importlib.util.find_spec("unicorn") is None:
        pytest.skip("unicorn is not installed")
    return str(request.param)


@pytest.fixture
def trying(broch: Broch, folder: Path) -> str:
    path = broch.folder / "trying.sgxs"
    path.write_bytes((folder / "trying.sgxs").read_bytes())
    return path.name


def test_output_arguments_and_exit_code(broch: Broch, trying: str, engine: str) -> None:
    ran = broch("run", trying, "--engine", engine, "--", "arguments", "--json", "-x")
    assert (ran.code, ran.out) == (0, "[enclave][arguments][--json][-x]")
    assert f"emulated SGX, {engine} engine" in ran.err


def test_a_panic_is_shown_as_upstream_shows_it(broch: Broch, trying: str) -> None:
    ran = broch("run", trying, "abort")
    assert ran.code == 255
    assert "Error while executing SGX enclave.\nEnclave panicked: asked to\n" in ran.err
    assert ran.out == ""


def test_a_fault_names_the_flag_to_change(broch: Broch, trying: str) -> None:
    ran = broch("run", trying, "stack")
    assert ran.code == 255
    assert "stack overflow in thread 0" in ran.err
    assert "hint: give it more stack: --stack-size of broch sgx convert" in ran.err


def test_json(broch: Broch, trying: str) -> None:
    ran = broch("run", trying, "--json")
    assert ran.code == 0
    assert "hello" in ran.err, "standard output is for the object"
    measured = broch("sgx", "measure", trying, "--json").json["mrenclave"]
    assert ran.json["mrenclave"] == measured
    assert ran.json["emulated"] is ran.json["debug"] is True
    assert ran.json["engine"] in ("native", "unicorn")
    assert ran.json["ended"] == "exited"
    assert ran.json["error"] is ran.json["quote"] is None
    failed = broch("run", trying, "--json", "exit")
    assert failed.code == 255
    assert failed.json["ended"] == "failed"
    assert failed.json["error"]["message"] == "Enclave panicked: Exited with status code 7"


def test_signatures(broch: Broch, trying: str) -> None:
    """The dummy; then the one beside it; then one of another build; then a named one."""
    dummy = broch("run", trying, "--json").json
    assert dummy["debug"]
    assert broch("sgx", "sign", trying, "own.sig", "--dummy", "--date", "20260101").code == 0
    (broch.folder / "own.sig").rename(broch.folder / "trying.sig")
    beside = broch("run", trying, "--json")
    assert beside.code == 0
    assert beside.json["mrsigner"] == dummy["mrsigner"]
    image = broch.folder / trying
    image.write_bytes(image.read_bytes().replace(b"hello", b"HELLO", 1))
    stale = broch("run", trying)
    assert stale.code == 4
    assert "SGX_INVALID_MEASUREMENT" in stale.err
    assert "another build" in stale.err
    assert broch("run", trying, "-s", "dummy").out == "HELLO"
    (broch.folder / "trying.sig").unlink()
    assert broch("run", trying, "-s", "coresident").code == 2
    assert broch("run", trying, "-s", "nonsense").code == 2
    assert broch("run", trying, "--engine", "nonsense").code == 2
    assert broch("run", "nowhere.sgxs").code == 2
    (broch.folder / "short.sig").write_bytes(b"no SIGSTRUCT")
    short = broch("run", trying, "-s", "file=short.sig")
    assert short.code == 3
    assert f"the signature of {trying}: " in short.err
    image.write_bytes(b"not an enclave")
    assert broch("run", trying).code == 3


def test_a_quote_and_what_verifies_it(broch: Broch, folder: Path) -> None:
    image = folder / "quoting.sgxs"
    ran = broch("run", str(image), "--quote", "quote.bin", "--json")
    assert ran.code == 0, ran.err
    assert "emulated" in ran.err
    quote = (broch.folder / "quote.bin").read_bytes()
    assert ran.json["quote"] == quote.hex()
    items = load(broch.folder / "quote.bin.endorsements", "sgx", quote)
    claims = verify(quote, items, at=datetime.now(UTC))
    assert claims.measurement.hex() == ran.json["mrenclave"]
    assert claims.report_data == b"a nonce".ljust(64, b"\0")
    assert claims.emulated
    wrong = broch("run", str(image), "--quote", "no.bin", "not for the QE")
    assert wrong.code == 255, "the host quotes no report for another enclave"
    assert not (broch.folder / "no.bin").exists()


def test_no_quote_to_write(broch: Broch, trying: str) -> None:
    ran = broch("run", trying, "--quote", "quote.bin")
    assert ran.code == 6
    assert "quote.broch" in ran.err
    assert broch("run", trying, "--quote", "-").code == 2


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_ctrl_c_leaves_no_process(
    broch: Broch, trying: str, engine: str, number: signal.Signals, code: int
) -> None:
    with broch.start("run", trying, "--engine", engine, "forever") as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 4) == b"here"
        children = [os.pidfd_open(child) for child in _children(process.pid)]
        assert len(children) == (engine == "native")
        _wait_until_it_computes(process.pid)
        process.send_signal(number)
    assert process.returncode == code
    for descriptor in children:
        # Readable once it has ended: by the runner's hand, or because its tracer is gone.
        assert select.select([descriptor], [], [], SECONDS)[0]
        os.close(descriptor)


def _children(process: int) -> list[int]:
    """Of all threads of a process."""
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        found += [int(word) for word in (task / "children").read_text().split()]
    return found


def _wait_until_it_computes(process: int) -> None:
    """The enclave's loop is what a signal has to end, not the host between two usercalls."""
    runs = _children(process) or [process]
    begin, deadline = _ticks(runs[0]), time.monotonic() + SECONDS
    while _ticks(runs[0]) < begin + 10:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _ticks(process: int) -> int:
    """Processor time of a process, in hundredths of a second."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11])
