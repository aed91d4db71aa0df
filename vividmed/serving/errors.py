"""Errors in the form of OpenAI's API: ``{"error": {"message", "type", "param", "code"}}``."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from vividmed.errors import VividMedError

logger = logging.getLogger(__name__)

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}


class ErrorObject(BaseModel):
    """What went wrong."""

    message: str
    type: str = Field(description="kind of error, such as invalid_request_error")
    param: str | None = Field(None, description="field of the request that is to blame")
    code: str | None = Field(None, description="short name of the error")


class ErrorBody(BaseModel):
    """Body of every answer with a status of 400 or above."""

    error: ErrorObject


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request is wrong, not allowed, too large or too early."},
    "5XX": {"model": ErrorBody, "description": "The server failed, is busy or is shutting down."},
}


class ApiError(Exception):
    """An error with its HTTP status.

    Args:
        status: HTTP status.
        message: one line for the caller.
        code: short name for programs.
        param: field of the request that is to blame.
        retry_after: seconds after which the caller may try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = " ".join(message.split())
        self.code = code or _CODES.get(status)
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        # A message may quote half a surrogate pair of the request, which JSON in UTF-8 cannot carry.
        message = self.message.encode(errors="replace").decode()
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The HTTP answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def as_api_error(error: Exception) -> ApiError:
    """Turn any exception into an error for the caller; what is not the caller's fault goes to the log."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, VividMedError):
        return ApiError(400, str(error), code="invalid_value")
    if isinstance(error, ValidationError | RequestValidationError):
        return _invalid(error)
    logger.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed to answer; its log says why", code="internal_error")


def _invalid(error: ValidationError | RequestValidationError) -> ApiError:
    # Where a field may have several types, the error deepest inside belongs to the type that was meant.
    deepest = max(error.errors(), key=lambda item: len(item["loc"]))
    place = ".".join(str(part) for part in deepest["loc"])[:200]
    return ApiError(400, f"{place or 'body'}: {deepest['msg']}", code="invalid_request", param=place or None)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every exception with an error object."""

    async def answer(_request: Request, error: Exception) -> JSONResponse:
        return as_api_error(error).response()

    async def answer_http(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        response = ApiError(error.status_code, str(error.detail)).response()
        response.headers.update(error.headers or {})
        return response

    for kind in (ApiError, VividMedError, RequestValidationError, ValidationError, Exception):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(HTTPException, answer_http)
