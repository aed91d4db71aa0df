"""The page in a browser: the same file, opened from disk, with a script that acts as a reader."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.studies import block_mask, grounded, oriented_volume
from vividmed.export import html

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

READER = """
const seen = {};
const phrases = [...document.querySelectorAll(".phrase")];
const canvas = document.querySelector("canvas");
const captions = () => [...document.querySelectorAll(".bar output")].map((output) => output.value);
const colourful = () => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let i = 0; i < pixels.length; i += 4) count += Math.abs(pixels[i] - pixels[i + 2]) > 20;
  return count;
};
const at = (type, x, y) => {
  const frame = canvas.getBoundingClientRect();
  const place = { clientX: frame.left + x * frame.width, clientY: frame.top + y * frame.height };
  canvas.dispatchEvent(new MouseEvent(type, place));
};
seen.phrases = phrases.map((phrase) => phrase.textContent);
seen.grey = [...document.querySelectorAll(".unfound")].map((phrase) => phrase.textContent);
seen.start = captions();
phrases[1].click();
seen.second = captions();
phrases[0].click();
seen.shown = colourful();
phrases[0].click();
seen.hidden = colourful();
seen.pressed = phrases[0].getAttribute("aria-pressed");
phrases[0].click();
seen.again = colourful();
at("mousemove", 0.75, 0.25);
seen.pointed = phrases.map((phrase) => phrase.classList.contains("bright"));
canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: 1, cancelable: true }));
seen.scrolled = captions();
at("click", 0.999, 0.001);
seen.clicked = captions();
"""


def read_page(page: Path) -> dict:
    """Open the page, let the reader act, and return what it saw."""
    script = f"""<script>(async () => {{
      while (!document.body.dataset.ready) await new Promise((resolve) => setTimeout(resolve, 20));
      {READER}
      document.body.dataset.seen = JSON.stringify(seen);
    }})();</script></body>"""
    tested = page.with_name("tested.html")
    tested.write_text(page.read_text("utf-8").replace("</body>", script), encoding="utf-8")
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={page.parent / 'profile'}",
    ]
    options = ["--window-size=1400,900", "--virtual-time-budget=10000", "--dump-dom", tested.as_uri()]
    dumped = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    return json.loads(unescape(re.search(r'data-seen="([^"]*)"', dumped)[1]))


def test_a_reader_can_scroll_jump_hide_and_point(tmp_path):
    image = oriented_volume("LPS")  # axial slices are shown as stored
    image.array[:] = 0.5
    left_front = block_mask(image.size, (2, 3, 12, 5, 9, 18))
    box = np.array([[9, 10, 2, 12, 16, 7]])
    study = grounded("A cyst, a node, no mass.", cyst={"mask": left_front}, node={"boxes": box}, mass={})

    seen = read_page(html(image, study, tmp_path / "page.html"))

    assert seen["phrases"] == ["cyst1", "node2"]
    assert seen["grey"] == ["mass"]
    assert seen["start"] == ["axial z 2 of 14", "coronal y 3 of 24", "sagittal x 12 of 20"]
    assert seen["second"] == ["axial z 10 of 14", "coronal y 13 of 24", "sagittal x 4 of 20"]
    assert seen["shown"] > 0
    assert (seen["hidden"], seen["pressed"]) == (0, "false")
    assert seen["again"] >= seen["shown"]
    assert seen["pointed"] == [True, False]
    assert seen["scrolled"][0] == "axial z 3 of 14"
    assert seen["clicked"] == ["axial z 3 of 14", "coronal y 0 of 24", "sagittal x 19 of 20"]
