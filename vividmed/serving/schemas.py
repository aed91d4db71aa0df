"""Requests and answers, as the OpenAPI page describes them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vividmed.inference.results import FORMATS

MaskEncoding = Literal["nifti", "packed", "none"]

_MASKS = (
    "how masks are sent: `nifti` (base64 of a .nii.gz file on the grid of the image), `packed` (bounding box, and base64 "
    "of the zlib-compressed bits inside it, z slowest), or `none`"
)
_FILES = f"files to send with the answer, base64: {', '.join(FORMATS)}"


class GroundingOptions(BaseModel):
    """Extension of a chat request: what to send besides the text."""

    model_config = ConfigDict(extra="forbid")

    grounding: bool = Field(
        False, description="mark phrases of the answer and say where they are in the first image"
    )
    masks: MaskEncoding = Field("nifti", description=_MASKS)
    formats: list[str] = Field([], max_length=len(FORMATS), description=_FILES)


class TextPart(BaseModel):
    """Text of a message."""

    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    """Address of an image."""

    url: str = Field(
        description="data URL with a PNG, JPEG, NIfTI, DICOM or zip file; other addresses are not fetched"
    )


class ImagePart(BaseModel):
    """An image; without an address, the next file of a multipart request."""

    type: Literal["image_url", "image"]
    image_url: ImageUrl | str | None = None


class InlineFile(BaseModel):
    """Content of a file."""

    file_data: str = Field(description="data URL or base64 of the file")
    filename: str | None = None


class FilePart(BaseModel):
    """An image as a file."""

    type: Literal["file"]
    file: InlineFile


ContentPart = Annotated[TextPart | ImagePart | FilePart, Field(discriminator="type")]


class ChatMessage(BaseModel):
    """A message; user and assistant alternate, beginning and ending with the user."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[ContentPart]


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    include_usage: bool | None = False


class ChatRequest(BaseModel):
    """As OpenAI's chat completions, with an extension field `vividmed`."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=200)
    max_tokens: int | None = Field(None, ge=1, description="longest answer; default 512")
    max_completion_tokens: int | None = Field(None, ge=1, description="as max_tokens")
    temperature: float | None = Field(None, ge=0, le=2, description="default 0: the most likely token")
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = None
    stop: Any = None
    tools: Any = None
    functions: Any = None
    logprobs: bool | None = None
    response_format: Any = None
    vividmed: GroundingOptions = GroundingOptions.model_validate({})


class ScanRequest(BaseModel):
    """What requests about one scan have in common."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="name of the model; the one that is served by default")
    image: str | None = Field(None, description="data URL of the scan; as a file in a multipart request")
    full_resolution: bool = Field(False, description="draw masks again on the voxels of the image")
    masks: MaskEncoding = Field("nifti", description=_MASKS)
    formats: list[str] = Field([], max_length=len(FORMATS), description=_FILES)


class GroundRequest(ScanRequest):
    """Find the phrases of a given report."""

    text: str = Field(
        min_length=1,
        max_length=20_000,
        description="the report; phrases are marked `<p>phrase</p>`, or found by rules if none is marked",
    )


class SegmentRequest(ScanRequest):
    """Draw what is named."""

    targets: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        min_length=1, max_length=50, description="structures or findings, best by names of the taxonomy"
    )


class Grid(BaseModel):
    """Grid of the image as it was read; arrays are (z, y, x)."""

    size: list[int]
    spacing_mm: list[float]
    affine_xyz_to_ras_mm: list[list[float]]
    placed_in_patient: bool


class Mask(BaseModel):
    """A mask in the encoding that was asked for."""

    encoding: Literal["nifti", "packed"]
    data: str = Field(description="base64")
    box: list[int] | None = Field(None, description="of `packed`: z0, y0, x0, z1, y1, x1, half-open")


class PhrasePlace(BaseModel):
    """A phrase of the text and where it is in the image."""

    model_config = ConfigDict(extra="allow")

    number: int
    text: str
    start: int = Field(description="first character in the text")
    end: int = Field(description="one past the last character")
    boxes: list[list[float]] = Field(
        description="voxel corners z0, y0, x0, z1, y1, x1, half-open, best first"
    )
    boxes_mm: list[list[float]] = Field(description="x0, y0, z0, x1, y1, z1 in RAS+ mm")
    scores: list[float] = Field(description="one per box")
    mask: Mask | None
    slices: list[int] | None = Field(
        description="slice (z, y, x) that shows most of the phrase; null if not found"
    )
    colour: list[int] = Field(description="sRGB, as in all exported files")
    measured: dict[str, Any] | None = Field(description="measurements of the mask; not written by the model")


class ExportedFile(BaseModel):
    """A file of the result."""

    name: str
    format: str
    data: str = Field(description="base64")


class Grounding(BaseModel):
    """The text of the model with the places of its phrases."""

    notice: str
    task: str
    question: str
    text: str
    grid: Grid
    phrases: list[PhrasePlace]
    files: list[ExportedFile]


class Usage(BaseModel):
    """Numbers of tokens; a prompt counts its images."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    """The only choice."""

    index: int = 0
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class ChatCompletion(BaseModel):
    """As OpenAI's, with an extension field `vividmed` if grounding or files were asked for."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    vividmed: Grounding | None = None


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "vividmed"
    draws_masks: bool
    finds_boxes: bool


class ModelList(BaseModel):
    """The models that are served: one."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(BaseModel):
    """Whether the server answers."""

    status: Literal["ok", "shutting down"]
    waiting: int = Field(description="jobs that wait for the model")
