"""``/v1/ground`` and ``/v1/segment``: where the phrases of a report, or named targets, are in a scan."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from vividmed.serving.answers import check_formats_of, describe_result
from vividmed.serving.bodies import body_description, read_body
from vividmed.serving.errors import ERROR_RESPONSES, ApiError
from vividmed.serving.jobs import CallJob
from vividmed.serving.schemas import Grounding, GroundRequest, ScanRequest, SegmentRequest
from vividmed.serving.service import Service, session_key, uploaded_scan
from vividmed.serving.uploads import decode_data_url


def findings_router(service: Service) -> APIRouter:
    """Routes that find things in scans."""
    router = APIRouter()

    @router.post(
        "/v1/ground",
        response_model=Grounding,
        openapi_extra=body_description(GroundRequest),
        responses=ERROR_RESPONSES,
        summary="Find the phrases of a report in a scan",
    )
    async def ground(request: Request) -> Any:
        body, files = await read_body(request, GroundRequest)
        return await _find(service, request, body, files, {"task": "ground", "text": body.text})

    @router.post(
        "/v1/segment",
        response_model=Grounding,
        openapi_extra=body_description(SegmentRequest),
        responses=ERROR_RESPONSES,
        summary="Draw named structures and findings in a scan",
    )
    async def segment(request: Request) -> Any:
        body, files = await read_body(request, SegmentRequest)
        return await _find(service, request, body, files, {"task": "segment", "targets": body.targets})

    return router


async def _find(
    service: Service, request: Request, body: ScanRequest, files: list[bytes], options: dict[str, Any]
) -> JSONResponse:
    service.check_model(body.model)
    if (body.image is None) == (not files):
        raise ApiError(
            400, "image: give the scan once, as a data URL or as a file", code="invalid_value", param="image"
        )
    async with service.folder() as folder:
        session = session_key(service, body.image)
        if session is not None:
            scan = uploaded_scan(service, session, "image")
        else:
            contents = files or [decode_data_url(body.image or "", param="image")]
            scan = await service.read_scan(contents, folder / "0", name="image")
            del contents
        check_formats_of(scan, body.formats)

        def call() -> Any:
            return service.predictor(scan, full_resolution=body.full_resolution, **options)

        result = await service.finish(CallJob(call, timeout=service.settings.timeout), request)
        if session is not None and service.scans is not None:
            service.scans.remember(session, result)
        return JSONResponse(await service.run(lambda: _describe(service, body, result, folder)))


def _describe(service: Service, body: ScanRequest, result: Any, folder: Path) -> dict[str, Any]:
    return describe_result(
        result, masks=body.masks, formats=body.formats, folder=folder, model=service.settings.model_name
    )
