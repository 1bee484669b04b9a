"""The running service: its socket, its signals, and its end."""

import asyncio
import json
import math
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from medqlora.config.backends import WITHOUT_UNSLOTH
from medqlora.config.serving import ServeOptions, is_loopback
from medqlora.errors import InputError
from medqlora.retrieval.opening import trained_with_numbers
from medqlora.serving.audit import AuditLog
from medqlora.serving.engine import EngineSpec, ServedModel
from medqlora.serving.guard import Limits
from medqlora.serving.metrics import Metrics
from medqlora.serving.pool import Pool
from medqlora.serving.self_test import SelfTest
from medqlora.serving.service import Service
from medqlora.serving.sources import Sources
from medqlora.serving.tokens import Rate, Tokens
from medqlora.utils.console import say
from medqlora.utils.interrupts import Interrupted
from medqlora.utils.progress import phase

if TYPE_CHECKING:
    import uvicorn

_ALL_ANSWERED = "every open request was answered"
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


def serve(options: ServeOptions, adapters: Mapping[str, str], base: str | None) -> int:
    """Serves until SIGTERM or SIGINT; then answers what is open, and ends. Returns the exit code.

    Args:
        options: checked.
        adapters: name → folder, the first is the default.
        base: the base model, where it is not the adapters' own, or where there are none.

    Raises:
        InputError: an option is wrong, the port is taken, or a model can't be loaded.
    """
    limits = limits_of(options)
    bound = bind(options)
    try:
        with phase("Preparing the service"):
            service = build(options, adapters, base)
        try:
            return asyncio.run(Running(service, limits, bound).run())
        except Interrupted as end:
            lost = service.given_up
            how = f"{lost} open requests were given up after {options.drain_s:g} s" if lost else _ALL_ANSWERED
            say(f"{end.signal.name}: {how}; the service has ended")
            return 1 if lost else 0
        finally:
            service.pool.kill()
    finally:
        bound.close()


def build(options: ServeOptions, adapters: Mapping[str, str], base: str | None) -> Service:
    """A service whose processes are not started yet.

    Raises:
        InputError: the audit log can't be written, the index can't be opened, or there is no such device.
    """
    specs = specs_of(options, adapters, base)
    setting = json.dumps([options.engine, base, options.backend, specs[0].device, options.url, options.gguf])
    pool = Pool(specs, options.queue, SelfTest(setting, adapters))
    metrics = Metrics(lambda: pool.open_jobs, lambda: pool.ready)
    pool.on_restart = metrics.restarts.inc
    audit = AuditLog(options.audit, metrics.audit_errors.inc)
    sources = None
    if options.index is not None:
        numbered = trained_with_numbers(next(iter(adapters.values()), None))
        sources = Sources(options.index, options.k, numbered=numbered)
    router = None
    if options.library is not None:
        from medqlora.artifacts.library import Library

        router = Library.open(options.library).router()
    return Service(options, pool, metrics, audit, adapters, sources, router)


def limits_of(options: ServeOptions) -> Limits:
    """Who may ask what.

    Raises:
        InputError: the tokens' file or the rate can't be read.
    """
    hosts = frozenset({*_LOCAL_HOSTS, options.host.strip("[]"), *options.allowed_hosts})
    # beyond loopback every request needs a token, which a page of another site does not have
    anywhere = "*" in options.allowed_hosts or not is_loopback(options.host)
    return Limits(
        None if options.tokens is None else Tokens.read(options.tokens),
        Rate(options.rate),
        frozenset()
        if anywhere and not (options.allowed_hosts and "*" not in options.allowed_hosts)
        else hosts,
        options.cors,
        int(options.body_mib * 2**20),
        int(options.batch_mib * 2**20),
    )


def bind(options: ServeOptions) -> socket.socket:
    """The listening socket.

    Raises:
        InputError: the address is taken, or is none of this machine's.
    """
    host = options.host.strip("[]")
    try:
        family = socket.getaddrinfo(host, options.port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, options.port))
    except OSError as error:
        raise InputError(
            f"--host {options.host} --port {options.port}: can't listen there ({error.strerror}): pass another "
            "--port, or --host 127.0.0.1"
        ) from error
    return bound


def specs_of(options: ServeOptions, adapters: Mapping[str, str], base: str | None) -> list[EngineSpec]:
    """One engine per device.

    Raises:
        InputError: there is no such device.
    """
    unsloth = options.engine == "local" and _needs_unsloth(options, adapters)
    devices = ["cpu"] * options.processes if options.engine != "local" else _devices(options, unsloth)
    shared = devices.count("cpu")
    # several processes on one CPU would each start a thread for every core
    threads = (
        max(1, (os.cpu_count() or 1) // shared) if shared > 1 and "OMP_NUM_THREADS" not in os.environ else 0
    )
    return [
        EngineSpec(
            engine=options.engine,
            adapters=dict(adapters),
            base=base,
            backend=options.backend,
            device=device,
            note=options.note,
            max_new_tokens=options.max_new_tokens,
            batch_tokens=options.batch_tokens,
            rows=options.rows,
            url=options.url,
            gguf=options.gguf,
            threads=threads,
            unsloth=unsloth and device != "cpu",
        )
        for device in devices
    ]


def _needs_unsloth(options: ServeOptions, adapters: Mapping[str, str]) -> bool:
    from medqlora.models.adapters import read_adapter

    if options.backend is not None:
        return options.backend in WITHOUT_UNSLOTH
    return any(
        read_adapter(folder, "--adapter").get("backend") in WITHOUT_UNSLOTH for folder in adapters.values()
    )


def _devices(options: ServeOptions, unsloth: bool) -> list[str]:
    """The devices to serve on; torch is asked in a process of its own."""
    if options.device == "cpu":
        return ["cpu"] * options.processes
    from concurrent.futures import ProcessPoolExecutor

    from medqlora.serving.devices import visible
    from medqlora.serving.pool import context

    with ProcessPoolExecutor(1, mp_context=context(unsloth=unsloth)) as executor:
        found = executor.submit(visible, options.device).result()
    return found * options.processes if found == ["cpu"] else found


class Running:
    """A service with its HTTP server.

    Args:
        service: not started yet.
        limits: who may ask what.
        bound: the listening socket.
    """

    def __init__(self, service: Service, limits: Limits, bound: socket.socket) -> None:
        import uvicorn

        from medqlora.serving.app import create_app

        class Server(uvicorn.Server):
            """Refuses new requests from the first signal on."""

            def handle_exit(self, sig: int, frame: FrameType | None) -> None:
                service.draining = True
                super().handle_exit(sig, frame)

        self.service = service
        self._bound = bound
        self._server = Server(uvicorn_config(create_app(service, limits), service.options))

    async def run(self) -> int:
        """Loads the models while `/healthz` answers already, serves until `stop` or a signal, and drains.

        Raises:
            InputError: a model can't be loaded.
        """
        serving = asyncio.create_task(self._server.serve(sockets=[self._bound]))
        starting = asyncio.create_task(self.service.pool.start())
        with phase("Loading the models"):
            await asyncio.wait({serving, starting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and starting.exception() is not None:
            self.stop()
            await serving
            starting.result()
        if not serving.done():
            _announce(self.service, self._bound)
        await serving
        starting.cancel()
        return 0

    def stop(self) -> None:
        """Refuses new requests, answers the open ones, and ends."""
        self.service.draining = self._server.should_exit = True


def uvicorn_config(app: "object", options: ServeOptions) -> "uvicorn.Config":
    """uvicorn's settings: no line per request, no version in headers, and time for open requests at the end."""
    import uvicorn

    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=15,
        timeout_graceful_shutdown=math.ceil(options.drain_s),
    )


def _announce(service: Service, bound: socket.socket) -> None:
    host, port = bound.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    models: Sequence[str] = list(service.pool.models)
    say(
        f"Serving {', '.join(models)} at http://{shown}:{port} (page: /, API: /openapi.json, figures: /metrics)"
    )
    for line, names in told(service.pool.models.values()).items():
        say(line if len(names) == len(models) else f"{', '.join(names)}: {line}")
    say(service.options.note)


def told(models: Iterable[ServedModel]) -> dict[str, list[str]]:
    """Remark → the names of the models that it is about."""
    found: dict[str, list[str]] = {}
    for model in models:
        for line in model.remarks:
            found.setdefault(line, []).append(model.name)
    return found
