"""Chat completions through the client of OpenAI."""

import base64
import gzip
import json
import threading

import nibabel as nib
import numpy as np
import openai
import pytest

from tests.fixtures.dicom_files import write_series
from tests.fixtures.servers import nifti, png, zipped
from vividmed.processing.reading import read_encoded
from vividmed.serving.jobs import QuestionJob


def data_url(content: bytes, media_type: str = "application/octet-stream") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def question(content: bytes, text: str = "What is the modality?") -> list[dict]:
    image = {"type": "image_url", "image_url": {"url": data_url(content)}}
    return [{"role": "user", "content": [{"type": "text", "text": text}, image]}]


def ask(client, messages, **options):
    return client.chat.completions.create(model="tiny", messages=messages, **({"max_tokens": 6} | options))


def test_answer_is_that_of_the_model_with_its_usage(client, predictor):
    answer = ask(client, question(png()))
    expected = predictor(
        read_encoded(png(), "p"), task="vqa", prompt="What is the modality?", max_new_tokens=6
    )
    choice = answer.choices[0]
    assert choice.message.content == expected.grounded.text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 6
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 6
    assert answer.model == "tiny"
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_text_streams_in_pieces_before_the_answer_ends(client):
    whole = ask(client, question(png()), max_tokens=12)
    stream = ask(client, question(png()), max_tokens=12, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(piece or "" for piece in pieces) == whole.choices[0].message.content
    assert sum(map(bool, pieces)) > 1
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons == [None] * (len(reasons) - 1) + ["length"]
    assert chunks[-1].usage.completion_tokens == 12
    assert len({chunk.id for chunk in chunks}) == 1


def test_first_piece_arrives_while_the_model_still_writes(client, monkeypatch):
    seen = threading.Event()
    waited = []
    receive = QuestionJob.receive

    def watched(job, token, end_ids):
        ends = receive(job, token, end_ids)
        if job._sent and not waited:
            # The model goes on when the client has seen the beginning of its text.
            waited.append(seen.wait(20))
        return ends

    monkeypatch.setattr(QuestionJob, "receive", watched)
    for chunk in ask(client, question(png()), max_tokens=12, stream=True):
        if chunk.choices[0].delta.content:
            seen.set()
    assert waited == [True]


@pytest.mark.parametrize("stream", [False, True])
def test_extension_field_says_where_phrases_are_and_brings_files(client, predictor, monkeypatch, stream):
    phrases_in_every_answer(monkeypatch, predictor)
    options = {"grounding": True, "formats": ["json", "html"]}
    answer = ask(client, question(nifti(), "Report?"), stream=stream, extra_body={"vividmed": options})
    found = list(answer)[-1].vividmed if stream else answer.vividmed
    assert found["text"] == "A ball."
    assert found["grid"]["size"] == [6, 24, 20]
    assert [file["name"] for file in found["files"]] == ["result.json", "report.html"]
    (phrase,) = found["phrases"]
    assert found["text"][phrase["start"] : phrase["end"]] == phrase["text"] == "ball"
    assert phrase["slices"][0] == 1
    mask = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(phrase["mask"]["data"])))
    assert mask.shape == (20, 24, 6)
    assert mask.get_fdata().sum() == 2 * 5 * 5
    assert phrase["measured"]["volume_ml"] == pytest.approx(50 * 0.8 * 0.8 * 3 / 1000)


def phrases_in_every_answer(monkeypatch, predictor):
    """The random model marks no phrases of its own."""
    from vividmed.processing.grounded_text import GroundedText, Phrase

    def generate(*, processor, geometry, grounding_values=None, find_form=None, **inputs):
        predictor.model.generate(**inputs)
        mask = np.zeros(geometry[0].original_size, dtype=bool)
        mask[1:3, 4:9, 4:9] = True
        return [GroundedText("A ball.", [Phrase("ball", 2, 6, mask)])]

    monkeypatch.setattr(predictor.model, "generate_grounded", generate)


def series(folder) -> bytes:
    volume = np.random.default_rng(0).integers(0, 500, (4, 24, 24)).astype(np.int16)
    write_series(folder, volume, RescaleSlope=1, SliceThickness=2.5, StudyInstanceUID="1.2.3")
    files = {f"study/{path.name}": path.read_bytes() for path in folder.iterdir()}
    return zipped({**files, "__MACOSX/x": b"junk", "notes.txt": b"hello"})


def test_images_of_every_kind_and_way_are_read(client, address, tmp_path, app):
    import httpx2

    contents = {"png": png(), "nifti": nifti(), "gz": gzip.compress(nifti()), "dicom": series(tmp_path / "s")}
    contents["zip"] = zipped({"a/scan.nii": nifti()})
    expected = {"png": [1, 24, 20], "dicom": [4, 24, 24]}
    for name, content in contents.items():
        options = {"vividmed": {"formats": ["json"]}}
        answer = ask(client, question(content), max_tokens=1, extra_body=options)
        assert answer.vividmed["grid"]["size"] == expected.get(name, [6, 24, 20]), name
    part = {"type": "file", "file": {"file_data": data_url(nifti()), "filename": "../../ct.nii"}}
    ask(client, [{"role": "user", "content": [part, {"type": "text", "text": "Modality?"}]}], max_tokens=1)
    body = {"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": "Modality?"}]}
    form = {"request": json.dumps(body | {"vividmed": {"formats": ["json"]}})}
    slices = [("file", path.read_bytes()) for path in (tmp_path / "s").iterdir()]
    for files, size in ([[("file", png())], [1, 24, 20]], [slices, [4, 24, 24]]):
        answer = httpx2.post(f"{address}/v1/chat/completions", data=form, files=files)
        assert answer.json()["vividmed"]["grid"]["size"] == size
    assert not list(app.state.service.root.iterdir()), "nothing is kept after the answers"


def test_history_is_answered_as_a_conversation(client):
    messages = [
        *question(png()),
        {"role": "assistant", "content": "CT."},
        {"role": "user", "content": "Where?"},
    ]
    first, second = ask(client, messages[:1]), ask(client, messages)
    assert second.usage.prompt_tokens > first.usage.prompt_tokens
    assert ask(client, [{"role": "user", "content": "No image?"}]).choices


def test_a_seed_repeats_a_drawn_answer(client):
    options = {"temperature": 1.0, "seed": 5, "max_tokens": 12}
    one, two = (ask(client, question(png()), **options).choices[0].message.content for _ in range(2))
    assert one == two


IMAGE = question(png())


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"model": "other"}, 404, "not served"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "last message"),
        ({"messages": [{"role": "system", "content": "x"}, *IMAGE]}, 400, "system"),
        ({"messages": [*IMAGE, *IMAGE]}, 400, "out of turn"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "empty"),
        ({"messages": [{"role": "user", "content": "a <p>phrase</p>"}]}, 400, "<p>"),
        ({"messages": [{"role": "user", "content": "word " * 4000}]}, 400, "reads at most 2,048"),
        ({"messages": [{"role": "user", "content": "x" * 100_001}]}, 400, "characters"),
        ({"messages": question(b"just text")}, 400, "known type"),
        ({"messages": question(b"")}, 400, "empty"),
        ({"messages": question(png()[:60])}, 400, "2D image"),
        ({"messages": question(gzip.compress(b"not NIfTI" * 100))}, 400, "NIfTI"),
        ({"messages": question(zipped({}))}, 400, "zip file"),
        ({"messages": question(zipped({"a": b"x", "b": b"y"}))}, 400, "zip file contains no DICOM"),
        ({"messages": question(b"PK\x03\x04 and then nothing")}, 400, "damaged"),
        ({"messages": question(nib.Nifti1Image(np.zeros((4, 4, 4, 3)), None).to_bytes())}, 400, "3D"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b"}}]}
                ]
            },
            400,
            "not a data URL",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]}
                ]
            },
            400,
            "not a data URL",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:;base64,@"}}],
                    }
                ]
            },
            400,
            "base64",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, 400, "audio"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, 400, "no file is left"),
        ({"max_tokens": 100_000}, 400, "at most"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": -5}, 400, "max_tokens"),
        ({"temperature": -1}, 400, "temperature"),
        ({"n": 3}, 400, "one answer"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}]}, 400, "tools"),
        ({"extra_body": {"vividmed": {"formats": ["docx"]}}}, 400, "docx"),
        ({"extra_body": {"vividmed": {"formats": ["dicom-seg"]}}}, 400, "DICOM"),
        ({"extra_body": {"vividmed": {"ground": True}}}, 400, "ground"),
        (
            {"extra_body": {"vividmed": {"grounding": True}}, "messages": [{"role": "user", "content": "x"}]},
            400,
            "image",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_wrong_request_is_one_error(client, options, status, words, stream):
    options = {"model": "tiny", "messages": IMAGE, "max_tokens": 1, "stream": stream} | options
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**options)
    error = caught.value
    assert words in error.message
    assert "\n" not in error.body["message"]
    assert "/tmp" not in error.message
    assert error.status_code == status
