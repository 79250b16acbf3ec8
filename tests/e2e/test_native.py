"""Modules in C as a user builds, inspects and runs them, and the example."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.conftest import SECONDS, Broch

from broch.errors import UsageError
from broch.image import toolchain

EXAMPLE = Path(__file__).parents[2] / "examples" / "sgx-hello"


@pytest.fixture(autouse=True)
def compiler() -> None:
    try:
        toolchain.find("x86_64")
    except UsageError as exc:
        pytest.skip(str(exc))
    if importlib.util.find_spec("unicorn") is None:
        pytest.skip("unicorn is not installed")


@pytest.fixture
def hello(broch: Broch) -> Path:
    return Path(shutil.copy(EXAMPLE / "hello.c", broch.folder))


def test_build_convert_sign_and_run(broch: Broch, hello: Path) -> None:
    """One command; and the same enclave step by step."""
    built = broch("image", "build", hello.name, "--tee", "sgx", "--json")
    assert built.code == 0, built.err
    assert [built.json[kind] for kind in ("elf", "sgxs", "sig")] == [
        "hello.elf",
        "hello.sgxs",
        "hello.sig",
    ]
    converted = broch(
        *("sgx", "convert", "hello.elf", "-H", "0x100000", "-S", "0x20000", "-o", "again.sgxs")
    )
    assert converted.code == 0, converted.err
    folder = broch.folder
    assert (folder / "again.sgxs").read_bytes() == (folder / "hello.sgxs").read_bytes()
    ran = broch("run", "hello.sgxs", "--engine", "unicorn", "--", "Ada")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("hello, Ada\n")
    assert built.json["measurement"] in ran.out
    assert built.json["signer"] in ran.out
    assert "emulated" in ran.err


def test_running_a_source(broch: Broch, hello: Path) -> None:
    ran = broch("run", "hello.c", "--engine", "unicorn")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("hello, world\n")
    assert sorted(path.name for path in broch.folder.iterdir() if path.is_file()) == ["hello.c"]


def test_a_panic_in_a_source_that_is_run_is_shown(broch: Broch) -> None:
    text = '#include "broch.h"\nint main(int c, char **v) { (void)v; broch_abort(c ? "why" : ""); }'
    (broch.folder / "panic.c").write_text(text)
    ran = broch("run", "panic.c", "--engine", "unicorn")
    assert ran.code != 0
    assert "Enclave panicked: why" in ran.err


def test_errors_name_file_and_line(broch: Broch) -> None:
    (broch.folder / "sub").mkdir()
    (broch.folder / "sub" / "bad.c").write_text("int main(void) {\n  return x;\n}\n")
    built = broch("image", "build", "sub/bad.c", "--tee", "sgx", "--json")
    assert built.code == 3
    assert built.json["error"]["place"] == "sub/bad.c:2"
    assert not list(broch.folder.glob("bad.*"))


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["hello.c", "--tee", "keystone"], "not written in C", "sgx"),
        (["absent.c", "--tee", "sgx"], "no such file", ""),
        (["hello.c", "--tee", "sgx", "--name", "Not A Name"], "not a name", ""),
        (["hello.c", "--tee", "sgx", "--heap-size", "ten"], "--heap-size", ""),
        (["hello.c", "--tee", "sgx", "-S", "0x123"], "multiple of the page size", "0x1000"),
        (["module.py", "--tee", "sgx", "--library"], "--library", ""),
    ],
)
def test_wrong_calls(
    broch: Broch, hello: Path, arguments: list[str], error: str, hint: str
) -> None:
    built = broch("image", "build", *arguments)
    assert built.code == 2
    assert error in built.err
    assert hint in built.err


def test_the_library_example(broch: Broch) -> None:
    """The README's command, in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "counter.py")],
        env=broch.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first.startswith("MRENCLAVE ")
    assert "emulated" in first
    assert lines == [
        *(f"enclave: total is now {total}" for total in (40, 41, 42)),
        *("total: 42", "largest: 5", "a call that there is not: -22"),
    ]
