"""Bodies of requests: JSON, or multipart forms with files."""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request

from vividmed.serving.errors import ApiError

MAX_FILES = 5_000
FILE_FIELDS = ("file", "image")
_LISTS = ("targets", "formats")

Body = TypeVar("Body", bound=BaseModel)


async def read_body(request: Request, schema: type[Body]) -> tuple[Body, list[bytes]]:
    """Read and check a body.

    A multipart form has the JSON body as its field ``request``, or the fields of that body one by one, lists separated
    by commas; and files under ``file`` or ``image``.

    Args:
        request: to read.
        schema: of the JSON body.

    Returns:
        The body, and the content of the files.

    Raises:
        ApiError: another type of content, or a damaged form.
        ValidationError: the body does not fit the schema.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if content_type == "multipart/form-data":
            return await _read_form(request, schema)
        if content_type == "application/json" or (
            content_type.startswith("application/") and content_type.endswith("+json")
        ):
            body = await request.body()
            # Large data URLs take long enough to stop other requests.
            return await run_in_threadpool(schema.model_validate_json, body), []
    except ClientDisconnect as error:
        raise ApiError(400, "the request ended before its body", code="incomplete_body") from error
    raise ApiError(415, "send application/json or multipart/form-data")


async def read_form(request: Request) -> tuple[dict[str, Any], list[bytes]]:
    """Read a multipart form: its text fields, and the content of its files.

    Raises:
        ApiError: the form is damaged, or has an unexpected field.
    """
    files: list[bytes] = []
    fields: dict[str, Any] = {}
    try:
        async with request.form(max_files=MAX_FILES, max_fields=100, max_part_size=2**22) as form:
            for name, value in form.multi_items():
                shown = name[:100]
                if isinstance(value, UploadFile):
                    if name not in FILE_FIELDS:
                        raise ApiError(400, f"files belong into the field file, not {shown!r}", param=shown)
                    files.append(await value.read())
                elif name in fields and name not in _LISTS:
                    raise ApiError(400, f"the field {shown} is given twice", param=shown)
                else:
                    fields[name] = [*fields.get(name, []), *_split(value)] if name in _LISTS else value
    except MultiPartException as error:
        raise ApiError(
            400, f"the multipart form is damaged ({error.message})", code="invalid_form"
        ) from error
    except HTTPException as error:
        raise ApiError(400, f"the multipart form is damaged ({error.detail})", code="invalid_form") from error
    except (LookupError, ValueError) as error:
        raise ApiError(400, f"the multipart form is damaged ({error})", code="invalid_form") from error
    return fields, files


async def _read_form(request: Request, schema: type[Body]) -> tuple[Body, list[bytes]]:
    fields, files = await read_form(request)
    if "request" in fields:
        others = [name for name in fields if name != "request"]
        if others:
            raise ApiError(
                400,
                f"the field {others[0][:100]} belongs into the JSON of the field request",
                param="request",
            )
        return schema.model_validate_json(fields["request"]), files
    return schema.model_validate_json(json.dumps(fields)), files


def _split(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def body_description(schema: type[BaseModel]) -> dict[str, Any]:
    """The request body for OpenAPI."""
    reference = {"$ref": f"#/components/schemas/{schema.__name__}"}
    form = {
        "type": "object",
        "properties": {
            "request": {"type": "string", "description": f"JSON of a {schema.__name__}"},
            "file": {
                "type": "array",
                "items": {"type": "string", "format": "binary"},
                "description": "PNG, JPEG, NIfTI, DICOM or zip file, or all DICOM files of one series",
            },
        },
        "required": ["request"],
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": reference},
                "multipart/form-data": {"schema": form},
            },
        }
    }


def request_schemas(schemas: Sequence[type[BaseModel]]) -> dict[str, Any]:
    """Definitions of request bodies for ``components.schemas``."""
    from pydantic.json_schema import models_json_schema

    _, described = models_json_schema(
        [(schema, "validation") for schema in schemas], ref_template="#/components/schemas/{model}"
    )
    return described["$defs"]
