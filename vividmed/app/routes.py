"""Routes of the page, in addition to those of the server."""

import io
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

from vividmed.app.display import describe_image, empty_overlay, encode_image
from vividmed.app.samples import Sample
from vividmed.app.sessions import Session, Sessions
from vividmed.export.notice import NOTICE
from vividmed.inference.predictor import Predictor
from vividmed.inference.results import FORMATS
from vividmed.serving.answers import check_formats_of, export
from vividmed.serving.application import create_app
from vividmed.serving.bodies import read_form
from vividmed.serving.errors import ApiError
from vividmed.serving.service import Service
from vividmed.serving.settings import ServerSettings
from vividmed.version import __version__

PAGE_PATHS = ("/", "/static/")
"""Answered without a token, since they contain nothing; the page asks for the token."""

_STATIC = Path(__file__).with_name("static")
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'"
)
_GZIP = "application/gzip"


def create_page(
    predictor: Predictor,
    settings: ServerSettings,
    *,
    samples: Sequence[Sample] = (),
    sessions: Sessions | None = None,
) -> FastAPI:
    """Build a server with the page.

    Args:
        predictor: the model.
        settings: limits and access rules.
        samples: scans to offer.
        sessions: where open scans are kept.
    """
    kept = Sessions() if sessions is None else sessions
    return create_app(
        predictor,
        settings,
        extend=lambda app, service: add_page(app, service, samples=samples, sessions=kept),
        open_paths=PAGE_PATHS,
    )


def add_page(app: FastAPI, service: Service, *, samples: Sequence[Sample] = (), sessions: Sessions) -> None:
    """Add the page to a server.

    Args:
        app: the server.
        service: its model.
        samples: scans to offer.
        sessions: open scans; closed with the server.
    """
    service.scans = sessions
    service.at_close.append(sessions.close_all)
    offered = {sample.name: sample for sample in samples}

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(_STATIC / "index.html", headers={"Content-Security-Policy": _POLICY})

    static = GZipMiddleware(StaticFiles(directory=_STATIC), minimum_size=10_000)
    app.mount("/static", static)

    @app.get("/page/about", include_in_schema=False)
    async def about() -> dict[str, Any]:
        model = service.predictor.model
        return {
            "model": service.settings.model_name,
            "version": __version__,
            "notice": NOTICE,
            "draws_masks": model.segmenter is not None,
            "can_ground": service.predictor.can_ground,
            "samples": list(offered),
            "formats": FORMATS,
        }

    @app.post("/page/scans", include_in_schema=False)
    async def open_scan(request: Request) -> dict[str, Any]:
        fields, files = await read_form(request)
        if "sample" in fields:
            sample = offered.get(fields["sample"])
            if sample is None:
                raise ApiError(404, "there is no such sample", param="sample")
            files = [path.read_bytes() for path in sample.paths]
        folder = Path(tempfile.mkdtemp(dir=service.root))
        try:
            scan = await service.read_scan(files, folder / "scan", name="the scan")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        session = sessions.open(scan, folder)
        return {"id": session.key, **await service.run(lambda: describe_image(session.image))}

    @app.get("/page/scans/{key}/image.nii.gz", include_in_schema=False)
    async def image(key: str) -> Response:
        opened = sessions.get(key).image
        return Response(await service.run(lambda: encode_image(opened)), media_type=_GZIP)

    @app.get("/page/scans/{key}/overlay.nii.gz", include_in_schema=False)
    async def overlay(key: str) -> Response:
        opened = sessions.get(key).image
        return Response(await service.run(lambda: empty_overlay(opened)), media_type=_GZIP)

    @app.get("/page/scans/{key}/files/{format_name}", include_in_schema=False)
    async def download(key: str, format_name: str) -> Response:
        session = sessions.get(key)
        async with service.folder() as folder:
            name, content = await service.run(lambda: _export(session, format_name, folder, service))
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type="application/octet-stream", headers=headers)

    @app.delete("/page/scans/{key}", include_in_schema=False)
    async def close_scan(key: str) -> JSONResponse:
        sessions.close(key)
        return JSONResponse({})


def _export(session: Session, format_name: str, folder: Path, service: Service) -> tuple[str, bytes]:
    """Name and content of a download; several files as a zip file."""
    if session.result is None:
        raise ApiError(404, "there is no result yet; ask for a report first", code="no_result")
    check_formats_of(session.result.image, [format_name])
    files = export(session.result, format_name, folder, model=service.settings.model_name)
    if not files:
        raise ApiError(
            404, f"nothing to write as {format_name}, since no phrase has a mask", code="no_result"
        )
    if len(files) == 1:
        name, path = files[0]
        return Path(name).name, path.read_bytes()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files:
            archive.write(path, name)
    return f"{format_name}.zip", stream.getvalue()
