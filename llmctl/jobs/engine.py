"""Where a job runs: in this process, in several processes, or on Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmctl.errors import UserError
from llmctl.jobs.pools.pool import LocalPool, ProcessPool, WorkerPool
from llmctl.jobs.pools.worker import OpenSampler
from llmctl.jobs.spec import JobRecipe

EngineName = Literal["local", "processes", "ray"]


@dataclass(frozen=True)
class Engine:
    """Where a job runs. The results do not depend on it."""

    name: EngineName = "local"
    workers: int | None = None
    """Workers of processes or ray; None means as many as the machine or the cluster has room for."""
    address: str | None = None
    """Address of a Ray cluster; None starts Ray on this machine."""

    def __post_init__(self) -> None:
        """Refuse options that the engine does not use.

        Raises:
            UserError: There is no such engine, or an option belongs to another one.
        """
        if self.name not in ("local", "processes", "ray"):
            raise UserError(f"engine is {self.name!r}, but a job runs on local, processes or ray")
        if self.workers is not None and self.name == "local":
            raise UserError("workers are given, but engine local is one process: take processes or ray")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"workers is {self.workers}, but at least 1 is needed")
        if self.address is not None and self.name != "ray":
            raise UserError(
                f"address {self.address} is a Ray cluster's, but engine is {self.name}: take engine ray"
            )


def open_pool(recipe: JobRecipe, engine: Engine, shards: int, open_model: OpenSampler) -> WorkerPool:
    """Open the workers of an engine, at most one per shard.

    Raises:
        UserError: Ray is missing, or its cluster does not answer or has no room.
    """
    if engine.name == "local":
        return LocalPool(recipe, open_model)
    if engine.name == "processes":
        import os

        fit = max(1, int((os.cpu_count() or 1) / recipe.workers.cpus))
        return ProcessPool(recipe, min(engine.workers or fit, shards), open_model)
    from llmctl.jobs.pools.ray_pool import RayPool

    return RayPool(recipe, engine.workers, shards, engine.address, open_model)
