"""Scheduler and workers of dask.distributed that only talk to each other.

Each starts a web server for its dashboard besides, also where that is switched off: on port 8787,
or on any that is free. On a shared machine others could look in, and who has a dask of their own
would miss the port.
"""

from typing import Any

from distributed import Scheduler, Worker


class ClosedScheduler(Scheduler):
    """A scheduler without a web server."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Start none."""


class ClosedWorker(Worker):
    """A worker without a web server."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Start none."""
