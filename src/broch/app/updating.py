"""Puts new code in the place of one running module; the rest of the application goes on.

    built, wired, state functions looked at      nothing is touched yet
    new loaded beside old, attested
    old --STATE--> new                           if both declare how; old has no keys any more
    swap: fresh keys for all its connections     from here on a failure is the new one's
    old ends, once it has answered its calls

A failure before the swap leaves the old module as it was: it gets fresh keys if it has given up
its own, and if that fails too it is ended, and its restart rule decides. What was begun over its
connections fails like at a restart. Sealed stores are not touched: a new version has the store that
its TEE lets it open.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from broch.app.build import Built, ciphers, interfaces
from broch.app.connecting import Connector
from broch.app.deployer import Deployer
from broch.app.descriptor import Descriptor, load
from broch.app.journal import Journal
from broch.app.keyed import cannot_update
from broch.app.module_run import ModuleRun
from broch.app.wiring import Wiring, wire
from broch.enclave.launcher import StateFunctions
from broch.enclave.messages import Kind
from broch.errors import BrochError, UndecidedError, UsageError
from broch.tee.hosting import SharedKeyTee

_GRACE: Final = 1.0  # seconds for the old enclave's end, on top of the limit of one call
_SHOWN: Final = 16  # hexadecimal digits of a measurement in text
_SECTIONS: Final = ("app", "nodes", "modules", "connections", "run", "policy", "report")


class LiveDeployer(Deployer):
    """A deployer whose connections may change their types while it runs, and nothing else."""

    def rewire(self, wiring: Wiring) -> None:
        """Take what the same descriptor gives with other interfaces; keys and epochs stay."""
        self._wires = {wire.id: wire for wire in wiring.connections}


class Examiner(Protocol):
    """What finds out how a module hands over state (:class:`broch.enclave.launcher.Launcher`)."""

    def state_functions(self, files: Mapping[str, bytes], main: str) -> StateFunctions: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Updated:
    """What an update did."""

    module: str
    before: str  # measurement (hex)
    after: str  # the same if the running module is up to date: then nothing was done
    state: bool  # whether state was handed over

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "module": self.module,
            "updated": self.before != self.after,
            "from": self.before,
            "to": self.after,
            "state": self.state,
        }


class Updater:
    """Updates modules of one running application, one at a time.

    Args:
        descriptor: the application as it runs.
        modules: what runs; the successor is put in here.
        deployer: knows the connections.
        connector: hands out their keys.
        examiner: looks at modules' code.
        journal: is told.
        build: builds all modules of a descriptor.
        join: loads a module into a new enclave and attests it.
        keep: keeps a module alive by its restart rule from now on.
        begin: lets a module that is connected run.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        modules: dict[str, ModuleRun],
        deployer: LiveDeployer,
        connector: Connector,
        *,
        examiner: Examiner,
        journal: Journal,
        build: Callable[[Descriptor], dict[str, Built]],
        join: Callable[[ModuleRun], Awaitable[None]],
        keep: Callable[[ModuleRun], object],
        begin: Callable[[ModuleRun], None],
    ) -> None:
        self.descriptor = descriptor
        self._modules = modules
        self._deployer = deployer
        self._connector = connector
        self._examiner = examiner
        self._journal = journal
        self._build = build
        self._join = join
        self._keep = keep
        self._begin = begin
        self._lock = asyncio.Lock()

    async def update(self, module: str) -> Updated:
        """Replace a running module by what its source says now.

        Raises:
            UsageError: the descriptor changed in more than modules' files, or only one of the two
                versions declares how to hand over state.
            DeclarationError: the new code is wrong.
            MalformedError: its interface does not fit the descriptor.
            UndecidedError: the module is not running now.
            BrochError: the new module failed; the old one goes on running.
        """
        async with self._lock:
            old = self._modules[module]
            _check_runs(old)
            if isinstance(old.built.tee, SharedKeyTee):
                raise cannot_update(module)
            descriptor = await asyncio.to_thread(reread, self.descriptor, module)
            built = await asyncio.to_thread(self._build_one, descriptor, module)
            before, after = (b.measurement.value.hex() for b in (old.built, built))
            if old.built.measurement == built.measurement:
                return Updated(module=module, before=before, after=after, state=False)
            running = {name: run.built for name, run in self._modules.items()}
            all_built = {**running, module: built}
            wiring = wire(descriptor, interfaces(all_built), speaks=ciphers(all_built))
            has_state = await asyncio.to_thread(self._hands_over, old.built, built)
            new = ModuleRun(built, old.node, self._journal)
            async with old.changing:
                _check_runs(old)
                await self._prepare(old, new, has_state=has_state)
                self.descriptor = descriptor
                await self._swap(old, new, wiring)
            return Updated(module=module, before=before, after=after, state=has_state)

    def _build_one(self, descriptor: Descriptor, module: str) -> Built:
        alone = replace(descriptor, modules={module: descriptor.modules[module]})
        return self._build(alone)[module]

    def _hands_over(self, old: Built, new: Built) -> bool:
        """Whether state is handed over; raises :class:`UsageError` if one side alone would."""
        first, second = (
            self._examiner.state_functions(b.sources.files, b.sources.main) for b in (old, new)
        )
        if first.exports == second.imports:
            return first.exports
        place = new.sources.real[new.sources.main]
        if first.exports:
            raise UsageError(
                f"module {new.spec.name} exports its state, and the new code does not import it",
                place=place,
                hint="declare @module.import_state in it; broch down and up drop the state",
            )
        raise UsageError(
            f"the new code of module {new.spec.name} imports state, and the one that runs "
            "does not export any",
            place=place,
            hint="it cannot be given now: broch down and up start the new code without state",
        )

    # Before the swap.

    async def _prepare(self, old: ModuleRun, new: ModuleRun, *, has_state: bool) -> None:
        """Bring the new one as far as it gets beside the old one, or undo it all."""
        try:
            await self._join(new)
            if has_state:
                old.state = "updating"  # no calls, no keys: what is handed over stays as it is
                await self._hand_over(old, new)
            elif old.ended.done():
                raise UndecidedError(f"module {old.name} ended meanwhile", place=old.name)
            if new.ended.done():
                raise new.failure()
        except BaseException as exc:
            self._journal.add("state", old.name, f"not updated: {exc}")
            _unload(new, new.handle)
            if old.state == "updating":
                old.state = "running"
                await self._reconnect(old)
            raise

    async def _hand_over(self, old: ModuleRun, new: ModuleRun) -> None:
        assert old.admission is not None
        assert new.admission is not None
        state = await old.ask(old.admission.export_to(new.admission), Kind.STATE)
        order = new.admission.import_from(old.admission, state[1:])
        new.admission.imported(order, await new.ask(order, Kind.IMPORTED))

    async def _reconnect(self, old: ModuleRun) -> None:
        """Give keys back to a module that has dropped its own, or let its restart rule decide."""
        try:
            await self._connector.connect(self._deployer.connections_of(old.name), must=old.name)
        except BrochError:
            _unload(old, old.handle)

    # From the swap on.

    async def _swap(self, old: ModuleRun, new: ModuleRun, wiring: Wiring) -> None:
        handle = new.handle
        new.restarts = old.restarts
        self._modules[new.name] = new
        self._deployer.rewire(wiring)
        self._keep(new)
        self._tell(old, new)
        try:
            await self._connector.connect(self._deployer.connections_of(new.name), must=new.name)
        except BrochError:
            _unload(new, handle)  # if it still is there: its restart rule decides
            raise
        else:
            if new.handle == handle and not new.ended.done():
                self._begin(new)
        finally:
            await self._retire(old)

    def _tell(self, old: ModuleRun, new: ModuleRun) -> None:
        before, after = (run.built.measurement.value.hex() for run in (old, new))
        text = f"updated from {before[:_SHOWN]} to {after[:_SHOWN]}"
        self._journal.add("state", new.name, text, **{"from": before, "to": after})

    async def _retire(self, old: ModuleRun) -> None:
        """End the old enclave after what it was asked before; sooner if that takes too long."""
        try:
            with contextlib.suppress(BrochError):
                old.send(bytes([Kind.STOP]))
                async with asyncio.timeout(old.built.spec.limits.seconds + _GRACE):
                    await asyncio.shield(old.ended)
        except TimeoutError:
            _unload(old, old.handle)


def _check_runs(run: ModuleRun) -> None:
    if run.state != "running" or not run.is_joined:
        state = "ending" if run.ended.done() and run.state == "running" else run.state
        raise UndecidedError(f"module {run.name} is {state}", place=run.name)


def _unload(run: ModuleRun, handle: int) -> None:
    """Kill an enclave; its agent ignores handles of those that are gone."""
    with contextlib.suppress(BrochError):
        run.node.link.unload(handle)


def reread(descriptor: Descriptor, module: str) -> Descriptor:
    """The descriptor with what its file says now of the files of ``module``, and of its version.

    Raises:
        UsageError: the file is gone, or says something else of anything but modules' files.
        MalformedError: it is no descriptor any more.
    """
    found = load(descriptor.folder / descriptor.path.name)
    known = descriptor.modules
    modules = {
        name: replace(
            spec, source=known[name].source, files=known[name].files, version=known[name].version
        )
        for name, spec in found.modules.items()
        if name in known
    }
    if len(modules) == len(found.modules):
        same = replace(found, path=descriptor.path, modules=modules)
        changed = [s for s in _SECTIONS if getattr(same, s) != getattr(descriptor, s)]
    else:
        changed = ["modules"]
    if changed:
        raise UsageError(
            f"the descriptor has changed in [{changed[0]}] since the app was started",
            place=found.place(changed[0]),
            hint="an update takes a module's source, files and version; for all else: "
            "broch down, then broch up",
        )
    return replace(
        descriptor, modules={**known, module: found.modules[module]}, places=found.places
    )
