"""The server under load: answers lost or mixed up, memory, and the times of requests.

    python -m benchmarks.serving [--model outputs/grg] [--requests 200] [--clients 16] [--malformed 0.05]

Starts `vividmed serve` on loopback and sends it requests from several clients at once. Every request has an image of its
own size and a question of its own, so that its right answer differs from all others: the answer must state that
size, and its text must be the one that the same model writes without a server. A share of the requests is malformed and
must be answered by one error. Half of the answers are streamed. Without --model, a tiny random model is used.
"""

import argparse
import base64
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # found from a clone, whatever the working folder

import numpy as np
from openai import APIStatusError, OpenAI
from PIL import Image

from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.processing.processing_vividmed import VividMedProcessor

GROWTH_TARGET = 0.05
"""Largest growth of the server's memory from the first half of the requests to the second."""
_MALFORMED: tuple[dict[str, Any], ...] = (
    {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:;base64,AAAA"}}]}
        ]
    },
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
    {"messages": [{"role": "system", "content": "You are a radiologist."}]},
    {"temperature": -1},
    {"messages": "What is this?"},
)


@dataclass
class Load:
    """Outcome of a run.

    Attributes:
        seconds: time of each answered request.
        lost: requests without the answer or error that they should have.
        mixed: requests with the answer of another request.
        memory: megabytes of the server after each half; empty if it cannot be read.
    """

    seconds: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Growth of the memory in the second half, as a share of it."""
        return self.memory[1] / self.memory[0] - 1 if self.memory else 0.0


def request_size(number: int) -> tuple[int, int]:
    """Height and width of the image of a request; different for every request."""
    return 20 + number % 97, 20 + number // 97


def request_image(number: int) -> Image.Image:
    """The image of a request."""
    height, width = request_size(number)
    pixels = np.random.default_rng(number).integers(0, 255, (height, width))
    return Image.fromarray(pixels.astype(np.uint8))


def request_question(number: int) -> str:
    """The question of a request."""
    return f"What does image {number} show?"


def send(client: OpenAI, model: str, number: int, *, tokens: int, expected: str | None, load: Load) -> None:
    """Send a well-formed request and check its answer."""
    stream = io.BytesIO()
    request_image(number).save(stream, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": request_question(number)},
    ]
    started = time.perf_counter()
    try:
        answer: Any = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": content}],  # type: ignore[misc,list-item]
            max_tokens=tokens,
            stream=number % 2 == 0,
            extra_body={"vividmed": {"formats": ["json"]}},
        )
        if number % 2 == 0:
            chunks = list(answer)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            places = chunks[-1].vividmed
        else:
            text, places = answer.choices[0].message.content, answer.vividmed
    except Exception as error:
        load.lost.append(f"request {number}: {type(error).__name__}: {str(error)[:200]}")
        return
    load.seconds.append(time.perf_counter() - started)
    right_image = places["grid"]["size"] == [1, *request_size(number)]
    right_question = places["question"] == request_question(number) and places["text"] == text
    if not (right_image and right_question and expected in (None, text)):
        load.mixed.append(f"request {number}: {text!r} instead of {expected!r}")


def send_malformed(client: OpenAI, model: str, number: int, load: Load) -> None:
    """Send a malformed request, which must be refused."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "x"}]}
    try:
        client.chat.completions.create(**(body | _MALFORMED[number % len(_MALFORMED)]))
    except APIStatusError as error:
        if error.status_code == 400:
            return
        load.lost.append(f"malformed request {number}: status {error.status_code}")
    else:
        load.lost.append(f"malformed request {number}: answered")


def make_clients(address: str, count: int) -> list[OpenAI]:
    """Clients without retries, so that a lost answer is seen."""
    return [OpenAI(base_url=f"{address}/v1", api_key="unused", max_retries=0) for _ in range(count)]


def run_load(
    clients: Sequence[OpenAI],
    model: str,
    numbers: Sequence[int],
    *,
    malformed: float,
    tokens: int,
    expected: Sequence[str] | None,
    load: Load,
) -> None:
    """Send requests from several clients at once.

    Args:
        clients: clients that call the server at the same time.
        model: its name.
        numbers: numbers of the requests, by which their images and questions differ.
        malformed: share of malformed requests.
        tokens: longest answer.
        expected: right text of every request, by its number.
        load: collects the outcome.
    """
    every = round(1 / malformed) if malformed else 0

    def work(client: OpenAI, share: Sequence[int]) -> None:
        for number in share:
            if every and number % every == every - 1:
                send_malformed(client, model, number // every, load)
            else:
                text = None if expected is None else expected[number]
                send(client, model, number, tokens=tokens, expected=text, load=load)

    count = len(clients)
    with ThreadPoolExecutor(count) as threads:
        work_done = [
            threads.submit(work, client, numbers[place::count]) for place, client in enumerate(clients)
        ]
    for done in work_done:
        done.result()


def expected_texts(model: Path, count: int, tokens: int) -> list[str]:
    """Compute the right answer to every request with the model itself, without a server."""
    from vividmed.inference.predictor import Predictor

    predictor = Predictor(model, device="cpu")
    return [
        predictor(
            request_image(number), task="vqa", prompt=request_question(number), max_new_tokens=tokens
        ).grounded.text
        for number in range(count)
    ]


def memory_of(process_id: int) -> float:
    """Resident memory of a process in megabytes; Linux only."""
    status = Path(f"/proc/{process_id}/status")
    if not status.is_file():
        return 0.0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> int:
    """Print the figures; returns 1 if one is beyond its target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--malformed", type=float, default=0.05)
    parser.add_argument("--tokens", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or _tiny_model(Path(folder) / "tiny")
        expected = expected_texts(model, args.requests, args.tokens)
        load = Load()
        command = [sys.executable, "-m", "vividmed.cli.main", "serve", "--model", str(model), "--port", "0"]
        with subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            address = process.stdout.readline().split()[1].removesuffix("/v1")
            clients = make_clients(address, args.clients)
            numbers = range(args.requests)
            started = time.perf_counter()
            for half in (numbers[: args.requests // 2], numbers[args.requests // 2 :]):
                run_load(
                    clients,
                    model.resolve().name,
                    half,
                    malformed=args.malformed,
                    tokens=args.tokens,
                    expected=expected,
                    load=load,
                )
                load.memory.append(memory_of(process.pid))
            seconds = time.perf_counter() - started
            process.terminate()
    return _report(load, args.requests, args.clients, seconds)


def _tiny_model(folder: Path) -> Path:
    processor = VividMedProcessor.tiny()
    VividMedForCausalLM(VividMedConfig.tiny()).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _report(load: Load, requests: int, clients: int, seconds: float) -> int:
    quantiles = statistics.quantiles(load.seconds, n=20, method="inclusive")
    print(
        f"{requests} requests from {clients} clients in {seconds:.1f} s: {requests / seconds:.1f} per second"
    )
    print(f"time of an answer: p50 {statistics.median(load.seconds):.3f} s, p95 {quantiles[-1]:.3f} s")
    print(f"lost answers: {len(load.lost)} (target 0), mixed answers: {len(load.mixed)} (target 0)")
    print(
        f"memory of the server: {load.memory[0]:.0f} MB after one half, {load.memory[1]:.0f} MB after both; "
        f"growth {load.growth:.1%} (target below {GROWTH_TARGET:.0%})"
    )
    for line in (load.lost + load.mixed)[:10]:
        print(line)
    return int(bool(load.lost or load.mixed) or load.growth >= GROWTH_TARGET)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
