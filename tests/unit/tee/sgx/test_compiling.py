"""C sources to enclaves: reproducible, with each compiler, and errors that name the line."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.errors import MalformedError, UsageError
from broch.image import toolchain
from broch.tee.contract import Compiler, CompileSettings
from broch.tee.sgx import TEE, compiling, convert, elf_rules, sgxs, sigstruct
from broch.tee.sgx.sigstruct import Sigstruct

MAIN = """
#include "broch.h"
static int *cells[4];
int main(int argc, char **argv) {
    static int zero;
    cells[argc & 3] = &zero;
    printf("%s %d %s\\n", __FILE__, *cells[argc & 3], argv[0]);
    return 0;
}
"""
BARE = '#include "broch.h"\nint main(void) { return 0; }\n'
LIBRARY = """
#include "broch.h"
int32_t broch_call(uint32_t number, const void *data, size_t size) {
    broch_reply(data, size);
    return (int32_t)number;
}
"""


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return TEE.new_signing_key()


@pytest.fixture(autouse=True)
def compiler() -> None:
    try:
        toolchain.find("x86_64")
    except UsageError as exc:
        pytest.skip(str(exc))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def make(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return make


Write = Callable[[str, str], Path]


def test_sgx_compiles_modules() -> None:
    assert isinstance(TEE, Compiler)


def test_equal_sources_give_equal_enclaves_in_any_folder(
    write: Write, key: RSAPrivateKey, tmp_path: Path
) -> None:
    settings = CompileSettings(name="m", version=7)
    built = [
        TEE.compile(write(f"{folder}/module.c", MAIN), settings, key)
        for folder in ("a", "some/where/else")
    ]
    assert built[0] == built[1]
    assert set(built[0].files) == {".elf", ".sgxs", ".sig"}
    for data in built[0].files.values():
        assert str(tmp_path).encode() not in data
        assert str(toolchain.NATIVE).encode() not in data


def test_the_signature_is_of_the_enclave(write: Write, key: RSAPrivateKey) -> None:
    settings = CompileSettings(name="m", version=7, product_id=3, debug=True)
    packed = TEE.compile(write("module.c", MAIN), settings, key).packed
    assert packed.signature is not None
    signed = Sigstruct.from_bytes(packed.signature)
    sigstruct.verify(signed)
    assert signed.enclavehash == sgxs.measure(packed.data) == TEE.measure(packed).value
    assert (signed.isvsvn, signed.isvprodid) == (7, 3)
    assert signed.flags & signed.flags_mask & 2


def test_every_setting_is_measured(write: Write, key: RSAPrivateKey) -> None:
    source = write("module.c", MAIN)
    other = write("other.c", "int other(void) { return 1; }")
    variants = [
        CompileSettings(name="m"),
        CompileSettings(name="m", debug=True),
        CompileSettings(name="m", heap_size=0x2000),
        CompileSettings(name="m", stack_size=0x2000),
        CompileSettings(name="m", threads=2),
        CompileSettings(name="m", files=(other,)),
    ]
    measurements = {TEE.measure(TEE.compile(source, v, key).packed).value for v in variants}
    assert len(measurements) == len(variants)


@pytest.mark.parametrize("name", ["zig", "clang", "gcc"])
@pytest.mark.parametrize(("source", "library"), [(MAIN, False), (BARE, False), (LIBRARY, True)])
def test_each_compiler_makes_what_the_converter_takes(
    write: Write, name: str, source: str, library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    finders = {"zig": toolchain._zig, "clang": toolchain._clang, "gcc": toolchain._gcc}
    if (tools := finders[name]("x86_64")) is None:
        pytest.skip(f"{name} is not installed")
    monkeypatch.setattr(compiling, "find", lambda target: tools)
    elf = compiling.compile_and_link([write("module.c", source)], library=library)
    checked = elf_rules.check(elf)
    assert {"sgx_entry", *elf_rules.MANDATORY, *elf_rules.EH_NEW} <= set(checked.symbols)
    options = convert.Options(heap_size=0x1000, stack_size=0x1000, library=library)
    enclave = sgxs.Sgxs.from_bytes(b"".join(convert.convert(elf, options)))
    assert all(page.flags & 6 != 6 for page in enclave.pages), "writable and executable"
    assert not any(b"\x0f\x05" in page.data for page in enclave.pages if page.flags & 4), (
        "a system call is left in the code"
    )


@pytest.mark.parametrize("name", ["zig", "clang", "gcc"])
def test_no_compiler_warns_of_the_kit(
    write: Write, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finders = {"zig": toolchain._zig, "clang": toolchain._clang, "gcc": toolchain._gcc}
    if (tools := finders[name]("x86_64")) is None:
        pytest.skip(f"{name} is not installed")
    strict = (*compiling.COMPILE, "-Wall", "-Wextra", "-Wshadow", "-Wpointer-arith", "-Werror")
    monkeypatch.setattr(compiling, "find", lambda target: tools)
    monkeypatch.setattr(compiling, "COMPILE", strict)
    for source, library in ((MAIN, False), (LIBRARY, True)):
        compiling.compile_and_link([write("module.c", source)], library=library)


def test_the_elf_file_as_a_program_says_that_it_is_none(write: Write, tmp_path: Path) -> None:
    """The ELF file, run by mistake, says so and ends."""
    elf = tmp_path / "module.elf"
    elf.write_bytes(compiling.compile_and_link([write("module.c", MAIN)], library=False))
    elf.chmod(0o755)
    done = subprocess.run([str(elf)], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"SGX enclave" in done.stderr


@pytest.mark.parametrize(
    ("source", "place", "message"),
    [
        ("int main(void) {\n  return missing;\n}\n", "module.c:2", "missing"),
        ("int main(void) {\n  return call();\n}\n", "module.c:2", "call"),
        ('#include "absent.h"\n', "module.c:1", "absent.h"),
        ("#include <stdio.h>\n", "module.c:1", "stdio.h"),
        ("int main(void) {\n  char *p = 5;\n  return *p;\n}\n", "module.c:2", "'char"),
        (
            '#include "broch.h"\nint main(int c, char **v) {\n  printf("%d", v);\n  return c;\n}\n',
            "module.c:3",
            "format",
        ),
    ],
    ids=["name", "function", "header", "libc", "conversion", "format"],
)
def test_a_wrong_source_names_its_line(write: Write, source: str, place: str, message: str) -> None:
    path = write("module.c", source)
    with pytest.raises(MalformedError) as caught:
        compiling.compile_and_link([path], library=False)
    assert caught.value.place == str(path.parent / place)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("source", "library", "message", "hint"),
    [
        (LIBRARY, False, "main", "--library"),
        (MAIN, True, "broch_call", "main"),
        (
            "char *getenv(const char *);\nint main(void) { return *getenv(0); }",
            False,
            "getenv",
            "libc",
        ),
        (
            MAIN + '\n__attribute__((constructor)) static void early(void) { puts(""); }',
            False,
            "constructors",
            "sgx_entry",
        ),
    ],
    ids=["no main", "no call", "libc", "constructor"],
)
def test_what_does_not_link(
    write: Write, source: str, library: bool, message: str, hint: str
) -> None:
    def make() -> None:
        elf_rules.check(compiling.compile_and_link([write("module.c", source)], library=library))

    with pytest.raises(MalformedError) as caught:
        make()
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_files_that_are_not_there(tmp_path: Path, write: Write) -> None:
    for sources in ([tmp_path / "absent.c"], [write("module.c", MAIN), tmp_path / "absent.c"]):
        with pytest.raises(UsageError, match="no such file"):
            compiling.compile_and_link(sources, library=False)


def test_several_files_of_the_same_name(write: Write) -> None:
    first = write("module.c", "int other(void);\nint main(void) { return other(); }")
    second = write("sub/module.c", "int other(void) { return 3; }")
    elf_rules.check(compiling.compile_and_link([first, second], library=False))


def test_a_build_needs_a_key(write: Write) -> None:
    with pytest.raises(UsageError, match="signing key"):
        TEE.compile(write("module.c", MAIN), CompileSettings(name="m"), None)


@pytest.mark.parametrize(
    "settings",
    [
        CompileSettings(name="m", heap_size=0x1001),
        CompileSettings(name="m", threads=0),
        CompileSettings(name="m", version=2**16),
    ],
)
def test_settings_that_sgx_does_not_have(
    write: Write, key: RSAPrivateKey, settings: CompileSettings
) -> None:
    with pytest.raises(UsageError):
        TEE.compile(write("module.c", MAIN), settings, key)
