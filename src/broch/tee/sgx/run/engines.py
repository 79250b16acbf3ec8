"""Which engine runs an enclave."""

from collections.abc import Callable, Sequence
from typing import Final

from broch.cpu.x86_64 import Engine, Region
from broch.errors import UndecidedError, UsageError

ENGINES: Final = ("native", "unicorn")
Maker = Callable[[Sequence[Region], int], Engine]
_OTHER_HINT: Final = "--engine unicorn runs anywhere, after pip install 'broch[emulate]'"
_UNICORN_HINT: Final = "pip install 'broch[emulate]' gives the unicorn engine, which runs anywhere"


def choose(wanted: str | None = None, *, sgx2: bool = False) -> Maker:
    """Something that makes an engine: the one that is wanted, or the quickest there is.

    Args:
        wanted: "native", "unicorn", or None.
        sgx2: RDTSC is allowed.

    Raises:
        UsageError: there is no such engine.
        UndecidedError: it is not to be had on this machine.
    """
    if wanted not in (None, *ENGINES):
        raise UsageError(f"no such engine: {wanted!r}", hint=f"one of {', '.join(ENGINES)}")
    if wanted == "unicorn":
        return _unicorn(sgx2)
    from broch.cpu import native

    problem = native.missing()
    if problem is None:
        return _native(sgx2)
    if wanted == "native":
        raise UndecidedError(f"the native engine is not to be had: {problem}", hint=_OTHER_HINT)
    try:
        return _unicorn(sgx2)
    except UndecidedError as exc:
        raise UndecidedError(
            f"no engine for x86-64 code: native: {problem}; {exc.message}", hint=exc.hint
        ) from None


def _native(sgx2: bool) -> Maker:
    from broch.cpu.native.engine import NativeEngine

    def make(regions: Sequence[Region], threads: int) -> Engine:
        return NativeEngine(regions, threads, forbid_tsc=not sgx2)

    return make


def _unicorn(sgx2: bool) -> Maker:
    from broch.cpu import unicorn_x86

    if not unicorn_x86.is_installed():
        raise UndecidedError("unicorn: not installed", hint=_UNICORN_HINT)

    def make(regions: Sequence[Region], threads: int) -> Engine:
        return unicorn_x86.UnicornEngine(regions, threads, forbid_tsc=not sgx2)

    return make
