"""One launcher for all tests; nodes and rings end with the test that asked for them."""

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broch.enclave import ring as ring_module
from broch.enclave.launcher import Launcher
from broch.enclave.ring import RING_SIZE, make_ring, open_ring

from .harness import AGENT, Kit, Node, gone
from .rings import Pair


@pytest.fixture(scope="session")
def pycache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pycache", numbered=True)


@pytest.fixture(scope="session")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages in which launchers find the agent of these tests."""
    packages = tmp_path_factory.mktemp("host") / "site-packages"
    packages.mkdir()
    (packages / "broch_test_agent.py").write_text(AGENT)
    return packages


@pytest.fixture(scope="session")
def kit(pycache: Path, agents: Path) -> Iterator[Kit]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(agents))
        launcher = Launcher.start(pycache)
    with contextlib.closing(launcher):
        yield Kit(launcher, Ed25519PrivateKey.generate())


@pytest.fixture
def make_node(kit: Kit, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Nodes of a test's own, which it may wreck."""
    with contextlib.ExitStack() as stack:

        def make(tee: str = "keystone", folder: Path | None = None) -> Node:
            node = Node(kit, folder or tmp_path / f"device-{tee}", tee)
            stack.callback(node.close)
            return node

        yield make


@pytest.fixture(scope="module")
def module_node(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with contextlib.closing(Node(kit, tmp_path_factory.mktemp("device"))) as node:
        yield node


@pytest.fixture
def node(module_node: Node) -> Iterator[Node]:
    """A node that a module's tests share; it is empty, and must outlive them all."""
    yield module_node
    module_node.clear()
    assert not gone(module_node.pidfd, 0), "the test ended the machine"


@pytest.fixture
def make_pair() -> Iterator[Callable[[], Pair]]:
    made: list[Pair] = []

    def make() -> Pair:
        memory, to_host, to_enclave = make_ring()
        raw = mmap.mmap(memory, RING_SIZE)
        host = open_ring(os.dup(memory), os.dup(to_host), os.dup(to_enclave), host=True)
        enclave = open_ring(memory, os.dup(to_host), os.dup(to_enclave), host=False)
        made.append(Pair(host, enclave, raw, to_host, to_enclave))
        return made[-1]

    yield make
    for pair in made:
        pair.host.close()
        pair.enclave.close()
        pair.raw.close()
        os.close(pair.to_host)
        os.close(pair.to_enclave)


@pytest.fixture(params=[True, False], ids=["membarrier", "locks"])
def pair(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    make_pair: Callable[[], Pair],
) -> Pair:
    """Both ways to order memory: that of x86-64, and that of other processors."""
    if not request.param:
        monkeypatch.setattr(ring_module, "_ORDERED_STORES", False)
    return make_pair()


@pytest.fixture
def plain(make_pair: Callable[[], Pair]) -> Pair:
    return make_pair()
