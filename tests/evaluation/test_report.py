import base64
import http.server
import io
import re
import threading

import numpy as np
import pytest
from PIL import Image

from deblur_gan.evaluation.measure import Row, summarize
from deblur_gan.evaluation.metrics import METRICS
from deblur_gan.evaluation.report import WINDOW, Example, Section, error_map, most_changed, thumbnail, write_page

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


@pytest.fixture
def tab(page, chromium):
    """The page in a window of a desktop."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    tab.goto(page.as_uri())
    yield tab
    context.close()


def click(tab, selector, across, down):
    """Presses the left button at this place of an element."""
    box = tab.locator(selector).first.bounding_box()
    tab.locator(selector).first.click(position={"x": across * box["width"], "y": down * box["height"]})


def column(tab, number):
    return tab.eval_on_selector_all(".images tbody tr", f"(rows) => rows.map((row) => row.cells[{number}].textContent)")


def test_click_on_a_heading_sorts(tab):
    as_written = column(tab, GAIN)
    assert as_written == ["+0.50", "-1.25", "+10.00", "+nan", "+9.50", "+inf"]
    heading = tab.locator(f".images th:nth-child({GAIN + 1})")
    heading.locator("button").click()
    assert column(tab, GAIN) == ["-1.25", "+0.50", "+9.50", "+10.00", "+inf", "+nan"]
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").click()
    assert column(tab, GAIN) == ["+inf", "+10.00", "+9.50", "+0.50", "-1.25", "+nan"]
    assert column(tab, 1)[1] == "street/image 2"  # lines stay whole
    tab.locator(".images th:nth-child(2) button").click()
    assert column(tab, GAIN) == as_written
    assert tab.locator("[aria-sort]").count() == 1


def test_heading_sorts_by_keyboard(tab):
    tab.locator(f".images th:nth-child({GAIN + 1}) button").press("Enter")
    assert column(tab, GAIN)[0] == "-1.25"


def frame(tab):
    return [int(tab.locator(".example").get_attribute(f"data-{axis}")) for axis in "xy"]


def middle_of_crop(tab, number):
    """Red and green in the middle of a zoomed crop, as the place in the picture that they tell."""
    middle = "(c) => [...c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data]"
    red, green, *_ = tab.locator("canvas").nth(number).evaluate(middle)
    return red * 320 / 255, green * 240 / 255


def test_click_and_arrow_keys_move_the_frame(tab):
    x, y = frame(tab)
    assert x <= 200 and x + WINDOW >= 240 and y <= 100 and y + WINDOW >= 140  # where restoring changed most

    click(tab, ".picture", 0.5, 0.5)
    assert frame(tab) == pytest.approx([160 - WINDOW / 2, 120 - WINDOW / 2], abs=2)
    assert middle_of_crop(tab, 0) == pytest.approx([160, 120], abs=6)

    x, y = frame(tab)
    tab.locator(".frame").first.press("ArrowRight")
    tab.keyboard.press("Shift+ArrowDown")
    assert frame(tab) == [x + 8, y + WINDOW // 2]
    assert middle_of_crop(tab, 0) == pytest.approx([168, 168], abs=6)

    click(tab, ".panel:nth-child(3) .picture", 0.99, 0.01)
    assert frame(tab) == [320 - WINDOW, 0]
    left = tab.locator(".frame").nth(1).evaluate("(frame) => frame.style.left")
    assert float(left.rstrip("%")) == pytest.approx(100 * (320 - WINDOW) / 320, abs=0.01)


def boundaries(tab):
    """What the sliders say, and where the picture is cut, in percent of its width."""
    said = [float(slider.input_value()) for slider in tab.locator(".compare input").all()]
    cut = "(stack) => [...stack.querySelectorAll('img')].map((image) => getComputedStyle(image).clipPath)"
    clips = tab.locator(".stack").evaluate(cut)
    assert clips[0] == "none"
    assert [float(clip.split()[-1].rstrip("%)")) for clip in clips[1:]] == said
    return said


def test_on_a_phone_blurred_restored_and_sharp_are_compared_in_one_picture(page, chromium):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    tab = context.new_page()
    tab.goto(page.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    names = tab.locator(".stack img").evaluate_all("(images) => images.map((image) => image.alt)")
    assert names == ["blurred", "restored", "sharp"]
    stack = tab.locator(".stack")
    stack.scroll_into_view_if_needed()
    box = stack.bounding_box()
    sliders = tab.locator(".compare input")
    assert box["width"] > 300 and sliders.nth(1).bounding_box()["y"] < box["y"] + box["height"] + 100
    left, right = boundaries(tab)
    assert 0 < left < right < 100

    # A finger: the nearer boundary comes to it.
    tab.touchscreen.tap(box["x"] + 0.1 * box["width"], box["y"] + 40)
    assert boundaries(tab) == [pytest.approx(10, abs=1), right]
    tab.touchscreen.tap(box["x"] + 0.9 * box["width"], box["y"] + 40)
    assert boundaries(tab) == [pytest.approx(10, abs=1), pytest.approx(90, abs=1)]

    # The keyboard; and the boundaries do not cross.
    sliders.nth(0).press("ArrowRight")
    assert boundaries(tab)[0] == pytest.approx(10.5, abs=1)
    sliders.nth(0).press("End")
    assert boundaries(tab) == [100, 100]
    sliders.nth(1).press("Home")
    assert boundaries(tab) == [0, 0]
    context.close()


def test_a_mouse_drags_the_boundary(tab):
    box = tab.locator(".stack").bounding_box()
    tab.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 20, steps=3)
    tab.mouse.up()
    tab.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 20)
    assert boundaries(tab) == [pytest.approx(20, abs=1), pytest.approx(20, abs=1)]


def test_without_scripts_the_panels_are_there_and_no_dead_slider(page, chromium):
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page.as_uri())
    assert tab.locator(".panel img").count() == 5 and tab.locator("input").count() == 0
    context.close()


def test_page_asks_nobody_and_throws_nothing(page, chromium):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    context = chromium.new_context()
    tab = context.new_page()
    urls, said = [], []
    tab.on("request", lambda request: urls.append(request.url))
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(page.as_uri())
    assert urls[0] == page.as_uri() and all(url.startswith("data:") for url in urls[1:])
    assert said == []

    # Even a page that tried could not.
    outcome = tab.evaluate(
        "(url) => new Promise((done) => { const image = new Image(); "
        "image.onerror = image.onload = (event) => done(event.type); image.src = url; })",
        f"http://127.0.0.1:{server.server_port}/",
    )
    assert outcome == "error" and "Content Security Policy" in said[0]
    assert asked == []
    context.close()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(tab, scheme):
    tab.emulate_media(color_scheme=scheme)

    def luminance(selector, style):
        colour = tab.locator(selector).first.evaluate(f"(element) => getComputedStyle(element).{style}")
        channels = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
        return float(np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ WEIGHTS)

    ground = luminance("body", "backgroundColor")
    assert (ground < 0.1) == (scheme == "dark")
    for selector in ("body", "p", "td.good", "td.bad", "th", "dt", ".compare label"):
        ink = luminance(selector, "color")
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


def test_pictures_of_noise_are_written(tmp_path):
    """Noise is what JPEG compresses least; of 256 px its file outgrew a buffer, and the page was not written."""
    images = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)
    scores = row("noise", 1.0)
    summary = {"overall": summarize([scores]), "sequences": {}}
    section = Section("full", summary, [], [Example("Best gain", scores, *images)])
    write_page(tmp_path / "index.html", "title", {}, [section], [])
    sources = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', (tmp_path / "index.html").read_text())
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))).astype(int) for source in sources]
    assert len(shown) == 5
    assert all(np.abs(picture - image).mean() < 5 for picture, image in zip(shown, images, strict=False))


def test_each_image_has_its_own_thumbnail(tmp_path):
    images = [(row(f"{level}", 1.0), tmp_path / f"{level}.jpg") for level in (10, 200)]
    for (_, path), level in zip(images, (10, 200), strict=True):
        path.write_bytes(thumbnail(np.full((80, 120, 3), level, np.uint8)))
    summary = {"overall": summarize([shown for shown, _ in images]), "sequences": {}}
    write_page(tmp_path / "index.html", "title", {}, [Section("full", summary, images, [])], [])
    sources = re.findall(
        r'<tr><td><img [^>]*src="data:image/jpeg;base64,([^"]+)"', (tmp_path / "index.html").read_text()
    )
    assert [base64.b64decode(source) for source in sources] == [path.read_bytes() for _, path in images]


def test_thumbnails_are_small():
    random = np.random.default_rng(0)
    assert len(thumbnail(random.integers(0, 256, (720, 1280, 3), dtype=np.uint8))) < 10_000
