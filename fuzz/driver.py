"""Run one target for a bounded time, or all of them.

    python -m fuzz.driver TARGET [--seconds N] [--seed N] [--engine atheris|mutate]
    python -m fuzz.driver all --seconds 60
    python -m fuzz.driver TARGET FILE...          run single inputs again, those of a failure

With atheris (a wheel on PyPI) coverage guides it; without, examples are bent at random, the same
way for the same seed. An input that fails is written to ``fuzz-failures/TARGET-DIGEST``.
"""

import argparse
import hashlib
import importlib.util
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, Final

MEMORY: Final = 2 << 30  # bytes that a process may have
HANG: Final = 10  # seconds for one input
MAX_SIZE: Final = 1 << 16  # bytes of an input
FAILURES: Final = Path("fuzz-failures")
_INTERESTING: Final = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0xFFF, 0x1000, 0x7FFF, 0xFFFF, 2**31 - 1)
_EDGES: Final = (2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 0x1000, 2**64 - 1)


class HangError(Exception):
    """One input took longer than :data:`HANG` seconds."""


def bend(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Change a few places of an example, as files come to be wrong."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(8):
            case 0 if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            case 1 | 2:
                width = rng.choice((1, 2, 4, 8))
                value = rng.choice(_INTERESTING + _EDGES) & ((1 << 8 * width) - 1)
                at -= at % width
                out[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
            case 3:
                del out[at:]
            case 4:
                del out[at : at + rng.randrange(1, 300)]
            case 5:
                out[at:at] = out[at : at + rng.randrange(1, 300)]
            case 6:
                out[at:at] = rng.randbytes(rng.randrange(1, 64))
            case _:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                out[at : at + 64] = other[start : start + 64]
    return bytes(out[:MAX_SIZE])


def check(run: Any, data: bytes) -> None:
    """Give one input to a target; only our errors may come back.

    Raises:
        HangError: it took too long.
        Exception: a defect.
    """
    from broch.errors import BrochError, InternalError

    def ring(_: int, frame: FrameType | None) -> None:
        raise HangError(f"longer than {HANG} s, in {frame}")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(HANG)
    try:
        run(data)
    except InternalError:
        raise
    except BrochError:
        pass
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def mutate(name: str, seconds: float, seed: int, *, runs: int | None = None) -> int:
    """Bend examples until the time is over, or so many times; how many inputs were tried.

    Raises:
        AssertionError: a defect; the message names the file with the input.
    """
    from fuzz.targets import TARGETS

    target, rng = TARGETS[name], random.Random(seed)
    seeds = target.seeds()
    for example in seeds:
        _check(name, target.run, example)
    until, done = time.monotonic() + seconds, 0
    while time.monotonic() < until if runs is None else done < runs:
        _check(name, target.run, bend(rng.choice(seeds), rng, seeds))
        done += 1
    return done


def _check(name: str, run: Any, data: bytes) -> None:
    try:
        check(run, data)
    except Exception as exc:
        FAILURES.mkdir(exist_ok=True)
        file = FAILURES / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}"
        file.write_bytes(data)
        traceback.print_exc()
        raise AssertionError(f"{name}: {type(exc).__name__}: {exc}; input in {file}") from exc


def guided(name: str, seconds: float, seed: int) -> None:
    """The same under atheris, which ends the process."""
    import tempfile

    import atheris

    with atheris.instrument_imports(include=["broch"]):
        from fuzz.targets import TARGETS
    target = TARGETS[name]
    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    for index, example in enumerate(target.seeds()):
        (corpus / str(index)).write_bytes(example)
    options = [
        f"-max_total_time={max(1, round(seconds))}",
        *(f"-max_len={MAX_SIZE}", f"-rss_limit_mb={MEMORY >> 20}", f"-seed={seed}"),
        *("-print_final_stats=1", str(corpus)),
    ]
    atheris.Setup([sys.argv[0], *options], lambda data: _check(name, target.run, bytes(data)))
    atheris.Fuzz()


def _again(name: str, files: list[Path]) -> None:
    from fuzz.targets import TARGETS

    for file in files:
        _check(name, TARGETS[name].run, file.read_bytes())
        print(f"{file}: no defect")


def _all(names: list[str], rest: list[str]) -> int:
    codes = [
        subprocess.run([sys.executable, "-m", "fuzz.driver", name, *rest], check=False).returncode
        for name in names
    ]
    return max(codes)


def main() -> int:
    """Parse arguments, run."""
    from fuzz import NAMES

    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=[*NAMES, "all"])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=["atheris", "mutate"])
    given = parser.parse_args()
    if given.target == "all":
        return _all(list(NAMES), sys.argv[2:])
    if given.files:
        _again(given.target, given.files)
        return 0
    has_atheris = importlib.util.find_spec("atheris") is not None
    if (given.engine or ("atheris" if has_atheris else "mutate")) == "atheris":
        guided(given.target, given.seconds, given.seed)
        return 0
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    done = mutate(given.target, given.seconds, given.seed)
    print(f"{given.target}: {done} inputs, no defect")
    return 0


if __name__ == "__main__":
    sys.exit(main())
