"""The fuzzers: that they can find something, and a bounded run of each.

A longer run: ``python -m fuzz.driver all --seconds 600``.
"""

import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import NAMES, driver
from fuzz.driver import HangError, bend, check
from fuzz.targets import TARGETS

from broch.errors import BrochError, DecodeError, InternalError

ROOT = Path(__file__).parents[2]
SECONDS = 10


def test_every_target_has_its_name() -> None:
    assert tuple(TARGETS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_target_takes_an_example(name: str) -> None:
    """Without one that is valid, a fuzzer would never get past the first check."""
    target = TARGETS[name]
    accepted = 0
    for example in target.seeds():
        try:
            target.run(example)
            accepted += 1
        except BrochError:
            continue
    assert accepted


@pytest.mark.parametrize("name", NAMES)
def test_a_few_hundred_bent_examples(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "FAILURES", tmp_path)
    assert driver.mutate(name, 0, seed=7, runs=40 if name == "pem" else 200)


def test_defects_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "FAILURES", tmp_path)

    def broken(data: bytes) -> None:
        if data[:1] != b"E":
            raise DecodeError(0, "not mine")
        raise IndexError("a defect")

    driver._check("broken", broken, b"fine")
    with pytest.raises(AssertionError, match="IndexError"):
        driver._check("broken", broken, b"ECREATE")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"ECREATE"]


def test_internal_errors_and_hangs_are_defects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "HANG", 1)

    def internal(data: bytes) -> None:
        raise InternalError("ours")

    def hang(data: bytes) -> None:
        while True:
            pass

    with pytest.raises(InternalError):
        check(internal, b"")
    with pytest.raises(HangError):
        check(hang, b"")


def test_bending_is_the_same_for_the_same_seed() -> None:
    examples = [bytes(range(256)), b"other" * 40]
    runs = [
        [bend(examples[0], rng, examples) for _ in range(200)]
        for rng in (random.Random(3), random.Random(3))
    ]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 190


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_bounded_run(name: str, tmp_path: Path) -> None:
    """As CI runs it: with atheris where it is installed, else with bent examples."""
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.driver", name, "--seconds", str(SECONDS)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=SECONDS * 10,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    if importlib.util.find_spec("atheris") is None:
        assert "no defect" in done.stdout
    else:
        assert "stat::number_of_executed_units" in done.stderr
