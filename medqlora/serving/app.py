"""The application: endpoints, errors, and the page."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import escape
from importlib import resources

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from medqlora import __version__
from medqlora.serving.errors import ServiceError, error_body
from medqlora.serving.guard import Guard, Limits
from medqlora.serving.routes import admin, answers, chat, typed
from medqlora.serving.routes.answers import told
from medqlora.serving.routes.common import service_of
from medqlora.serving.routes.wrong import safe_response, worth_a_look
from medqlora.serving.service import Service

_DESCRIPTION = """Answers medical questions with a fine-tuned adapter: a decision, its calibrated probability,
"uncertain" where that is right, and a rationale. Not medical advice."""
#: the page holds its script and its styles, and asks this service alone
PAGE_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(service: Service, limits: Limits) -> FastAPI:
    """The application around a service, with its guard.

    Args:
        service: started; it is stopped with the application.
        limits: who may ask what.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await service.pool.stop()
            service.audit.close()

    # no page of its own for the documentation: FastAPI's loads scripts from another host
    app = FastAPI(
        title="medqlora",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    for router in (answers.router, chat.router, typed.router, admin.router):
        app.include_router(router)
    app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)(_page)
    app.exception_handler(ServiceError)(_service_error)
    app.exception_handler(RequestValidationError)(_malformed)
    app.exception_handler(HTTPException)(_http_error)
    app.add_middleware(
        Guard,
        limits=limits,
        metrics=service.metrics,
        draining=lambda: service.draining,
    )
    return app


async def _page(request: Request) -> Response:
    """The page, with a nonce of its own: nothing that is written into it could run."""
    nonce = secrets.token_urlsafe(16)
    html = resources.files("medqlora.serving").joinpath("page.html").read_text("utf-8")
    note = escape(service_of(request).options.note)
    filled = html.replace("$nonce", nonce).replace("$note", note)
    headers = {"Content-Security-Policy": PAGE_POLICY.format(nonce=nonce)}
    return Response(filled, media_type="text/html", headers=headers)


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    if worth_a_look(error):
        try:
            reply = await safe_response(request)
        except ServiceError as safe:
            error = safe
        else:
            if reply is not None:
                return reply
    return JSONResponse(error.to_json(), error.status, headers=error.headers())


async def _malformed(request: Request, error: Exception) -> Response:
    """422 with the field and what is wrong with it; never with the value, which is a client's text."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    status = 400 if str(first.get("type")) == "json_invalid" else 422
    return await _service_error(request, ServiceError(status, told(first)))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {
        404: "there is no such endpoint: see /openapi.json",
        405: "this endpoint takes another method",
    }
    message = messages.get(error.status_code, str(error.detail))
    return JSONResponse(error_body(error.status_code, message), error.status_code, headers=error.headers)
