"""Find a C compiler with its linker, and run them so that equal sources give equal bytes.

Looked for in this order: Zig from PyPI (``ziglang``, which is Clang and LLD in one wheel), Clang
with LLD, and for x86-64 also GCC with the linker beside it. Nothing in an output depends on where
or when it was built: no debug information, no name of the compiler, no absolute path, and a source
that asks for ``__DATE__`` or ``__TIME__`` is refused.

    tools = find("msp430")
    tools.compile(["-Os", "-c", "blink.c", "-o", "blink.o"], cwd=folder)
    tools.link(["-T", "memory.ld", "blink.o", "-o", "blink.elf"], cwd=folder)
"""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from broch.errors import MalformedError, UndecidedError, UsageError

Target = Literal["x86_64", "msp430"]
TARGETS: Final[tuple[Target, ...]] = ("x86_64", "msp430")

NATIVE: Final = Path(__file__).parents[1] / "native"  # C sources and headers that Broch brings
INCLUDE: Final = NATIVE / "include"
TIMEOUT: Final = 120.0  # seconds for one file
HINT: Final = "pip install 'broch[native]'"
_REPRODUCIBLE: Final = ("-g0", "-fno-ident", "-Werror=date-time")
# Linux, for its stack protector (a canary at FS:0x28, as GCC has it); nothing of its libc.
_CLANG_TARGETS: Final = {"x86_64": "x86_64-unknown-linux-gnu", "msp430": "msp430-none-elf"}
_ERROR: Final = re.compile(
    r"^(?P<file>[^\s:][^:\n]*):(?P<line>\d+):(?:\d+:)? (?:fatal )?error: (?P<text>.+)$", re.M
)
_OTHER: Final = re.compile(  # of a linker: LLD's, then GNU ld's
    r"^[^\n]*?(?:\berror: |: (?=undefined reference|multiple definition))(?P<text>.+)$", re.M
)
_MAX_TEXT: Final = 500  # characters of what a compiler says


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """A compiler and a linker for one target."""

    name: str  # zig, clang, gcc
    target: Target
    compiler: tuple[str, ...]
    linker: tuple[str, ...]

    def compile(self, arguments: Sequence[str], *, cwd: Path) -> None:
        """Run the C compiler in ``cwd``; name sources relative to it, and only absolute outputs.

        With ``-c`` and several sources, each object gets its source's name and lies in ``cwd``.

        Raises:
            MalformedError: the source has an error; the place is ``file:line``.
            UndecidedError: it took longer than :data:`TIMEOUT` seconds.
        """
        maps = (f"-ffile-prefix-map={cwd}=.", f"-ffile-prefix-map={NATIVE}=broch")
        self._run([*self.compiler, *_REPRODUCIBLE, *maps, *arguments], cwd)

    def compile_module(self, flags: Sequence[str], source: Path, target: Path) -> None:
        """Compile an author's source, so that no path of this machine gets into the object.

        Raises:
            MalformedError: the source has an error; the place is ``file:line``, seen from here.
            UndecidedError: it took longer than :data:`TIMEOUT` seconds.
        """
        arguments = [*flags, "-c", source.name, "-o", str(target)]
        try:
            self.compile(arguments, cwd=source.resolve().parent)
        except MalformedError as exc:
            if exc.place is not None and not Path(exc.place).is_absolute():
                exc.place = str(source.parent / exc.place)
            raise

    def link(self, arguments: Sequence[str], *, cwd: Path) -> None:
        """Run the linker (``ld``, with its own options) in ``cwd``.

        Raises:
            MalformedError: a symbol is missing or given twice, or a section does not fit.
            UndecidedError: it took longer than :data:`TIMEOUT` seconds.
        """
        self._run([*self.linker, "--build-id=none", *arguments], cwd)

    def _run(self, command: Sequence[str], cwd: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="broch-cc-") as scratch:
            try:
                done = subprocess.run(
                    command,
                    cwd=cwd,
                    env=_environment(scratch),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=TIMEOUT,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                text = f"{self.name} took longer than {TIMEOUT:.0f} s"
                raise UndecidedError(text, place=str(cwd)) from None
            except OSError as exc:
                text = f"{command[0]} does not run: {exc.strerror}"
                raise UsageError(text, hint=HINT) from None
        if done.returncode:
            raise _complaint(self.name, done.stderr.decode(errors="replace"), done.returncode)


def find(target: Target) -> Toolchain:
    """The first toolchain for ``target`` that is installed.

    Raises:
        UsageError: there is none.
    """
    tools = _zig(target) or _clang(target) or _gcc(target)
    if tools is None:
        wanted = "ziglang, clang or gcc" if target == "x86_64" else "ziglang or clang"
        raise UsageError(f"no C compiler for {target}: expected {wanted}", hint=HINT)
    return tools


def _zig(target: Target) -> Toolchain | None:
    spec = importlib.util.find_spec("ziglang")
    if spec is None or not spec.submodule_search_locations:
        return None
    # The program itself, not `python -m ziglang`, which would first look in the current folder.
    zig = Path(spec.submodule_search_locations[0]) / ("zig.exe" if os.name == "nt" else "zig")
    if not zig.is_file():
        return None
    # `zig clang` is Clang as it is: `zig cc` adds the options of a debug build, refuses stack
    # protection where there is no libc, and takes one source at a time.
    headers = ("-nostdinc", "-isystem", str(zig.parent / "lib" / "include"))
    return Toolchain(
        name="zig",
        target=target,
        compiler=(str(zig), "clang", f"--target={_CLANG_TARGETS[target]}", *headers),
        linker=(str(zig), "ld.lld"),
    )


def _clang(target: Target) -> Toolchain | None:
    clang = shutil.which("clang")
    linker = shutil.which("ld.lld") or (shutil.which("ld") if target == "x86_64" else None)
    if clang is None or linker is None:
        return None
    compiler = (clang, f"--target={_CLANG_TARGETS[target]}", "-nostdlibinc")
    return Toolchain(name="clang", target=target, compiler=compiler, linker=(linker,))


def _gcc(target: Target) -> Toolchain | None:
    if target != "x86_64" or platform.machine() not in ("x86_64", "AMD64"):
        return None
    gcc, linker = shutil.which("gcc"), shutil.which("ld") or shutil.which("ld.lld")
    if gcc is None or linker is None:
        return None
    return Toolchain(name="gcc", target=target, compiler=(gcc,), linker=(linker,))


def _environment(scratch: str) -> dict[str, str]:
    """What a compiler is told: where to look for its parts, and nothing that changes its output."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "SystemRoot") if key in os.environ}
    caches = dict.fromkeys(("ZIG_LOCAL_CACHE_DIR", "ZIG_GLOBAL_CACHE_DIR", "TMPDIR"), scratch)
    return {**kept, **caches, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0", "ZERO_AR_DATE": "1"}


def _complaint(name: str, text: str, code: int) -> MalformedError:
    """The first error of what a compiler said."""
    if found := _ERROR.search(text):
        place = f"{found['file']}:{found['line']}"
        return MalformedError(found["text"][:_MAX_TEXT], place=place)
    if found := _OTHER.search(text):
        return MalformedError(found["text"][:_MAX_TEXT], place=name)
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return MalformedError(f"ended with {code}: {first[:_MAX_TEXT] or 'no message'}", place=name)
