"""One launcher for all tests; nodes end with the test that asked for them."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broch.enclave.launcher import Launcher

from .harness import AGENT, Kit, Node, gone


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
