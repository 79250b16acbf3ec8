"""An application that runs without a terminal."""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import Any

from broch.app.descriptor import Descriptor
from broch.app.detach import Starter, detach
from broch.app.home import Home
from broch.app.reports import Stage
from broch.app.supervisor import Ending, Reason, Supervisor


def up(
    descriptor: Descriptor,
    home: Home,
    *,
    seconds: float | None = None,
    progress: Callable[[Stage], None] = lambda stage: None,
) -> dict[str, Any]:
    """Start an application in the background; its status once it runs.

    Args:
        descriptor: the application.
        home: where it keeps what it keeps.
        seconds: after which it ends; None for never.
        progress: called with each step.

    Raises:
        BrochError: why it does not run.
    """

    def work(starter: Starter) -> None:
        asyncio.run(_run(descriptor, home, seconds, starter))

    status: dict[str, Any] = detach(work, progress)
    return status


async def _run(descriptor: Descriptor, home: Home, seconds: float | None, starter: Starter) -> None:
    supervisor = Supervisor(descriptor, home, progress=starter.progress)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.finish, Ending(reason=Reason.STOPPED))
    await supervisor.start()
    with contextlib.suppress(asyncio.CancelledError):
        starter.ready(supervisor.status())
        ending = await supervisor.run(seconds)
        if ending.error is not None:
            home.app(descriptor.app.name).note_failure(str(ending.error))
    await supervisor.stop()
