"""The options of `medqlora serve`."""

import ipaddress
import math
from dataclasses import dataclass
from typing import Literal

from medqlora.config.callbacks import NOTE
from medqlora.errors import InputError

EngineName = Literal["local", "vllm", "llama.cpp"]
ENGINES: tuple[EngineName, ...] = ("local", "vllm", "llama.cpp")
#: options that are numbers, and the least value of each
_LEAST = {
    "port": 0,
    "processes": 1,
    "batch_tokens": 1,
    "rows": 1,
    "k": 1,
    "max_new_tokens": 1,
    "queue": 1,
    "timeout_s": 0.1,
    "drain_s": 0.0,
    "body_mib": 0.001,
    "batch_mib": 0.001,
    "context_chars": 1,
}


@dataclass(frozen=True)
class ServeOptions:
    """What `medqlora serve` serves, where, and within which limits.

    Args:
        adapter: adapter folders, run folders or names on the Hub, on one base model; NAME=FOLDER gives another name.
            `none` serves the base model of --base alone. Default: the adapter of the run that finished last.
        library: a library (`medqlora library`) in place of adapters; a request that names no model, or "library", is
            answered by the adapter that its topic calls for.
        logs: the folder of the runs.
        base: the base model's name or folder, where it differs from the adapter's record.
        backend: the backend that loads the base model.
        device: the device to run on: auto, cpu, cuda, or a device of torch; cuda and auto use every GPU.
        processes: inference processes on a CPU; a GPU has one each.
        engine: local; vllm answers through the server of --url; llama.cpp runs the file of --gguf.
        url: with --engine vllm, the server's address, such as http://127.0.0.1:8001.
        gguf: with --engine llama.cpp, the GGUF file of the merged model.
        host: the address to listen on. Any but loopback needs --tokens.
        port: the port; 0 takes a free one.
        allowed_hosts: further host names that requests may name, such as that of a proxy; `*` for any.
        cors: origins of other pages that may use this service; without it no page but its own may.
        tokens: file of access tokens, a line each: NAME:SHA256[:admin]; see --new_token.
        rate: requests a token may make, as limits writes it.
        adapter_folder: folder whose adapters POST /v1/adapters may load; without it none.
        audit: file for a line of JSON per request, without any text.
        index: answer questions without a context from passages of this index (`medqlora index build`), with sources.
        k: passages for such an answer.
        note: another wording of the note at the end of every answer.
        max_new_tokens: length limit of a rationale, in tokens; a request may ask for fewer.
        batch_tokens: tokens of one batch, with the padding and the text to come.
        rows: most answers generated at once.
        queue: open requests, all processes together; more are answered 503.
        timeout_s: seconds until a request is given up with 503.
        drain_s: seconds that open requests have after SIGTERM.
        body_mib: largest body of a request, in MiB; larger ones are answered 413.
        batch_mib: largest body of POST /v1/batch, in MiB.
        context_chars: longest question with its contexts and options, in characters.
    """

    adapter: tuple[str, ...] = ()
    library: str | None = None
    logs: str = "lightning_logs"
    base: str | None = None
    backend: str | None = None
    device: str = "auto"
    processes: int = 1
    engine: EngineName = "local"
    url: str | None = None
    gguf: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    tokens: str | None = None
    rate: str = "120/minute"
    adapter_folder: str | None = None
    audit: str | None = None
    index: str | None = None
    k: int = 3
    note: str = NOTE
    max_new_tokens: int = 96
    batch_tokens: int = 8192
    rows: int = 32
    queue: int = 256
    timeout_s: float = 120.0
    drain_s: float = 30.0
    body_mib: float = 1.0
    batch_mib: float = 32.0
    context_chars: int = 200_000

    @property
    def loopback(self) -> bool:
        """Whether this machine alone can reach the address."""
        return is_loopback(self.host)

    def check(self) -> None:
        """Raises InputError for values that can't be served with."""
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise InputError(f"--{name} is {value:g}: it has to be at least {least:g}")
        if self.port > 65535:
            raise InputError(f"--port is {self.port}: it has to be at most 65535")
        if not self.loopback and self.tokens is None:
            raise InputError(
                f"--host {self.host}: other machines could reach it: pass --tokens FILE (make one with --new_token "
                "NAME), or listen on 127.0.0.1"
            )
        for origin in self.cors:
            if origin != "*" and not origin.startswith(("http://", "https://")):
                raise InputError(
                    f"--cors {origin}: an origin begins with https://, such as https://ward.example"
                )
        self._check_engine()

    def _check_engine(self) -> None:
        if self.library is not None and (self.adapter or self.engine != "local"):
            other = "--adapter" if self.adapter else f"--engine {self.engine}"
            raise InputError(f"--library: it names the adapters, for --engine local: leave {other} out")
        needed = {"vllm": "url", "llama.cpp": "gguf"}
        for engine, option in needed.items():
            value = getattr(self, option)
            if (self.engine == engine) != (value is not None):
                fix = f"pass --{option}" if value is None else f"pass --engine {engine}, or leave it out"
                raise InputError(f"--{option} belongs to --engine {engine}: {fix}")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise InputError(
                f"--url {self.url}: an address begins with http://, such as http://127.0.0.1:8001"
            )
        if self.adapter_folder is not None and self.engine != "local":
            raise InputError(f"--adapter_folder: --engine {self.engine} loads no adapters: leave it out")
        if self.adapter_folder is not None and self.tokens is None:
            raise InputError("--adapter_folder needs an admin's token: pass --tokens FILE")


def is_loopback(host: str) -> bool:
    """Whether `host` is an address or the name of this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
