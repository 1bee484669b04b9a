"""A real service on loopback for the tests: uvicorn in a thread, inference in a process of its own."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from base_files import make_adapter
from warm_process import begin_server

from medqlora.config.serving import ServeOptions
from medqlora.models import Transformers
from medqlora.serving.server import Running, bind, build, limits_of

QUESTION = "Does drug 7 help?"
CONTEXT = "Trial 7 of it. The result was yes."


def trained_adapter(base: Path, folder: Path, *, threshold: float, seed: int, **lora: Any) -> Path:
    """A random adapter with the record and the calibration that a fit writes; `lora` as in `make_adapter`."""
    import torch
    from safetensors.torch import load_file, save_file

    make_adapter(base, folder, **lora)
    weights = folder / "adapter_model.safetensors"
    generator = torch.Generator().manual_seed(seed)
    save_file(
        {
            name: value if "magnitude" in name else torch.randn(value.shape, generator=generator) * 0.05
            for name, value in load_file(weights).items()
        },
        weights,
    )
    calibration = {
        **{
            "temperature": 1.5,
            "threshold": threshold,
            "target_risk": 0.1,
            "n": 40,
            "answered": 30,
            "wrong": 2,
        },
        **{"risk_ci95": [0.02, 0.2], "labels": ["yes", "no", "maybe"], "classes": 3},
    }
    record = {
        "base": str(base),
        "base_identity": Transformers(str(base)).identity(),
        "backend": "Transformers",
        "backend_options": {"base": str(base), "quantization": "nf4"},
        "prompt": {"name": "medical"},
        "data": {"max_prompt_tokens": 256, "with_contexts": True},
        "labels": ["yes", "no", "maybe"],
        "calibration": calibration,
    }
    (folder / "medqlora.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


class Served:
    """A running service.

    Args:
        options: `port` is replaced by a free one.
        adapters: name → folder.
    """

    def __init__(self, options: ServeOptions, adapters: dict[str, str]) -> None:
        begin_server()
        self._bound = bind(replace(options, port=0))
        self.url = f"http://127.0.0.1:{self._bound.getsockname()[1]}"
        self.service = build(options, adapters, None)
        self.running = Running(self.service, limits_of(options), self._bound)
        self.ended: list[int] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.ended.append(asyncio.run(self.running.run()))

    def stop(self) -> None:
        """Ends the service, which answers what is open first."""
        self.running.stop()
        self._thread.join(60)
        self._bound.close()
        assert self.ended == [0]

    def ready(self) -> bool:
        """Whether it answers; its port refuses connections until its event loop runs."""
        try:
            return self.get("/readyz").status_code == 200
        except httpx.ConnectError:
            return False

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=240, headers=self.headers)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        headers = self.headers | more.pop("headers", {})
        return httpx.post(self.url + path, json=body, timeout=240, headers=headers, **more)

    headers: dict[str, str] = {}  # noqa: RUF012  # set once, by the fixture


def until(what: Callable[[], Any], why: str, seconds: float = 240.0) -> Any:
    """Waits until `what` is true; its value."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, why
        time.sleep(0.05)
    return found


@contextmanager
def served(options: ServeOptions, adapters: dict[str, str]) -> Iterator[Served]:
    """A service that is ready, and is stopped at the end."""
    made = Served(options, adapters)
    try:
        until(made.ready, "the service is not ready")
        yield made
    finally:
        made.stop()
