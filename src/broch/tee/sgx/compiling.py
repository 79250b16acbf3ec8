"""Modules in C: compiled with Broch's start file, linked, converted and signed.

The result depends on the sources, the settings and the compiler alone, so who has the same of each
gets the same MRENCLAVE. The start file and the functions that modules call are C and assembly too,
in ``broch/native``: they are compiled with the module, not taken from a library.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.errors import BrochError, MalformedError, UsageError
from broch.image.toolchain import INCLUDE, NATIVE, Toolchain, find
from broch.tee.contract import Compiled, CompileSettings, Packed
from broch.tee.sgx import convert, sgxs, sigstruct

HEAP_SIZE: Final = 0x100000  # bytes
STACK_SIZE: Final = 0x20000  # bytes, of a thread
KIT: Final = NATIVE / "sgx"
EXPORTS: Final = "export.list"
# What a module is compiled with. Its own pages never hold code that it wrote itself, no register
# beyond SSE is used (XFRM 3), and what C only warns of, an enclave refuses.
COMPILE: Final = (
    *("-std=c11", "-O2", "-ffreestanding", "-fPIE", "-fvisibility=hidden", "-fno-common"),
    *("-march=x86-64", "-fcf-protection=none", "-fasynchronous-unwind-tables"),
    *("-fstack-protector-strong", "-ffunction-sections", "-fdata-sections"),
    *("-Werror=implicit-function-declaration", "-Werror=implicit-int", "-Werror=return-type"),
    *("-Werror=incompatible-pointer-types", "-Werror=int-conversion", "-Werror=format"),
)
# What makes an ELF file that the converter takes (docs/sgx-images.md).
LINK: Final = (
    *("-pie", "--no-dynamic-linker", "-Bstatic", "-e", "elf_entry", "-u", "sgx_entry"),
    *("-z", "text", "-z", "norelro", "-z", "separate-code", "-z", "noexecstack"),
    *("-z", "max-page-size=4096", "--eh-frame-hdr", "--hash-style=sysv", "--gc-sections"),
    *("--fatal-warnings", "--dynamic-list", EXPORTS),
)
_NO_LIBC: Final = (
    "there is no libc in an enclave: broch/sgx.h says which functions there are; further C files "
    "are named with --file"
)
_NO_MAIN: Final = "an executable enclave has int main(int argc, char **argv); one that its host "
_NO_CALL: Final = "a library enclave has int32_t broch_call(uint32_t number, const void *data, "


def build(source: Path, settings: CompileSettings, signing_key: RSAPrivateKey | None) -> Compiled:
    """Build a module: the ELF file, the enclave, and its SIGSTRUCT.

    Raises:
        MalformedError: the source does not compile or link; the place is ``file:line``.
        UsageError: no compiler, no such file, no key, or a size that is not whole pages.
    """
    if signing_key is None:
        raise UsageError("SGX images must be signed, and no signing key was given")
    options = convert.Options(
        heap_size=HEAP_SIZE if settings.heap_size is None else settings.heap_size,
        stack_size=STACK_SIZE if settings.stack_size is None else settings.stack_size,
        threads=1 if settings.threads is None else settings.threads,
        debug=settings.debug,
        library=settings.library,
    )
    elf = compile_and_link((source, *settings.files), library=settings.library)
    data = b"".join(convert.convert(elf, options))
    unsigned = sigstruct.template(
        sgxs.measure(data),
        isvprodid=settings.product_id,
        isvsvn=settings.version,
        debug=settings.debug,
    )
    signature = sigstruct.sign(unsigned, signing_key).to_bytes()
    return Compiled(
        packed=Packed(tee="sgx", data=data, signature=signature),
        files={".elf": elf, ".sgxs": data, ".sig": signature},
    )


def compile_and_link(sources: Sequence[Path], *, library: bool) -> bytes:
    """The ELF file of a module, for :func:`broch.tee.sgx.convert.convert`.

    Raises:
        MalformedError: it does not compile or link; the place is ``file:line``.
        UsageError: there is no compiler, or no such file.
    """
    for source in sources:
        if not source.is_file():
            raise UsageError("there is no such file", place=str(source))
    tools = find("x86_64")
    flags = [*COMPILE, *(["-DBROCH_LIBRARY"] if library else []), "-I", str(INCLUDE)]
    with tempfile.TemporaryDirectory(prefix="broch-native-") as name:
        folder = Path(name)
        objects = _compile_kit(tools, flags, folder)
        for index, source in enumerate(sources):
            objects.append(f"module{index}.o")
            tools.compile_module(flags, source, folder / objects[-1])
        try:
            tools.link([*LINK, *objects, "-o", "module.elf"], cwd=folder)
        except MalformedError as exc:
            raise _unlinked(exc, sources[0], library) from None
        return (folder / "module.elf").read_bytes()


def _compile_kit(tools: Toolchain, flags: Sequence[str], folder: Path) -> list[str]:
    """Compile what comes with Broch; in a copy, for objects lie beside their sources."""
    for file in sorted(KIT.iterdir()):
        if file.suffix in (".c", ".S", ".h", ".list"):
            shutil.copyfile(file, folder / file.name)
    names = sorted(file.name for file in folder.iterdir() if file.suffix in (".c", ".S"))
    tools.compile([*flags, "-c", *names], cwd=folder)
    return [f"{name.rpartition('.')[0]}.o" for name in names]


def _unlinked(error: BrochError, source: Path, library: bool) -> MalformedError:
    hint = _NO_LIBC
    if library and "broch_call" in error.message:
        hint = f"{_NO_CALL}size_t size); one that is run has main, and no --library"
    elif not library and "main" in error.message.split():
        hint = f"{_NO_MAIN}calls has broch_call, and --library"
    return MalformedError(error.message, place=str(source), hint=hint)
