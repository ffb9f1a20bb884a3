import http.server
import json
import os
import re
import select
import shutil
import subprocess
import threading
import time

import numpy as np
import pytest
from PIL import Image

from deblur_gan.evaluation import Row, summarize
from deblur_gan.metrics import METRICS
from deblur_gan.report import WINDOW, Example, Section, error_map, most_changed, thumbnail, write_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1200,900 --remote-debugging-pipe"
)
GAINS = [0.5, -1.25, 10.0, float("nan"), 9.5, float("inf")]
GAIN = 5  # its column in the table of images


def picture(height=240, width=320):
    """Every pixel tells where it is: red grows to the right, green downwards."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 128)], axis=-1).astype(np.uint8)


def row(name, gain, sequence="street"):
    """Scores with this gain in PSNR; not a number between two infinities."""
    blurred, restored = (20.0, 20.0 + gain) if gain == gain else (float("inf"), float("inf"))
    scores = [dict.fromkeys(METRICS, 0.5) | {"psnr": psnr} for psnr in (blurred, restored)]
    return Row("full", sequence, name, 240, 320, *scores, seconds=1.0)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "small.jpg").write_bytes(thumbnail(picture()))
    sharp = picture()
    blurred = np.clip(sharp.astype(int) + 20, 0, 255).astype(np.uint8)
    restored = blurred.copy()
    restored[100:140, 200:240] = sharp[100:140, 200:240]
    rows = [row(f"image {n}", gain) for n, gain in enumerate(GAINS)]
    example = Example("Best gain", rows[2], sharp, blurred, restored)
    summary = {"overall": summarize(rows), "sequences": {"<b>street": summarize(rows[:2])}}
    section = Section("full", summary, [(shown, folder / "small.jpg") for shown in rows], [example])
    path = folder / "index.html"
    facts = {"Data": "images/test\u202e"}
    write_page(path, "Deblurring with <weights> & co", facts, [section], ["x\x1b.png"])
    return path


class Browser:
    """A headless Chromium with one page, driven through DevTools messages; the mouse and the keys are real ones."""

    def __init__(self, profile):
        to_child, self._to = os.pipe()
        self._from, from_child = os.pipe()

        def connect():
            # Chromium reads messages from descriptor 3 and writes them to 4; neither pair may overwrite the other.
            read, write = os.dup(to_child), os.dup(from_child)
            os.dup2(read, 3)
            os.dup2(write, 4)
            os.set_inheritable(3, True)
            os.set_inheritable(4, True)

        self._process = subprocess.Popen(
            [CHROMIUM, *FLAGS.split(), f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=connect,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        self._buffer, self._number, self.events, self._session = b"", 0, [], None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answer = self._wait(lambda received: received.get("id") == self._number)
        assert "error" not in answer, answer
        return answer["result"]

    def _wait(self, wanted):
        deadline = time.monotonic() + 60
        while True:
            while b"\0" in self._buffer:
                line, self._buffer = self._buffer.split(b"\0", 1)
                received = json.loads(line)
                if "method" in received:
                    self.events.append(received)
                if wanted(received):
                    return received
            assert select.select([self._from], [], [], max(0, deadline - time.monotonic()))[0], "Chromium is silent"
            self._buffer += os.read(self._from, 1 << 20)

    def open(self, url):
        self.send("Page.navigate", url=url)
        while self.value("document.readyState") != "complete" or self.value("location.href") != url:
            time.sleep(0.02)

    def value(self, expression):
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def click(self, selector, across=0.5, down=0.5):
        """A press of the left button at this place of the first element that fits."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{element}.scrollIntoView({{block: 'center'}})")
        box = self.value(f"(({{x, y, width, height}}) => [x, y, width, height])({element}.getBoundingClientRect())")
        place = {"x": box[0] + across * box[2], "y": box[1] + down * box[3], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, **place)

    def press(self, key, **more):
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, **more)

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("needs Chromium or Chrome on the PATH (Debian: apt-get install chromium)")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def column(browser, number):
    cells = f"[...document.querySelectorAll('.images tbody tr')].map((row) => row.cells[{number}].textContent)"
    return browser.value(cells)


def test_click_on_a_heading_sorts(page, browser):
    browser.open(page.as_uri())
    as_written = column(browser, GAIN)
    assert as_written == ["+0.50", "-1.25", "+10.00", "+nan", "+9.50", "+inf"]
    browser.click(f".images th:nth-child({GAIN + 1}) button")
    assert column(browser, GAIN) == ["-1.25", "+0.50", "+9.50", "+10.00", "+inf", "+nan"]
    assert browser.value(f"document.querySelector('.images th:nth-child({GAIN + 1})').ariaSort") == "ascending"
    browser.click(f".images th:nth-child({GAIN + 1}) button")
    assert column(browser, GAIN) == ["+inf", "+10.00", "+9.50", "+0.50", "-1.25", "+nan"]
    assert column(browser, 1)[1] == "street/image 2"  # lines stay whole
    browser.click(".images th:nth-child(2) button")
    assert column(browser, GAIN) == as_written
    assert browser.value("document.querySelectorAll('[aria-sort]').length") == 1


def test_heading_sorts_by_keyboard(page, browser):
    browser.open(page.as_uri())
    browser.value(f"document.querySelector('.images th:nth-child({GAIN + 1}) button').focus()")
    browser.press("Enter", text="\r")
    assert column(browser, GAIN)[0] == "-1.25"


def frame(browser):
    return [int(browser.value(f"document.querySelector('.example').dataset.{axis}")) for axis in "xy"]


def middle_of_crop(browser, number):
    """Red and green in the middle of a zoomed crop, as the place in the picture that they tell."""
    pixel = (
        f"(() => {{ const c = document.querySelectorAll('canvas')[{number}]; "
        "return [...c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data] })()"
    )
    red, green, *_ = browser.value(pixel)
    return red * 320 / 255, green * 240 / 255


def test_click_and_arrow_keys_move_the_frame(page, browser):
    browser.open(page.as_uri())
    x, y = frame(browser)
    assert x <= 200 and x + WINDOW >= 240 and y <= 100 and y + WINDOW >= 140  # where restoring changed most

    browser.click(".picture", 0.5, 0.5)
    assert frame(browser) == pytest.approx([160 - WINDOW / 2, 120 - WINDOW / 2], abs=2)
    assert middle_of_crop(browser, 0) == pytest.approx([160, 120], abs=6)

    x, y = frame(browser)
    browser.value("document.querySelector('.frame').focus()")
    browser.press("ArrowRight")
    browser.press("ArrowDown", modifiers=8)  # Shift
    assert frame(browser) == [x + 8, y + WINDOW // 2]
    assert middle_of_crop(browser, 0) == pytest.approx([168, 168], abs=6)

    browser.click(".panel:nth-child(3) .picture", 0.99, 0.01)
    assert frame(browser) == [320 - WINDOW, 0]
    left = browser.value("document.querySelectorAll('.frame')[1].style.left")
    assert float(left.rstrip("%")) == pytest.approx(100 * (320 - WINDOW) / 320, abs=0.01)


def test_page_asks_nobody_and_throws_nothing(page, browser):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser.events.clear()
    browser.open(page.as_uri())
    urls = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert urls[0] == page.as_uri() and all(url.startswith("data:") for url in urls[1:])
    assert [e for e in browser.events if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")] == []

    # Even a page that tried could not.
    browser.value(
        f"new Promise((done) => {{ const image = new Image(); image.onerror = image.onload = done; "
        f"image.src = 'http://127.0.0.1:{server.server_port}/'; }})"
    )
    time.sleep(0.3)
    assert asked == []
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(page, browser, scheme):
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(page.as_uri())

    def luminance(colour):
        channels = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
        return float(np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ WEIGHTS)

    style = "getComputedStyle(document.querySelector('{}')).{}"
    ground = luminance(browser.value(style.format("body", "backgroundColor")))
    assert (ground < 0.1) == (scheme == "dark")
    for selector in ("body", "p", "td.good", "td.bad", "th", "dt"):
        ink = luminance(browser.value(style.format(selector, "color")))
        contrast = (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05)
        assert contrast >= 4.5, f"{selector}: contrast {contrast:.1f}"  # WCAG AA


WEIGHTS = np.array([0.2126, 0.7152, 0.0722])


def test_page_names_nothing_outside_itself(page):
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert set(re.findall(r"https?://[^\s\"'<]*", text)) == set()
    assert all(source.startswith("data:image/jpeg;base64,") for source in re.findall(r'src="([^"]*)"', text))
    assert "Deblurring with &lt;weights&gt; &amp; co" in text and "<weights>" not in text
    assert "&lt;b&gt;street" in text and "<b>street" not in text
    assert "Files left out: 1" in text and "x\\x1b.png" in text and "images/test\\u202e" in text
    assert text.replace("\n", "").isprintable()


def test_error_map_is_black_where_nothing_differs_and_white_where_much_does():
    sharp = np.full((4, 4, 3), 100, np.uint8)
    image = sharp.copy()
    image[0, 0] = 250
    image[1, 1] = 0
    image[2, 2] = 90
    colours = error_map(sharp, image)
    assert (colours[3, 3] == 0).all() and (colours[0, 0] == 255).all() and (colours[1, 1] == 255).all()
    assert 0 < colours[2, 2].sum() < 3 * 255


def test_most_changed_finds_gain_and_harm_alike():
    sharp = np.full((300, 400, 3), 100, np.uint8)
    spoiled = sharp.copy()
    spoiled[200:220, 310:330] = 200
    for blurred, restored in ((spoiled, sharp), (sharp, spoiled)):
        x, y = most_changed(sharp, blurred, restored)
        assert x <= 310 and x + WINDOW >= 330 and y <= 200 and y + WINDOW >= 220
    small = sharp[:20, :500]
    assert most_changed(small[:, :30], small[:, :30], small[:, :30]) == (0, 0)


def test_large_pictures_are_cropped_and_the_page_stays_bounded(tmp_path):
    random = np.random.default_rng(0)
    sharp = np.asarray(Image.fromarray(random.integers(0, 256, (200, 300, 3), dtype=np.uint8)).resize((1500, 1400)))
    spoiled = sharp.copy()
    spoiled[1350:, 1450:] = 0
    summary = {"overall": summarize([row("large", 1.0)]), "sequences": {}}
    section = Section("full", summary, [], [Example("Best gain", row("large", 1.0), sharp, spoiled, sharp)])
    write_page(tmp_path / "index.html", "title", {}, [section], [])
    text = (tmp_path / "index.html").read_text()
    assert 'width="1280" height="1280"' in text and "(a part of the 1500x1400 picture)" in text
    x, y = (int(re.search(rf'data-{axis}="(\d+)"', text).group(1)) for axis in "xy")
    assert x > 1280 - 2 * WINDOW and y > 1280 - 2 * WINDOW


def test_thumbnails_are_small():
    random = np.random.default_rng(0)
    assert len(thumbnail(random.integers(0, 256, (720, 1280, 3), dtype=np.uint8))) < 10_000
