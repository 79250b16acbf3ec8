"""How much came over each connection: what agents say, and what the operator's ends know."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from broch.app.connecting import Connector, together
from broch.app.deployer import REKEY_AFTER, Deployer
from broch.app.journal import Journal
from broch.app.node_run import NodeRun
from broch.app.wiring import Connection
from broch.errors import BrochError

_SECONDS: Final = 0.5  # between two looks


class Counting:
    """Asks agents what they counted, and rekeys connections long before a counter could wrap.

    Agents are not believed in anything: a wrong count shows a wrong number, or rekeys too early. A
    module whose counter is used up stops sending by itself.
    """

    def __init__(self, deployer: Deployer, nodes: Mapping[str, NodeRun], journal: Journal) -> None:
        self._deployer = deployer
        self._nodes = nodes
        self._journal = journal
        self._counts: dict[str, dict[int, int]] = {}
        self._rekeyed_at: dict[int, int] = {}

    async def watch(self, connector: Connector) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(_SECONDS)
            await self.refresh()
            await self.rekey_used_up(connector)

    async def refresh(self) -> None:
        """Ask all agents now."""

        async def ask(run: NodeRun) -> None:
            try:
                self._counts[run.node.name] = await run.link.counts()
            except BrochError:
                return  # a node that is gone is told elsewhere

        await together(ask(run) for run in self._nodes.values())

    async def rekey_used_up(self, connector: Connector, after: int = REKEY_AFTER) -> None:
        """Give fresh keys to connections that had ``after`` messages under their last one."""
        for number in self._deployer.epochs:
            count = self.events(number)
            if count - self._rekeyed_at.get(number, 0) >= after:
                self._rekeyed_at[number] = count
                try:
                    await connector.connect([number], must="")
                except BrochError as exc:
                    self._journal.add("fault", None, f"connection {number} is not rekeyed: {exc}")

    def events(self, connection: int) -> int:
        """Messages of a connection, as far as known."""
        tally = self._deployer.ends.tallies.get(connection)
        if tally is not None:
            return tally.events
        return sum(counts.get(connection, 0) for counts in self._counts.values())

    def status(self, found: Connection) -> dict[str, Any]:
        """What is shown of a connection."""
        tally = self._deployer.ends.tallies.get(found.id)
        return {
            "id": found.id,
            "from": str(found.source),
            "to": str(found.target),
            "cipher": found.cipher,
            "epoch": self._deployer.epochs[found.id],
            "events": self.events(found.id),
            "gaps": self._journal.gaps[found.id] + (tally.gaps if tally else 0),
            "refused": self._journal.refusals[found.id] + (tally.refused if tally else 0),
        }
