"""Conversations, and tables of reports."""

import csv
import io
import json
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from benchmarks.fuzz.mutation import damage_bytes, damage_text, damage_value, odd_value
from vividmed.data.raw.documents import read_records
from vividmed.data.raw.report_text import parse_report
from vividmed.data.raw.tables import column, read_table
from vividmed.processing.grounded_text import format_grounded_text, parse_grounded_text
from vividmed.processing.processing_vividmed import VividMedProcessor

_PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20), dtype=np.uint8))
_CONVERSATIONS = (
    [{"role": "user", "content": "What is this?"}],
    [{"role": "user", "content": "A mass?"}, {"role": "assistant", "content": "A<p> mass</p> in the<p> lung</p>."}],
    [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}],
    [{"role": "user", "content": [{"type": "image", "path": "a.png"}, {"type": "text", "text": "And this?"}]}],
    [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "text", "text": "?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A<np> mass</np>."}]},
        {"role": "user", "content": [{"type": "text", "text": "Where?"}]},
    ],
)  # fmt: skip
_REPORT = "EXAMINATION: CT CHEST\n\nFINDINGS: The lungs are clear. 5 mm nodule, see series 3.\n\nIMPRESSION:\n1. No mass."
_WORDS = ("id", "patient", "report", "findings")


class Conversations:
    """Messages with odd items, roles, texts, images and options."""

    name = "conversations"
    share = 20

    def __init__(self) -> None:
        self._processor = VividMedProcessor.tiny()

    def try_one(self, rng: Random, folder: Path) -> None:
        """Give damaged messages to the processor, the template and the parser of grounded text."""
        conversation = damage_value(list(rng.choice(_CONVERSATIONS)), rng)
        images = rng.choice((None, None, _PICTURE, [_PICTURE], [None], [], odd_value(rng)))
        match rng.randrange(5):
            case 0:
                self._processor.apply_chat_template(conversation)
            case 1:
                self._processor.apply_chat_template(conversation, tokenize=True, return_dict=True)
            case 2:
                self._processor(images=images, text=damage_value([["What?"], "Where?"], rng))
            case 3:
                text = damage_text("A<p> mass</p> in the lung.", rng)
                parsed = parse_grounded_text(text)
                spans = [(phrase.start, phrase.end) for phrase in parsed.phrases]
                spans += [(rng.randrange(-5, 40), rng.randrange(-5, 40))] * rng.randrange(2)
                format_grounded_text(parsed.text, spans)
            case _:
                batch = [conversation] if rng.random() < 0.3 else conversation
                options = {
                    "grounding": rng.random() < 0.5,
                    "max_length": rng.choice((None, None, 10, 50, 0, -1)),
                }
                self._processor(images=images, conversations=batch, **options)


class Tables:
    """Tables, JSON records and texts of report data sets."""

    name = "tables"
    share = 15

    def try_one(self, rng: Random, folder: Path) -> None:
        """Damage a table or a list of records and read it."""
        records = [
            {"id": str(number), "patient": f"p{number // 2}", "report": _REPORT, "findings": 'a, b; "c"'}
            for number in range(4)
        ]
        if rng.random() < 0.5:
            path = folder / "table.csv"
            path.write_bytes(self._damage(_as_csv(records), rng))
            rows = read_table(path, *_WORDS)
            column(rows, "id", "patient")
            texts = [row["report"] for row in rows]
        else:
            path = folder / rng.choice(("records.json", "records.jsonl"))
            records = damage_value(records, rng)
            lines = "\n".join(map(_as_json, records)) if path.suffix == ".jsonl" else _as_json(records)
            path.write_bytes(self._damage(lines, rng) if rng.random() < 0.5 else lines.encode())
            texts = [record["report"] for record in read_records(path, *_WORDS)]
        for text in texts:
            if isinstance(text, str):
                parse_report(text)

    def _damage(self, text: str, rng: Random) -> bytes:
        if rng.random() < 0.5:
            return damage_text(text, rng).encode(errors="surrogatepass")
        return damage_bytes(text.encode(), rng)


def _as_csv(records: list[dict[str, str]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _WORDS)
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


def _as_json(value: object) -> str:
    return json.dumps(value, default=str)
