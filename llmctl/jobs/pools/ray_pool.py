"""Workers as Ray actors, on this machine or on a cluster. Each holds one sampler and its share of GPUs.

Shards are sent to actors, and finished parts are sent back. The driver hands out few shards at a time, so
neither shards nor results pile up in the object store.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from llmctl.errors import UserError
from llmctl.jobs.pools.pool import Event, Lost
from llmctl.jobs.pools.worker import OpenSampler, Worker, one_line
from llmctl.jobs.records import Shard
from llmctl.jobs.spec import JobRecipe
from llmctl.trust import permissions

ANSWER_S = 10.0  # seconds to accept a connection, after which a cluster counts as not answering
CONNECT_S = 60.0  # seconds to join a cluster that has accepted a connection
OBJECT_STORE_BYTES = 256 * 2**20  # on this machine: a few parts at a time
_PORT = 6379


class RayPool:
    """Actors that compute shards.

    Args:
        recipe: The job's recipe; its `workers` section gives the resources of an actor.
        workers: Number of actors; None is as many as there is room for.
        most: Maximum number of actors that have work.
        address: Address of a cluster, host:port or "auto"; None starts Ray on this machine.
        open_model: Opens a sampler; every node must be able to import it.

    Raises:
        UserError: Ray is missing, the cluster does not answer, or it has no room for an actor.
    """

    def __init__(
        self, recipe: JobRecipe, workers: int | None, most: int, address: str | None, open_model: OpenSampler
    ) -> None:
        ray = _import_ray()
        _connect(ray, recipe, workers, address)
        try:
            room = _room(ray, recipe)
            if room == 0 or (workers is not None and workers > room):
                raise UserError(
                    f"the Ray cluster has room for {room} workers of {recipe.workers.cpus:g} CPUs and "
                    f"{recipe.workers.gpus:g} GPUs, but {workers or 1} are needed: lower workers.cpus, "
                    "workers.gpus or --workers"
                )
            self.workers = min(workers or room, most)
            self._ray = ray
            self._given = (ray.put(recipe), open_model)
            self._actor_class = ray.remote(
                num_cpus=recipe.workers.cpus, num_gpus=recipe.workers.gpus, max_restarts=0, max_task_retries=0
            )(Worker)
            self._actors: dict[int, Any] = {}
            self._waiting: dict[int, deque[Any]] = {}  # references of shards by worker, the oldest first
            for worker in range(self.workers):
                self.restart(worker)
        except BaseException:
            ray.shutdown()
            raise

    def submit(self, worker: int, shard: Shard) -> None:
        """See `WorkerPool.submit`."""
        self._waiting[worker].append(self._actors[worker].compute.remote(shard))

    def wait(self) -> Sequence[Event]:
        """See `WorkerPool.wait`."""
        heads = {queue[0]: worker for worker, queue in self._waiting.items() if queue}
        ready, _ = self._ray.wait(list(heads), num_returns=1)
        return [self._event(heads[reference]) for reference in ready]

    def restart(self, worker: int) -> None:
        """See `WorkerPool.restart`."""
        self._actors[worker] = self._actor_class.remote(*self._given, allowed=permissions())
        self._waiting[worker] = deque()

    def close(self) -> None:
        """End the actors, and Ray where it was started here."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors = {}
        self._ray.shutdown()

    def _event(self, worker: int) -> Event:
        from ray.exceptions import RayError, RayTaskError

        try:
            return worker, self._ray.get(self._waiting[worker].popleft())
        except RayTaskError:
            raise  # a bug in the actor; the message has its traceback
        except RayError as error:
            self._waiting[worker].clear()
            return worker, Lost(one_line(error))


def _import_ray() -> Any:
    if importlib.util.find_spec("ray") is None:
        raise UserError(
            "engine ray needs the package ray, which is not installed: run `pip install ray`, "
            "or take engine processes"
        )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault(
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
    )  # Ray's future default; without it Ray warns
    import ray

    return ray


def _connect(ray: Any, recipe: JobRecipe, workers: int | None, address: str | None) -> None:
    """Start Ray here, or join a cluster."""
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    if address is None:
        cores = (workers or max(1, int((os.cpu_count() or 1) / recipe.workers.cpus))) * recipe.workers.cpus
        ray.init(
            address="local",
            num_cpus=max(1, round(cores)),
            object_store_memory=OBJECT_STORE_BYTES,
            **quiet,
        )
        return
    if address != "auto":
        _check_answers(address)
    found: list[BaseException | None] = []

    def join() -> None:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
            found.append(None)
        except BaseException as error:  # raised below, in the thread of the caller
            found.append(error)

    thread = threading.Thread(target=join, daemon=True)
    thread.start()
    thread.join(CONNECT_S)
    if not found:
        raise UserError(f"the Ray cluster at {address} could not be joined within {CONNECT_S:g} s: {_REMEDY}")
    if found[0] is not None:
        raise UserError(f"the Ray cluster at {address} cannot be joined ({one_line(found[0])}): {_REMEDY}")


_REMEDY = (
    "check the address and `ray status` on its head node (a cluster with token authentication needs "
    "RAY_AUTH_MODE=token here too); without --address, Ray is started on this machine"
)


def _check_answers(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        host, port = address, str(_PORT)
    if not port.isdigit():
        raise UserError(f"address {address!r} is not of the form host:port, e.g. 10.0.0.5:{_PORT}")
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise UserError(f"no Ray cluster answers at {address} ({reason}): {_REMEDY}") from error


def _room(ray: Any, recipe: JobRecipe) -> int:
    """Number of actors that fit on the nodes of the cluster."""
    total = 0
    for node in ray.nodes():
        if node["Alive"]:
            have = node["Resources"]
            fits = [have.get("CPU", 0.0) // recipe.workers.cpus]
            if recipe.workers.gpus:
                fits.append(have.get("GPU", 0.0) // recipe.workers.gpus)
            total += int(min(fits))
    return total
