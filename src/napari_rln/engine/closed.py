"""Scheduler and workers of dask.distributed that only talk to each other.

Each otherwise starts a web server for its dashboard, even where that is switched off: on port 8787,
or on any free port. Other users of a shared machine could then look in, and their own dask would
find the port occupied.
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
