"""The processes that prove the parts of a circuit: those of joblib, or of a Dask cluster."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from typing import Any

from odp.approximations.errors import OdpError

__all__ = ["Workers", "workers"]

# Seconds that a scheduler has to answer.
_PATIENCE = 20


@dataclass(frozen=True)
class Workers:
    """Where calls are made, several at a time.

    Attributes:
        jobs: calls at a time, 1 or more, on the backend that joblib.parallel_config says; its Dask
            backend decides by itself.
        client: of Dask, which then takes the place of joblib.
    """

    jobs: int = 1
    client: Any = None

    @property
    def on_this_machine(self) -> bool:
        """Whether all of them share its memory."""
        from joblib.parallel import get_active_backend

        backend: Any = get_active_backend()[0]
        return self.client is None and type(backend).__name__ != "DaskDistributedBackend"

    def run(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """What a function gives for each tuple of arguments, in the order of completion.

        Args:
            function: that can be pickled.
            calls: the arguments.

        Raises:
            OdpError: the function raises it, or a process that was to run it has died.
        """
        try:
            yield from (self._by_joblib if self.client is None else self._by_dask)(function, calls)
        except Exception as error:
            if message := _failure(error):
                raise OdpError(message) from None
            raise

    def _by_joblib(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]
    ) -> Iterator[Any]:
        from joblib import Parallel, delayed

        try:
            parallel = Parallel(n_jobs=self.jobs, return_as="generator_unordered")
        except ValueError as error:
            raise OdpError(f"joblib: {error}") from None
        with _quiet_tracker():
            yield from parallel(delayed(function)(*call) for call in calls)

    def _by_dask(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]
    ) -> Iterator[Any]:
        # Not by joblib's backend of that name, which waits forever for a worker that was killed.
        from distributed import as_completed

        futures = [self.client.submit(_caught, function, call, pure=False) for call in calls]
        try:
            for future in as_completed(futures, loop=self.client.loop):
                result = future.result()
                if isinstance(result, OdpError):
                    raise result
                yield result
        finally:
            self.client.cancel(futures)


@contextlib.contextmanager
def _quiet_tracker() -> Iterator[None]:
    """Silence the process in which joblib keeps track of its temporary folders.

    After a worker was killed it may find one gone that another process has removed meanwhile, and
    says so on stderr after our own line.
    """
    before = os.environ.get("PYTHONWARNINGS")
    ours = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = f"{before},{ours}" if before else ours
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONWARNINGS", None)
        else:
            os.environ["PYTHONWARNINGS"] = before


@contextlib.contextmanager
def workers(
    jobs: int = 1, backend: str | None = None, scheduler: str | None = None
) -> Iterator[Workers]:
    """Workers while this lasts.

    Args:
        jobs: at a time, where joblib is to start them.
        backend: name of a backend of joblib; None leaves what joblib.parallel_config says.
        scheduler: address of a Dask scheduler, `tcp://host:8786`.

    Raises:
        OdpError: there is no such backend or scheduler, it has no workers, or there is no Dask.
    """
    with contextlib.ExitStack() as stack:
        if scheduler is not None:
            if backend not in (None, "dask"):
                raise OdpError(f"--scheduler is of Dask: leave out --backend {backend}")
            yield Workers(jobs, stack.enter_context(_client(scheduler)))
            return
        if backend == "dask":
            raise OdpError("the backend dask needs --scheduler ADDRESS, as of dask scheduler")
        if backend is not None:
            import joblib

            try:
                stack.enter_context(joblib.parallel_config(backend=backend))
            except (ValueError, ImportError) as error:
                message = str(error).partition("\n")[0]
                raise OdpError(f"joblib has no backend '{backend}': {message}") from None
        yield Workers(jobs)


def _client(scheduler: str) -> Any:
    """A client of Dask whose cluster has a worker."""
    try:
        from distributed import Client
    except ImportError:
        raise OdpError(
            "--scheduler needs the package distributed here and on the workers: pip install "
            "'odp-rewrite[ezkl,dask]'"
        ) from None
    try:
        client = Client(scheduler, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        message = str(error).partition("\n")[0]
        raise OdpError(f"no Dask scheduler answers at '{scheduler}': {message}") from None
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except OSError:
        client.close()
        raise OdpError(
            f"the Dask scheduler at '{scheduler}' has no workers; start some with dask worker "
            f"{scheduler} --nthreads 1"
        ) from None
    return client


def _caught(function: Callable[..., Any], call: tuple[Any, ...]) -> Any:
    """A refusal is given back: raised, it would fill the log of the worker with a traceback."""
    try:
        return function(*call)
    except OdpError as error:
        return error


def _failure(error: Exception) -> str:
    """What to say where not a call failed, but the process that was to make it; or nothing."""
    if isinstance(error, BrokenExecutor):
        return "a worker was killed, most likely for want of memory: use fewer --jobs"
    # Classes of distributed, which may not be installed.
    kind = type(error).__name__
    if kind == "KilledWorker":
        return "workers of Dask were killed, most likely for want of memory: start fewer a machine"
    if kind in ("FutureCancelledError", "CommClosedError"):
        return "the Dask scheduler has gone"
    if isinstance(error, ImportError):
        return f"a worker lacks a package ({error}): pip install 'odp-rewrite[ezkl,dask]' there"
    return ""
