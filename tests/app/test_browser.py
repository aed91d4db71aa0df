"""The page in Chromium: open a scan, ask, press a phrase, see the overlay change, download the result."""

import io
import shutil

import numpy as np
import pydicom
import pytest
from PIL import Image

from tests.app.test_routes import series
from tests.fixtures.servers import png

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian package chromium)"),
]
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *WEBGL])
        yield browser
        browser.close()


@pytest.fixture
def tab(browser, page):
    """A tab with the page; anything that it loads from elsewhere, or logs as an error, fails the test."""
    context = browser.new_context(viewport={"width": 800, "height": 420}, accept_downloads=True)
    tab = context.new_page()
    errors, elsewhere = [], []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda message: errors.append(message.text) if is_error(message) else None)
    tab.on(
        "request",
        lambda request: (
            None if request.url.startswith((page, "blob:", "data:")) else elsewhere.append(request.url)
        ),
    )
    tab.goto(page)
    wait(tab)
    yield tab
    context.close()
    assert not errors
    assert not elsewhere


def is_error(message) -> bool:
    # Chromium reports answers such as 400 too, which the page handles.
    return message.type == "error" and "Failed to load resource" not in message.text


def wait(tab) -> None:
    tab.wait_for_selector("body[data-state=ready]", timeout=120_000)


def open_file(tab, name: str, content: bytes) -> None:
    tab.set_input_files("#files", {"name": name, "mimeType": "application/octet-stream", "buffer": content})
    wait(tab)


def pixels(tab) -> np.ndarray:
    """The viewer as (H, W, 3) int."""
    tab.wait_for_timeout(150)
    return np.asarray(Image.open(io.BytesIO(tab.locator("#viewer").screenshot())).convert("RGB"), dtype=int)


def coloured(picture: np.ndarray) -> int:
    """Pixels that are not grey."""
    return int((np.ptp(picture, axis=2) > 25).sum())


def test_phrases_light_up_in_a_series_and_its_segmentation_downloads(tab, tmp_path):
    open_file(tab, "study.zip", series(tmp_path / "series"))
    tab.uncheck("#crosshair")
    empty = pixels(tab)
    assert np.ptp(empty) > 100, "the slices are visible"
    assert coloured(empty) == 0
    tab.click("#send")
    wait(tab)
    everything = coloured(pixels(tab))
    assert everything > 500
    ball, cube, lost = (tab.locator(".phrase", has_text=text) for text in ("ball", "cube", "fracture"))
    assert lost.is_disabled()
    ball.focus()
    tab.keyboard.press("Enter")
    wait(tab)
    assert ball.get_attribute("aria-pressed") == "true"
    with_ball = pixels(tab)
    place = tab.inner_text("#place")
    cube.click()
    wait(tab)
    assert ball.get_attribute("aria-pressed") == "false"
    assert tab.inner_text("#place") != place, "the cross-hair jumps"
    with_cube = pixels(tab)
    assert 0 < coloured(with_cube) < coloured(with_ball)
    tab.fill("#opacity", "0")
    assert coloured(pixels(tab)) == 0
    tab.fill("#opacity", "1")
    assert coloured(pixels(tab)) > 0
    with tab.expect_download() as download:
        tab.click("button[data-format=dicom-seg]")
    segmentation = pydicom.dcmread(download.value.path())
    assert segmentation.Modality == "SEG"
    assert [item.SegmentLabel for item in segmentation.SegmentSequence] == ["ball"]


def test_conversation_window_and_keys_of_an_image_and_a_sample(tab, page_app):
    open_file(tab, "image.png", png(60, 80))
    assert tab.locator("button[data-format=dicom-seg]").is_disabled()
    tab.select_option("#task", "question")
    for number, question in enumerate(("What is this?", "Are you sure?"), start=1):
        tab.fill("#prompt", question)
        tab.press("#prompt", "Enter")
        wait(tab)
        assert tab.locator(".answer").count() == number
    tab.select_option("#samples", "ball")
    wait(tab)
    assert tab.locator(".answer").count() == 0, "another scan, another conversation"
    place = tab.inner_text("#place")
    tab.focus("#viewer")
    tab.keyboard.press("PageUp")
    assert tab.inner_text("#place") != place
    before = pixels(tab)
    tab.fill("#level", "5000")
    tab.press("#level", "Tab")
    assert (pixels(tab) != before).any()
    tab.select_option("#task", "segment")
    tab.fill("#prompt", "liver, left kidney")
    tab.click("#send")
    wait(tab)
    assert tab.locator(".phrase").all_inner_texts() == ["liver", "left kidney"]


def test_wrong_file_and_server_error_are_said_in_words(tab):
    tab.set_input_files("#files", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"hello"})
    tab.wait_for_selector("#status.error")
    assert "known type" in tab.inner_text("#status")
