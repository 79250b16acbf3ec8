"""``broch endorsements`` as a user runs it: processes, pipes, and Ctrl-C in the middle."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.publishers import Answer, Publisher, intel, serve
from tests.unit.tee.sgx.attester import Attester

from broch.attest.endorsements import Store
from broch.tee.dcap import platform
from broch.tee.sgx.verify import parse

from .conftest import SECONDS, Broch

PLATFORM: Final = Attester()
ROOT: Final = PLATFORM.endorsements().anchors[0]


@pytest.fixture
def pcs(broch: Broch) -> Iterator[Publisher]:
    (broch.folder / "quote").write_bytes(PLATFORM.evidence())
    (broch.folder / "root.der").write_bytes(ROOT)
    chain = platform.pck_chain(parse(PLATFORM.evidence()).certification)
    items = PLATFORM.endorsements().items
    with serve(intel(items, chain, "464D53504321", hexadecimal=False)) as publisher:
        yield publisher


def test_a_bundle_goes_through_a_pipe(broch: Broch, pcs: Publisher) -> None:
    arguments = ("--pcs", pcs.base, "--anchor", "root.der", "--store", "one")
    done = broch("endorsements", "fetch", "quote", *arguments, "--json")
    assert done.code == 0, done.err
    export = subprocess.run(
        broch.command("endorsements", "export", "-", "--store", "one"),
        cwd=broch.folder,
        env=broch.environment,
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )
    imported = subprocess.run(
        broch.command(
            "endorsements", "import", "-", "--store", "two", "--anchor", "root.der", "--json"
        ),
        cwd=broch.folder,
        env=broch.environment,
        input=export.stdout,
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )
    assert imported.stdout.count(b'"imported"') == 4
    assert len(list(Store(broch.folder / "two").entries())) == 4
    assert broch("endorsements", "show", "quote", "--store", "two").code == 0


def test_an_interrupt_leaves_a_store_that_is_whole(broch: Broch, pcs: Publisher) -> None:
    asked, over = threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        over.wait(SECONDS)

    command = ("fetch", "quote", "--pcs", pcs.base, "--anchor", "root.der", "--store", "store")
    pcs.down = Answer(body=b"half of", promised=1000, then=hang)
    with broch.start("endorsements", *command) as process:
        assert asked.wait(SECONDS), "it asks the service"
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    over.set()
    left = [path.name for path in (broch.folder / "store").rglob("*") if path.is_file()]
    assert sorted(left) == ["dcap.pck.platform.fetch", "endorsements"], "a lock, and the marker"
    assert list(Store(broch.folder / "store").entries()) == []
    pcs.down = None
    assert broch("endorsements", *command).code == 0, "and nothing is in the way"


def test_errors_are_lines_and_codes(broch: Broch, pcs: Publisher) -> None:
    (broch.folder / "garbage").write_bytes(bytes(range(200)))
    for arguments, code in (
        (("fetch", "garbage"), 3),
        (("import", "garbage"), 3),
        (("import", "quote"), 3),
        (("fetch", "quote", "--pcs", pcs.base), 4),
        (("show", "quote", "--store", "nowhere"), 2),
        (("fetch", "quote", "--pcs", "http://example.com"), 2),
        (("fetch",), 2),
    ):
        done = broch("endorsements", *arguments)
        assert done.code == code, (arguments, done)
        assert done.err.startswith("error: "), done.err
    assert not Path(broch.folder / "nowhere").exists()
