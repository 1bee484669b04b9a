"""`POST /v1/adapters`, health, and the figures."""

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from medqlora.errors import InputError
from medqlora.serving.engine import BASE
from medqlora.serving.errors import ServiceError
from medqlora.serving.metrics import CONTENT_TYPE
from medqlora.serving.pool import UnavailableError
from medqlora.serving.routes.common import call_of, errors, example, service_of
from medqlora.serving.schemas import AdapterRequest
from medqlora.serving.service import LIBRARY
from medqlora.serving.worker import Load
from medqlora.utils.manifests import leaves

router = APIRouter()


@router.post(
    "/v1/adapters",
    responses={**example({"models": ["version_0", "ward", "base"]}), **errors()},
    summary="Load or unload an adapter",
)
async def adapters(body: AdapterRequest, request: Request) -> Response:
    """Loads an adapter from the allowed folder while requests go on, or unloads one. Needs an admin's token."""
    service, call = service_of(request), call_of(request, "/v1/adapters")
    if service.options.adapter_folder is None or not call.holder.admin:
        why = "needs an admin's token" if service.options.adapter_folder else "is off: see --adapter_folder"
        raise ServiceError(403, f"loading adapters {why}", code="admin")
    if body.name == BASE:
        raise ServiceError(422, f"name: {BASE!r} is the base model's")
    if body.name == LIBRARY and service.options.library is not None:
        raise ServiceError(422, f"name: {LIBRARY!r} is the library's")
    folder = None if body.folder is None else str(allowed(service.options.adapter_folder, body.folder))
    async with service.changing:
        known = service.pool.models
        if (body.name in known) == (folder is not None):
            raise ServiceError(
                422, f"there is {'a' if folder else 'no'} model {body.name!r}: see /v1/models", code="model"
            )
        try:
            await service.pool.change(Load(call.request_id, body.name, folder))
        except InputError as error:
            message = str(error).replace(str(Path(service.options.adapter_folder).resolve()), "")
            raise ServiceError(422, message) from None
        except UnavailableError as error:
            raise ServiceError(503, str(error), retry_after_s=error.retry_after_s) from None
    service.audit.write(
        {
            "request_id": call.request_id,
            "token": call.holder.name,
            "endpoint": call.endpoint,
            "adapter": body.name,
            "kind": "unload" if folder is None else "load",
            "status": 200,
        }
    )
    return JSONResponse({"models": list(service.pool.models)})


def allowed(root: str, folder: str) -> Path:
    """An adapter's folder below the allowed one.

    Raises:
        ServiceError: it lies elsewhere, by its name or by a link, or there is none.
    """
    top = Path(root).expanduser().resolve()
    refused = ServiceError(422, "folder: name one below the allowed folder", code="folder")
    if "\0" in folder or Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise refused
    path = top / folder
    try:
        if path.is_dir() and leaves(path, top):
            raise refused
        found = path / "adapter" if (path / "adapter").is_dir() else path
        usable = (found / "adapter_config.json").is_file() and not leaves(found, top)
    except (OSError, ValueError):  # a name that no file can have
        usable = False
    if not usable:
        raise ServiceError(
            422, "folder: there is no adapter of that name below the allowed folder", code="folder"
        )
    return found


@router.get("/healthz", summary="Whether the service runs")
async def healthz() -> Response:
    """200 as long as it answers at all."""
    return JSONResponse({"status": "ok"})


@router.get(
    "/readyz",
    responses={503: {"description": "no inference process is ready, or the service is about to end"}},
    summary="Whether questions are answered",
)
async def readyz(request: Request) -> Response:
    """200 once a process has given the stored log-probabilities of the self-test, until the service drains."""
    service = service_of(request)
    ready = service.pool.ready > 0 and not service.draining
    body = {
        "status": "draining" if service.draining else "ready" if ready else "not ready",
        "processes_ready": service.pool.ready,
        "problems": [f"process {number}: {_public(text)}" for number, text in service.pool.problems.items()],
    }
    return JSONResponse(body, 200 if ready else 503)


@router.get("/metrics", responses=errors(413), summary="Figures for Prometheus")
async def metrics(request: Request) -> Response:
    """Requests, tokens, queue, times, decisions by class, the share of uncertain answers, refusals."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE)


def _public(problem: str) -> str:
    """A problem without the machine's paths: they stand in the service's log."""
    return " ".join(word for word in problem.split() if "/" not in word)[:300]
