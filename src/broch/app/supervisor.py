"""Runs an application: builds, starts nodes, loads, attests, connects, restarts, ends.

The supervisor is the deployer's own process, and trusted. Everything else that it starts dies with
it, and nothing is left behind: no process, no socket, no lock.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final

from broch.app import leftovers, values
from broch.app.agent_messages import TOKEN_SIZE
from broch.app.build import Built, build, build_natives, ciphers, interfaces
from broch.app.connecting import Connector, together
from broch.app.control_server import ControlServer
from broch.app.counting import Counting
from broch.app.descriptor import Descriptor, Operator
from broch.app.home import AppLock, Home
from broch.app.host_functions import check_defined
from broch.app.journal import Journal
from broch.app.module_run import ModuleRun
from broch.app.native import check_device
from broch.app.node_run import NodeRun
from broch.app.observed import Observed
from broch.app.reports import Stage
from broch.app.restarts import RestartRule
from broch.app.updating import LiveDeployer, Updater
from broch.app.wiring import Connection, Wiring, wire
from broch.enclave.launcher import Launcher
from broch.errors import BrochError, InternalError, PolicyError, UndecidedError, UsageError
from broch.image import PortKind

_SUMMARY_SECONDS: Final = 60.0  # for the summary; an agent may withhold it for ever


class AppState(StrEnum):
    """Where an application is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a run ended."""

    UNTIL = "until"  # the event that [run] names
    TIME = "time"
    STOPPED = "stopped"
    ENDED = "ended"  # every module ended in order
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended; ``error`` says what failed."""

    reason: Reason
    error: BrochError | None = None


class Supervisor:
    """One application.

    Args:
        descriptor: the application.
        home: devices, keys, what is left for the next run.
        progress: called with each step of :meth:`start`, from any thread.
        hardware: root folder under which native nodes find their devices.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        home: Home,
        *,
        progress: Callable[[Stage], None] = lambda stage: None,
        hardware: Path = Path("/"),
    ) -> None:
        self.descriptor = descriptor
        self._hardware = hardware
        self.state = AppState.STARTING
        self._home = home
        self._progress = progress
        self._since = datetime.now(UTC)
        self._journal = Journal()
        self._deployer = LiveDeployer(Wiring())
        self._observed = Observed(descriptor, self._deployer, self._journal)
        self._nodes: dict[str, NodeRun] = {}
        self._counting = Counting(self._deployer, self._nodes, self._journal)
        self._modules: dict[str, ModuleRun] = {}
        self._by_handle: dict[int, ModuleRun] = {}
        self._rules: dict[str, RestartRule] = {}
        self._last_handle = 0
        self._lock: AppLock | None = None
        self._control: ControlServer | None = None
        self._launcher: Launcher | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._over: asyncio.Future[Ending] | None = None
        self._connector: Connector | None = None
        self._updater: Updater | None = None
        self._summary: dict[str, Any] | None = None
        self._is_closing = False

    # Start.

    async def start(self) -> None:
        """Bring the application up, or leave nothing behind and raise why not."""
        try:
            await self._start()
        except BaseException:
            self.state = AppState.FAILED
            await self._tear_down()
            raise

    async def _start(self) -> None:
        for node in self.descriptor.nodes.values():
            check_device(self.descriptor, node, self._hardware)
        check_defined(self.descriptor)
        self._over = asyncio.get_running_loop().create_future()
        folder = self._home.app(self.descriptor.app.name)
        self._lock = folder.lock()
        self._control = ControlServer(self, folder)
        await self._control.start()
        natives = self._spawn(asyncio.to_thread(build_natives, self.descriptor))
        launcher = await self._launch()
        nodes = self._spawn(self._start_nodes(launcher))
        built = await asyncio.to_thread(self._build, launcher, await natives)
        wiring = wire(self.descriptor, interfaces(built), speaks=ciphers(built))
        await nodes
        await self._assemble(built, wiring)

    async def _launch(self) -> Launcher:
        self._step("build", "starting the launcher")
        leftovers.adopt_orphans()
        starting = Launcher.begin(self._home.folder("pycache"))
        waiting = asyncio.ensure_future(asyncio.to_thread(starting.wait))
        try:
            self._launcher = await asyncio.shield(waiting)
        except asyncio.CancelledError:
            self._launcher = await waiting  # to be closed
            raise
        return self._launcher

    def _build(self, launcher: Launcher, natives: dict[str, Built]) -> dict[str, Built]:
        total = len(self.descriptor.modules)
        done = 0

        def on_built(name: str) -> None:
            nonlocal done
            done += 1
            self._step("build", f"built {name}", done, total)

        return self._builder(launcher)(self.descriptor, on_built=on_built, natives=natives)

    def _builder(self, launcher: Launcher) -> "partial[dict[str, Built]]":
        public = self._home.deployer_key().public_key().public_bytes_raw()
        return partial(
            build, declarer=launcher, deployer=public, signing_key=self._home.signing_key
        )

    async def _start_nodes(self, launcher: Launcher) -> None:
        token = secrets.token_bytes(TOKEN_SIZE)
        for name, node in self.descriptor.nodes.items():
            self._nodes[name] = NodeRun(self.descriptor, node, self._home, self._hardware)
        await together(run.start(launcher, token, self) for run in self._nodes.values())
        self._step("nodes", "nodes are up", len(self._nodes), len(self._nodes))

    async def _assemble(self, built: dict[str, Built], wiring: Wiring) -> None:
        self._deployer = LiveDeployer(wiring)
        self._observed = Observed(self.descriptor, self._deployer, self._journal)
        self._counting = Counting(self._deployer, self._nodes, self._journal)
        for name, module in built.items():
            run = ModuleRun(module, self._nodes[module.spec.node], self._journal)
            self._modules[name] = run
            self._rules[name] = RestartRule(module.spec.restart, module.spec.max_restarts)
        self._connector = Connector(self._deployer, self._modules, self._nodes)
        total, done = len(self._modules), 0

        async def join(run: ModuleRun) -> None:
            nonlocal done
            await self._join(run)
            done += 1
            self._step("attest", f"{run.name} is attested", done, total)

        await together(join(run) for run in self._modules.values())
        self._step("connect", "handing out keys")
        await self._connector.connect([wire.id for wire in wiring.connections])
        assert self._launcher is not None
        self._updater = Updater(
            self.descriptor,
            self._modules,
            self._deployer,
            self._connector,
            examiner=self._launcher,
            journal=self._journal,
            build=self._builder(self._launcher),
            join=self._join,
            keep=lambda run: self._spawn(self._keep(run)),
            begin=self._begin,
        )
        for run in self._modules.values():
            self._begin(run)
            self._spawn(self._keep(run))
        self._spawn(self._counting.watch(self._connector))
        self.state = AppState.RUNNING
        self._since = datetime.now(UTC)
        self._step("running", f"{self.descriptor.app.name} runs", total, total)
        self._journal.add("state", None, "running")

    async def _join(self, run: ModuleRun) -> None:
        """Load a module into a new enclave and attest it."""
        self._last_handle += 1
        self._by_handle[self._last_handle] = run
        await run.load(self._last_handle, unsandboxed=self.descriptor.policy.unsandboxed)
        await run.attest(run.node.admission(run.built, self._home.deployer_key()))

    def _begin(self, run: ModuleRun) -> None:
        run.state = "running"
        run.node.link.start_ticks(run.handle)

    def _step(self, name: str, text: str, done: int = 0, total: int = 0) -> None:
        self._progress(Stage(name=name, text=text, done=done, total=total))

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        """A task that fails ends the run: what it kept in order no longer is."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and self.state is AppState.RUNNING:
            if not isinstance(error, BrochError):
                error = InternalError(f"{type(error).__name__}: {error}")
            self.finish(Ending(reason=Reason.FAILED, error=error))

    # Run.

    async def run(self, seconds: float | None = None) -> Ending:
        """Let the application run until something ends it; it is stopped by :meth:`stop` only."""
        assert self._over is not None, "run() comes after start()"
        try:
            async with asyncio.timeout(seconds):
                ending = await asyncio.shield(self._over)
        except TimeoutError:
            ending = Ending(reason=Reason.TIME)
        failed = ending.reason is Reason.FAILED
        if not failed:
            await self._make_summary()
        await self.refresh()
        self.state = AppState.FAILED if failed else AppState.ENDED
        self._journal.add("state", None, self.state.value)
        return ending

    def finish(self, ending: Ending) -> None:
        """End the run; the first reason counts."""
        if self._over is not None and not self._over.done():
            self._over.set_result(ending)

    def end(self) -> None:
        """End the run as if the operator had: :meth:`run` returns."""
        self.finish(Ending(reason=Reason.STOPPED))

    async def _make_summary(self) -> None:
        name = self.descriptor.report.summary
        if name is not None:
            try:
                async with asyncio.timeout(_SUMMARY_SECONDS):
                    self._summary = await self.call(name.module, name.port, None)
            except TimeoutError:
                self._journal.add("fault", name.module, "no summary: it did not answer")
            except BrochError as exc:
                self._journal.add("fault", name.module, f"no summary: {exc}")

    async def stop(self) -> None:
        """End the application and everything that belongs to it."""
        self.finish(Ending(reason=Reason.STOPPED))
        if self.state in (AppState.STARTING, AppState.RUNNING):
            self.state = AppState.ENDED
        await self._tear_down()

    async def _tear_down(self) -> None:
        self._is_closing = True
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for node in self._nodes.values():
            node.close()
        launcher, lock = self._launcher, self._lock
        self._launcher = self._lock = None
        try:
            if launcher is not None:
                await asyncio.to_thread(leftovers.end, launcher)
        finally:
            if self._control is not None:
                self._control.close()
            if lock is not None:
                lock.release()
        if self._control is not None:
            await self._control.stop()  # those who asked for the end hear of it when it has come

    async def _keep(self, run: ModuleRun) -> None:
        """Start a module again, as its rule says, for as long as the application runs."""
        rule, loop = self._rules[run.name], asyncio.get_running_loop()
        while True:
            end = await run.ended
            async with run.changing:
                if self._modules[run.name] is not run:
                    return  # it was updated
            kind = "state" if end.orderly else "fault"
            self._journal.add(kind, run.name, end.what, **end.to_data())
            if not rule.wants(orderly=end.orderly):
                self._gone(run, orderly=end.orderly)
                return
            delay = rule.delay(loop.time())
            if delay is None:
                self._gone(run, orderly=False, hint=rule.exhausted)
                return
            run.state = "restarting"
            await asyncio.sleep(delay)
            try:
                await self._bring_back(run)
            except BrochError as exc:
                if not run.ended.done():  # it lives and is not let in, or could not be loaded
                    run.state = "failed"
                    self._journal.add("fault", run.name, str(exc))
                    self.finish(Ending(reason=Reason.FAILED, error=exc))
                    return

    async def _bring_back(self, run: ModuleRun) -> None:
        assert self._connector is not None
        run.restarts += 1
        await self._join(run)
        await self._connector.connect(self._deployer.connections_of(run.name), must=run.name)
        self._begin(run)
        self._journal.add("restart", run.name, f"restarted ({run.restarts})")

    def _gone(self, run: ModuleRun, *, orderly: bool, hint: str | None = None) -> None:
        run.state = "ended" if orderly else "failed"
        if not orderly:
            self.finish(Ending(reason=Reason.FAILED, error=run.failure(hint)))
        elif all(other.state == "ended" for other in self._modules.values()):
            self.finish(Ending(reason=Reason.ENDED))

    # What agents say (agent_client.Listener).

    def said(self, handle: int, message: bytes) -> None:
        """A message of an enclave's, as its agent tells it."""
        run = self._by_handle.get(handle)
        if run is None or run.handle != handle:
            return
        try:
            run.said(message)
        except BrochError as exc:
            self._journal.add("refused", run.name, f"a message of its agent: {exc}")

    def ended(self, handle: int, status: int, why: str) -> None:
        """An enclave is gone."""
        run = self._by_handle.pop(handle, None)
        if run is not None and run.handle == handle:
            run.has_ended(status, why)

    def event(self, message: bytes) -> None:
        """A sealed event to the operator."""
        if self._observed.take(message):
            self.finish(Ending(reason=Reason.UNTIL))

    def lost(self, node: str) -> None:
        """An agent is gone, and its whole node with it."""
        if self._is_closing:
            return
        self._nodes[node].state = "failed"
        error = InternalError(f"node {node} is gone: its agent or its device ended")
        self._journal.add("fault", None, error.message)
        for run in {*self._modules.values(), *self._by_handle.values()}:
            if run.node.node.name == node:
                run.is_lost()
        self.finish(Ending(reason=Reason.FAILED, error=error))

    # What the operator does.

    async def call(self, module: str, entry: str, arguments: Any) -> Any:
        """Call an entry with JSON arguments; see :meth:`ModuleRun.call`."""
        return await self._module(module).call(entry, arguments)

    async def emit(self, module: str, name: str, value: Any) -> None:
        """Send a JSON value to an input, over the operator's own connection.

        Raises:
            UsageError: no such input, or not a value of its type.
            PolicyError: the descriptor connects the operator to no such input.
        """
        run, what = self._module(module), f"{module}.{name}"
        inputs = run.built.interface.of(PortKind.INPUT)
        if name not in [port.name for port in inputs]:
            names = ", ".join(port.name for port in inputs) or "none"
            raise UsageError(f"there is no input {what}", hint=f"inputs of {module}: {names}")
        found = self._operators(module, name)
        if found is None:
            raise PolicyError(
                f"the operator has no connection to {what}",
                place=self.descriptor.path.name,
                hint=f'only the descriptor gives one: from = "operator", to = "{what}"',
            )
        data = values.encode(found.argument, value, what)
        if run.state != "running":
            raise UndecidedError(f"module {module} is {run.state}", place=what)
        run.node.link.event(self._deployer.ends.seal(found, data))

    def _operators(self, module: str, name: str) -> Connection | None:
        for found in self._deployer.wires:
            if isinstance(found.source, Operator) and str(found.target) == f"{module}.{name}":
                return found
        return None

    def _module(self, name: str) -> ModuleRun:
        if name not in self.descriptor.modules:
            names = ", ".join(self.descriptor.modules)
            raise UsageError(f"there is no module {name!r}", hint=f"modules: {names}")
        if name not in self._modules:
            raise UndecidedError(f"app {self.descriptor.app.name} is starting", hint="try again")
        return self._modules[name]

    async def operate(self, node: str, action: str, target: str, value: Any) -> dict[str, Any]:
        """Act on a node's emulated peripherals; see :meth:`NodeRun.operate`."""
        if node not in self.descriptor.nodes:
            names = ", ".join(self.descriptor.nodes)
            raise UsageError(f"there is no node {node!r:.80}", hint=f"nodes: {names}")
        if self.state is not AppState.RUNNING:
            raise UndecidedError(f"app {self.descriptor.app.name} is {self.state.value}")
        return await self._nodes[node].operate(action, target, value)

    async def update(self, module: str) -> dict[str, Any]:
        """Replace a running module by what its source says now; see :meth:`Updater.update`."""
        self._module(module)
        if self._updater is None or self.state is not AppState.RUNNING:
            raise UndecidedError(f"app {self.descriptor.app.name} is {self.state.value}")
        done = await self._updater.update(module)
        self.descriptor = self._updater.descriptor
        return done.to_data()

    async def rekey(self) -> None:
        """Give every connection a fresh key."""
        assert self._connector is not None, "rekey() comes after start()"
        await self._connector.connect(list(self._deployer.epochs))

    # What is shown.

    async def refresh(self) -> None:
        """Ask all agents what they counted."""
        if self._launcher is not None:
            await self._counting.refresh()

    def status(self) -> dict[str, Any]:
        """All that is known now, as plain data."""
        return {
            "app": self.descriptor.app.name,
            "state": self.state.value,
            "since": self._since.isoformat(timespec="seconds"),
            "nodes": [node.status() for node in self._nodes.values()],
            "modules": [module.status() for module in self._modules.values()],
            "connections": [self._counting.status(w) for w in self._deployer.wires],
        }

    def summary(self) -> dict[str, Any] | None:
        """What the descriptor's summary entry gave at the end of the run."""
        return self._summary

    def charts(self) -> list[dict[str, Any]]:
        """The charts of the descriptor's report: title, unit, x, series by name."""
        return self._observed.charts()

    def past(self) -> list[dict[str, Any]]:
        """The last things that happened."""
        return self._journal.past()

    def subscribe(self) -> asyncio.Queue[dict[str, Any]]:
        """A queue of what happens from now on."""
        return self._journal.subscribe()

    def unsubscribe(self, queue: asyncio.Queue[dict[str, Any]]) -> None:
        """Listen no more."""
        self._journal.unsubscribe(queue)
