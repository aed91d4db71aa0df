"""The server as an ASGI application."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware

from vividmed.export.notice import NOTICE
from vividmed.inference.predictor import Predictor
from vividmed.serving.bodies import request_schemas
from vividmed.serving.chat import chat_router
from vividmed.serving.documentation import documentation_router
from vividmed.serving.errors import add_error_handlers
from vividmed.serving.findings import findings_router
from vividmed.serving.guards import OPEN_PATHS, Guard
from vividmed.serving.schemas import ChatRequest, GroundRequest, SegmentRequest
from vividmed.serving.service import Service
from vividmed.serving.settings import ServerSettings
from vividmed.serving.status import status_router
from vividmed.version import __version__


def create_app(
    predictor: Predictor,
    settings: ServerSettings,
    *,
    extend: Callable[[FastAPI, Service], None] | None = None,
    open_paths: tuple[str, ...] = (),
) -> FastAPI:
    """Build the server.

    Args:
        predictor: the model.
        settings: limits and access rules.
        extend: adds routes.
        open_paths: paths among these routes that need no token; one that ends in ``/`` stands for all below it.
    """
    service = Service(predictor, settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        try:
            for start in service.at_start:
                start()
            yield
        finally:
            await asyncio.to_thread(service.close)

    app = FastAPI(
        title="VividMed",
        version=__version__,
        description=f"A medical vision-language model. {NOTICE}",
        lifespan=lifespan,
        # The library's pages load scripts from other servers.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    add_error_handlers(app)
    for router in (
        chat_router(service),
        findings_router(service),
        status_router(service),
        documentation_router(app),
    ):
        app.include_router(router)
    if extend is not None:
        extend(app, service)
    app.add_middleware(
        Guard, settings=settings, metrics=service.metrics, open_paths=(*OPEN_PATHS, *open_paths)
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schema["components"]["schemas"] |= request_schemas([ChatRequest, GroundRequest, SegmentRequest])
        service = app.state.service
        if service.settings.token is not None:
            schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"token": []}]
        app.openapi_schema = schema
    return app.openapi_schema
