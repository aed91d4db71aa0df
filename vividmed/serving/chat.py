"""``/v1/chat/completions``: OpenAI's protocol, with images in and, on request, places out."""

import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse

from vividmed.inference.predictor import Result
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.messages import turns_from_messages
from vividmed.serving.answers import check_formats_of, describe_result
from vividmed.serving.bodies import body_description, read_body
from vividmed.serving.errors import ERROR_RESPONSES, ApiError, as_api_error
from vividmed.serving.jobs import Answer, Event, Failed, Finished, QuestionJob, Sampling
from vividmed.serving.schemas import ChatCompletion, ChatMessage, ChatRequest, FilePart, ImagePart, TextPart
from vividmed.serving.service import Service, session_key, uploaded_scan
from vividmed.serving.uploads import decode_base64, decode_data_url

DEFAULT_TOKENS = 512
LONGEST_TEXT = 100_000
"""Characters of all messages together, many times what models read: longer texts are not even cut into tokens."""

_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "model": ChatCompletion}
}
_UNSUPPORTED = ("stop", "tools", "functions", "logprobs", "response_format")


def chat_router(service: Service) -> APIRouter:
    """Routes for conversations."""
    router = APIRouter()

    @router.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        openapi_extra=body_description(ChatRequest),
        responses=ERROR_RESPONSES | _EVENTS,
        summary="Answer the last question of a conversation",
    )
    async def chat_completions(request: Request) -> Any:
        body, files = await read_body(request, ChatRequest)
        _check(service, body)
        if body.stream:
            return await _stream(service, request, body, files)
        async with service.folder() as folder:
            chat = await _Chat.read(service, body, files, folder)
            answer = await service.finish(chat.job, request)
            content = {
                **chat.head("chat.completion"),
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": answer.grounded.text},
                        "finish_reason": answer.finish_reason,
                        "logprobs": None,
                    }
                ],
                "usage": _usage(answer),
            }
            places = await chat.places(answer)
            return JSONResponse(content if places is None else {**content, "vividmed": places})

    return router


def _check(service: Service, body: ChatRequest) -> None:
    """Refuse what the server cannot do, before anything is decoded."""
    service.check_model(body.model)
    for name in _UNSUPPORTED:
        value = getattr(body, name)
        if value not in (None, False, [], {"type": "text"}):
            raise ApiError(
                400, f"{name} is not supported; leave it out", code="unsupported_parameter", param=name
            )
    if body.n not in (None, 1):
        raise ApiError(400, "n: one answer is given per request", code="unsupported_parameter", param="n")
    limit = service.settings.max_new_tokens
    if (_max_tokens(body) or 1) > limit:
        raise ApiError(
            400, f"max_tokens: at most {limit} tokens are written", code="invalid_value", param="max_tokens"
        )
    if body.vividmed.grounding and not service.predictor.can_ground:
        raise ApiError(
            400,
            "vividmed.grounding: the model has no segmenters",
            code="unsupported_parameter",
            param="vividmed",
        )
    if sum(map(_text_length, body.messages)) > LONGEST_TEXT:
        raise ApiError(
            400,
            f"messages: together at most {LONGEST_TEXT:,} characters of text are read",
            code="context_length_exceeded",
            param="messages",
        )
    if body.messages[-1].role != "user":
        raise ApiError(
            400, "messages: the last message must be the user's", code="invalid_value", param="messages"
        )


def _text_length(message: ChatMessage) -> int:
    if isinstance(message.content, str):
        return len(message.content)
    return sum(len(part.text) for part in message.content if isinstance(part, TextPart))


def _max_tokens(body: ChatRequest) -> int | None:
    return body.max_completion_tokens or body.max_tokens


class _Chat:
    """A conversation on its way to the model."""

    def __init__(
        self,
        service: Service,
        body: ChatRequest,
        scans: list[MedicalImage],
        messages: list[dict],
        folder: Path,
    ):
        self.service = service
        self.body = body
        self.scans = scans
        self.messages = messages
        self.folder = folder
        self.session: str | None = None
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        settings = service.settings
        self.job = QuestionJob(
            scans,
            messages,
            sampling=_sampling(body),
            max_new_tokens=_max_tokens(body) or min(DEFAULT_TOKENS, settings.max_new_tokens),
            tokenizer=service.predictor.processor.tokenizer,
            timeout=settings.timeout,
        )

    @classmethod
    async def read(cls, service: Service, body: ChatRequest, files: list[bytes], folder: Path) -> "_Chat":
        """Decode the images of a request, and check its messages."""
        messages: list[dict[str, Any]] = []
        scans: list[MedicalImage] = []
        session = None
        waiting = iter(files)
        if files and not any(_is_bare(part) for message in body.messages for part in _parts(message.content)):
            # Files that no message mentions belong to the first question; several are one series.
            scans.append(await service.read_scan(files, folder / "0", name="file"))
            waiting = iter(())
            messages_prefix: list[dict[str, Any]] = [{"type": "image"}]
        else:
            messages_prefix = []
        for number, message in enumerate(body.messages):
            content: list[dict[str, Any]] = messages_prefix if number == 0 else []
            for place, part in enumerate(_parts(message.content)):
                if isinstance(part, ImagePart | FilePart):
                    name = f"messages.{number}.content.{place}"
                    if len(scans) >= service.settings.max_images:
                        raise ApiError(
                            400, f"{name}: at most {service.settings.max_images} images are read", param=name
                        )
                    address = _address(part)
                    key = session_key(service, address)
                    if key is not None:
                        session = key
                        scans.append(uploaded_scan(service, key, name))
                    else:
                        data = _content(part, address, waiting, name)
                        scans.append(await service.read_scan([data], folder / str(len(scans)), name=name))
                    content.append({"type": "image"})
                else:
                    content.append({"type": "text", "text": part if isinstance(part, str) else part.text})
            messages.append({"role": message.role, "content": content})
        if next(waiting, None) is not None:
            raise ApiError(400, "file: there are more files than images in the messages", param="file")
        if scans:
            check_formats_of(scans[0], body.vividmed.formats)
        turns_from_messages(messages, grounding=body.vividmed.grounding)
        if not scans and (body.vividmed.grounding or body.vividmed.formats):
            raise ApiError(400, "vividmed: places need an image; add one to the messages", param="vividmed")
        chat = cls(service, body, scans, messages, folder)
        chat.session = session
        return chat

    def head(self, kind: str) -> dict[str, Any]:
        """Fields that every answer begins with."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.service.settings.model_name,
        }

    async def places(self, answer: Answer) -> dict[str, Any] | None:
        """The extension field, if something of it was asked for."""
        options = self.body.vividmed
        if not self.scans or not (options.grounding or options.formats or self.session):
            return None
        result = Result(
            self.scans[0],
            "report" if options.grounding else "vqa",
            "\n".join(part["text"] for part in self.messages[-1]["content"] if part["type"] == "text"),
            answer.grounded,
        )
        if self.session is not None and self.service.scans is not None:
            self.service.scans.remember(self.session, result)
        return await self.service.run(
            lambda: describe_result(
                result,
                masks=options.masks,
                formats=options.formats,
                folder=self.folder,
                model=self.service.settings.model_name,
            )
        )


def _sampling(body: ChatRequest) -> Sampling:
    """How tokens are chosen; without a temperature, the other settings mean nothing."""
    if not body.temperature:
        return Sampling(body.vividmed.grounding)
    return Sampling(body.vividmed.grounding, body.temperature, body.top_p or 1.0, body.seed)


def _parts(content: Any) -> list[Any]:
    return [content] if isinstance(content, str) else content


def _is_bare(part: Any) -> bool:
    return isinstance(part, ImagePart) and part.image_url is None


def _address(part: ImagePart | FilePart) -> str:
    if isinstance(part, FilePart):
        return part.file.file_data
    if part.image_url is None:
        return ""
    return part.image_url if isinstance(part.image_url, str) else part.image_url.url


def _content(part: ImagePart | FilePart, address: str, files: Iterator[bytes], name: str) -> bytes:
    if _is_bare(part):
        data = next(files, None)
        if data is None:
            raise ApiError(400, f"{name}: mentions an image, but no file is left for it", param=name)
        return data
    if isinstance(part, FilePart) and not address.startswith("data:"):
        return decode_base64(address, param=name)
    return decode_data_url(address, param=name)


def _usage(answer: Answer) -> dict[str, int]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.written_tokens,
        "total_tokens": answer.prompt_tokens + answer.written_tokens,
    }


async def _stream(
    service: Service, request: Request, body: ChatRequest, files: list[bytes]
) -> StreamingResponse:
    """Answer with server-sent events; what is wrong with the request is still an ordinary error."""
    context = service.folder()
    folder = await context.__aenter__()
    try:
        chat = await _Chat.read(service, body, files, folder)
        service.engine.submit(chat.job)
        # Only the model's thread counts the tokens of a text, and may refuse it.
        first = await chat.job.next_event()
        if isinstance(first, Failed):
            raise first.error
    except BaseException as error:
        await context.__aexit__(type(error), error, error.__traceback__)
        raise

    async def events() -> AsyncIterator[str]:
        try:
            yield _event(_chunk(chat, {"role": "assistant", "content": ""}))
            event: Event = first
            while not isinstance(event, Finished):
                if isinstance(event, Failed):
                    raise event.error
                yield _event(_chunk(chat, {"content": event.text}))
                event = await chat.job.next_event()
            for piece in await _last_chunks(chat, event.result):
                yield _event(piece)
            yield "data: [DONE]\n\n"
        except Exception as error:
            yield _event(as_api_error(error).body())
        finally:
            chat.job.cancel()
            await context.__aexit__(None, None, None)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _last_chunks(chat: _Chat, answer: Answer) -> list[dict[str, Any]]:
    last = _chunk(chat, {}, answer.finish_reason)
    places = await chat.places(answer)
    chunks = [last if places is None else {**last, "vividmed": places}]
    if chat.body.stream_options is not None and chat.body.stream_options.include_usage:
        chunks.append({**chat.head("chat.completion.chunk"), "choices": [], "usage": _usage(answer)})
    return chunks


def _chunk(chat: _Chat, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return {**chat.head("chat.completion.chunk"), "choices": [choice]}


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n"
