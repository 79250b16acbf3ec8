"""What goes into an image, under which path, and where errors point."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.app.build import build, read_sources
from broch.app.descriptor import Descriptor, load
from broch.errors import MalformedError, UsageError
from broch.image import Image, Interface, Port, PortKind
from broch.sdk import DeclarationError
from broch.tee.contract import Tee
from broch.tee.keystone.measurement import Triple

APP = """
[app]
name = "demo"
[nodes.n]
tee = "keystone"
device = "emulated"
[modules.one]
node = "n"
source = "modules/one.py"
files = ["modules/helper.py", "data/table.csv"]
[modules.two]
node = "n"
source = "modules/two"
"""


class FakeDeclarer:
    """Finds the same interface everywhere, or fails where it is told to."""

    runtime = bytes(range(32))

    def __init__(self, failing: str = "") -> None:
        self.failing = failing

    def declare(self, files: Mapping[str, bytes], main: str) -> Interface:
        if self.failing in files:
            raise DeclarationError("wrong", place=f"{self.failing}:3", hint="mend it")
        return Interface((Port(kind=PortKind.EVERY, name="tick", seconds=1.0),))


def no_key(tee: Tee) -> RSAPrivateKey | None:
    return None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "app.toml": APP,
        "modules/one.py": "1",
        "modules/helper.py": "2",
        "data/table.csv": "3",
        "modules/two/__init__.py": "4",
        "modules/two/inner/deep.py": "5",
        "modules/two/__pycache__/x.pyc": "no",
        "modules/two/.hidden": "no",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def descriptor(folder: Path) -> Descriptor:
    return load(folder / "app.toml")


def test_paths_in_an_image_do_not_depend_on_where_the_app_lies(descriptor: Descriptor) -> None:
    one = read_sources(descriptor.modules["one"], descriptor.folder)
    assert one.main == "one.py"
    assert one.files == {"one.py": b"1", "helper.py": b"2", "data/table.csv": b"3"}
    two = read_sources(descriptor.modules["two"], descriptor.folder)
    assert two.main == "__init__.py"
    assert two.files == {"__init__.py": b"4", "inner/deep.py": b"5"}
    assert two.real["inner/deep.py"] == "modules/two/inner/deep.py"


def test_build_is_reproducible(descriptor: Descriptor) -> None:
    told: list[str] = []
    builds = [
        build(
            descriptor,
            declarer=FakeDeclarer(),
            deployer=bytes(32),
            signing_key=no_key,
            on_built=told.append,
        )
        for _ in range(2)
    ]
    assert sorted(told) == ["one", "one", "two", "two"]
    for name in ("one", "two"):
        first, second = builds[0][name], builds[1][name]
        assert first.packed == second.packed
        assert first.measurement == second.measurement
        image = Triple.from_bytes(first.packed.data).eapp
        assert Image.from_bytes(image).runtime == FakeDeclarer.runtime
    assert builds[0]["one"].measurement != builds[0]["two"].measurement


@pytest.mark.parametrize(
    ("failing", "place"),
    [
        ("one.py", "modules/one.py:3"),
        ("helper.py", "modules/helper.py:3"),
        ("inner/deep.py", "modules/two/inner/deep.py:3"),
    ],
)
def test_errors_point_to_the_real_file(descriptor: Descriptor, failing: str, place: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        build(
            descriptor,
            declarer=FakeDeclarer(failing),
            deployer=bytes(32),
            signing_key=no_key,
        )
    assert str(caught.value) == f"{place}: wrong"
    assert caught.value.hint == "mend it"


def test_a_file_that_went_away(descriptor: Descriptor, folder: Path) -> None:
    (folder / "modules" / "one.py").unlink()
    with pytest.raises(UsageError) as caught:
        build(descriptor, declarer=FakeDeclarer(), deployer=bytes(32), signing_key=no_key)
    assert caught.value.place == "modules/one.py"


def test_a_rule_of_images_names_the_module(descriptor: Descriptor, folder: Path) -> None:
    for number in range(1100):
        (folder / "modules" / "two" / f"m{number}.py").write_text("")
    with pytest.raises(MalformedError, match="1102 files") as caught:
        build(descriptor, declarer=FakeDeclarer(), deployer=bytes(32), signing_key=no_key)
    assert caught.value.place == "app.toml:11"


def test_a_store_belongs_to_what_can_open_it(descriptor: Descriptor) -> None:
    built = build(descriptor, declarer=FakeDeclarer(), deployer=bytes(32), signing_key=no_key)
    one = built["one"]
    assert one.store_name == f"one.{one.measurement.value.hex()[:16]}.store"


def test_a_module_in_c_on_a_tee_that_runs_none(folder: Path) -> None:
    (folder / "modules/one.c").write_text("")
    (folder / "app.toml").write_text(APP.replace("one.py", "one.c"))
    with pytest.raises(UsageError, match="keystone runs no modules in C") as caught:
        build(
            load(folder / "app.toml", tees=("keystone",)),
            declarer=FakeDeclarer(),
            deployer=bytes(32),
            signing_key=no_key,
        )
    assert caught.value.place == "app.toml:9"
