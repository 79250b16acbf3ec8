"""Handing out connection keys to enclaves that were attested, through agents that route."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from broch.app.agent_messages import Place, Route
from broch.app.deployer import Deployer, portions
from broch.app.descriptor import Operator
from broch.app.module_run import ModuleFailedError, ModuleRun
from broch.app.node_run import NodeRun
from broch.app.wiring import Connection as Wire
from broch.app.wiring import End
from broch.enclave.join import Connection

_T = TypeVar("_T")


class Connector:
    """Gives connections fresh keys, one change at a time."""

    def __init__(
        self,
        deployer: Deployer,
        modules: Mapping[str, ModuleRun],
        nodes: Mapping[str, NodeRun],
    ) -> None:
        self._deployer = deployer
        self._modules = modules
        self._nodes = nodes
        self._lock = asyncio.Lock()

    async def connect(self, connections: Sequence[int], *, must: str | None = None) -> None:
        """Rekey these connections: routes, then receivers, then senders, then the operator.

        Ends in modules that are not running are left out: they are connected when they come back.

        Args:
            connections: their ids.
            must: the module whose failure is the caller's; None if every module's is.

        Raises:
            UntrustedError: a module did not confirm its keys.
            ModuleFailedError: it ended meanwhile.
        """
        async with self._lock:
            rekeying = self._deployer.rekey(connections)
            await self._route([self._deployer.wire(number) for number in connections])
            for grants in (rekeying.receivers, rekeying.senders):
                await together(
                    self._grant(module, granted, must) for module, granted in grants.items()
                )
            for granted in rekeying.operator:
                self._deployer.ends.take(granted)

    async def _grant(self, module: str, granted: list[Connection], must: str | None) -> None:
        run = self._modules[module]
        if not run.is_joined:
            return
        assert run.admission is not None
        try:
            for part in portions(granted):
                await run.grant(run.admission.grant(part))
        except ModuleFailedError:
            if must in (None, module):
                raise

    async def _route(self, wires: Sequence[Wire]) -> None:
        routes: dict[str, list[Route]] = {}
        for wire in wires:
            for node in {self._node(wire.source), self._node(wire.target)} - {None}:
                assert node is not None
                routes.setdefault(node, []).append(
                    Route(
                        connection=wire.id,
                        epoch=self._deployer.epochs[wire.id],
                        source=self._place(wire.source, node),
                        target=self._place(wire.target, node),
                    )
                )
        await together(
            self._nodes[node].link.route(found, self._peers(found))
            for node, found in routes.items()
        )

    def _node(self, end: End | Operator) -> str | None:
        return self._modules[end.module].node.node.name if isinstance(end, End) else None

    def _place(self, end: End | Operator, seen_from: str) -> Place:
        if not isinstance(end, End):
            return None
        node = self._node(end)
        return self._modules[end.module].handle if node == seen_from else node

    def _peers(self, routes: Sequence[Route]) -> dict[str, tuple[str, int]]:
        names = {place for r in routes for place in (r.source, r.target) if isinstance(place, str)}
        return {name: self._nodes[name].address for name in names}


async def together(work: Iterable[Awaitable[_T]]) -> list[_T]:
    """Await all at once; the first failure cancels the others and is raised."""
    tasks: list[asyncio.Future[_T]] = []
    try:
        for item in work:  # which may fail to begin when others have begun
            tasks.append(asyncio.ensure_future(item))
        if not tasks:
            return []
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed: list[asyncio.Future[Any]] = [t for t in tasks if t.done() and t.exception()]
        for task in failed:
            task.result()
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
