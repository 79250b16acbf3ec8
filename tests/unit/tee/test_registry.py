"""TEEs found through entry points, those of other packages too."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broch.errors import InternalError, UsageError
from broch.tee import registry

Install = Callable[..., None]


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    forget()
    yield
    forget()


def forget() -> None:
    registry.names.cache_clear()
    registry.find.cache_clear()
    registry.verifier_names.cache_clear()
    registry.find_verifier.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package of someone else's: its code, and what it declares."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name: str, value: str, group: str = "broch.tees", **files: str) -> None:
        info = tmp_path / f"{name}_tee-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-tee\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
        for module, code in files.items():
            (tmp_path / f"{module}.py").write_text(code)

    return install


def test_ours_are_installed() -> None:
    assert {"sgx", "trustzone", "keystone"} <= set(registry.names())
    assert list(registry.names()) == sorted(registry.names())


@pytest.mark.parametrize("name", ["sgx", "trustzone", "keystone"])
def test_ours_are_found_by_their_names(name: str) -> None:
    tee = registry.find(name)
    assert tee.name == name
    assert tee is registry.find(name)
    assert tee.seal_bindings
    assert tee.report_data_size >= 32


def test_another_package_adds_a_tee(install: Install) -> None:
    install("abacus", "broch_abacus:TEE", broch_abacus="class TEE: name = 'abacus'\n")
    assert "abacus" in registry.names()
    assert registry.find("abacus").name == "abacus"


def test_every_tee_is_a_verifier_and_there_are_more() -> None:
    assert {*registry.names(), "tdx", "snp", "nitro", "psa", "cca", "tpm"} <= set(
        registry.verifier_names()
    )
    for name in registry.verifier_names():
        assert registry.find_verifier(name).name == name
    assert registry.find_verifier("sgx") is registry.find("sgx")


def test_another_package_adds_a_verifier(install: Install) -> None:
    code = "class VERIFIER: name = 'abacus'\n"
    install("abacus", "broch_abacus_v:VERIFIER", group="broch.verifiers", broch_abacus_v=code)
    assert "abacus" not in registry.names()
    assert registry.find_verifier("abacus").name == "abacus"


def test_an_unknown_verifier_is_a_wrong_call() -> None:
    with pytest.raises(UsageError, match="unknown verifier 'abacus'") as caught:
        registry.find_verifier("abacus")
    assert caught.value.hint == f"installed verifiers: {', '.join(registry.verifier_names())}"


def test_an_unknown_tee_is_a_wrong_call() -> None:
    with pytest.raises(UsageError, match="unknown TEE 'abacus'") as caught:
        registry.find("abacus")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("installed TEEs: ")
    assert "keystone" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "code"),
    [
        pytest.param("broch_nowhere:TEE", "", id="no such module"),
        pytest.param("broch_broken1:TEE", "", id="no such attribute"),
        pytest.param("broch_broken2:TEE", "import broch_nowhere\n", id="missing dependency"),
    ],
)
def test_a_tee_that_does_not_load(install: Install, value: str, code: str) -> None:
    install("broken", value, **{value.split(":")[0]: code} if "nowhere:" not in value else {})
    with pytest.raises(InternalError, match="TEE broken does not load"):
        registry.find("broken")


@pytest.mark.parametrize(
    ("code", "held"),
    [
        pytest.param("class TEE: name = 'sgx'\n", "sgx", id="another name"),
        pytest.param("TEE = 5\n", "None", id="no TEE at all"),
    ],
)
def test_a_tee_answers_to_its_name(install: Install, code: str, held: str) -> None:
    module = f"broch_liar_{held.lower()}"
    install("liar", f"{module}:TEE", **{module: code})
    with pytest.raises(InternalError, match=f"entry point liar holds the TEE {held}"):
        registry.find("liar")
