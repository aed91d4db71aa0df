"""Routes about the server itself: models, health, metrics and the page that documents its routes."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from vividmed.serving.errors import ERROR_RESPONSES
from vividmed.serving.schemas import Health, ModelCard, ModelList
from vividmed.serving.service import Service


def status_router(service: Service) -> APIRouter:
    """Routes that need no model."""
    router = APIRouter(responses=ERROR_RESPONSES)
    model = service.predictor.model
    card = ModelCard(
        id=service.settings.model_name,
        created=service.created,
        draws_masks=model.segmenter is not None,
        finds_boxes=model.instance_segmenter is not None,
    )

    @router.get("/v1/models", response_model=ModelList, summary="List the model")
    async def models() -> ModelList:
        return ModelList(data=[card])

    # Names of repositories contain a slash.
    @router.get("/v1/models/{name:path}", response_model=ModelCard, summary="Describe the model")
    async def describe_model(name: str) -> ModelCard:
        service.check_model(name)
        return card

    @router.get("/health", response_model=Health, summary="Say whether the server answers")
    async def health() -> Any:
        working = service.engine.is_working
        content = Health(
            status="ok" if working else "shutting down", waiting=service.engine.number_waiting
        ).model_dump()
        return JSONResponse(content, 200 if working else 503)

    @router.get("/metrics", response_class=PlainTextResponse, summary="Figures for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router
