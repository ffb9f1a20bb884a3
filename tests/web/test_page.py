"""The page in a real browser: photographs come, are compared, changed, cancelled and downloaded."""

# ruff: noqa: F401, F811 (fixtures are found by their names)

import base64
import io
import re
import shutil
import subprocess
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image
from serving import (
    NAME,
    PATIENCE,
    Served,
    eventually,
    generators,
    pictures,
    pixels,
    served,
    tiles,
    wanted,
    weights,
)

from deblur_gan.data.samples import blurred_sample
from deblur_gan.images.photographs import read_rgb
from deblur_gan.restoring.deblur import deblur

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=1000 * PATIENCE)


@pytest.fixture
def open_tab(served, chromium):
    """A function that opens the page in a tab of its own; its options are those of a Playwright context."""
    contexts = []

    def open_tab(**options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        context.set_default_timeout(1000 * PATIENCE)
        tab = context.new_page()
        tab.asked, tab.problems = [], []
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.on("pageerror", lambda error: tab.problems.append(str(error)))
        tab.goto(served.url)
        expect(tab.locator("body.ready")).to_be_attached()
        return tab

    yield open_tab
    for context in contexts:
        for tab in context.pages:
            assert tab.problems == []
            # Nothing was asked of another host.
            assert [url for url in tab.asked if not url.startswith((served.url, "blob:"))] == []
        context.close()
    eventually(served.idle)


@pytest.fixture
def tab(open_tab):
    return open_tab()


def drop(tab, selector, *paths):
    """Drops files on an element as a hand does."""
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    devtools = tab.context.new_cdp_session(tab)
    box = tab.locator(selector).bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})


def choose(tab, *paths):
    tab.locator("#files").set_input_files(paths)


def downloaded(tab, button):
    """Clicks, and returns `(name, content)` of the download."""
    with tab.expect_download() as download:
        button.click()
    return download.value.suggested_filename, download.value.path().read_bytes()


def cut(tab):
    """Returns where the restored photograph begins, in percent of the width."""
    clip = tab.locator(".stack img").nth(1).evaluate("(image) => image.style.clipPath")
    return float(re.search(r"([\d.]+)%\)", clip)[1])


def states(tab):
    return [card.inner_text() for card in tab.locator("#list .state").all()]


def test_a_photograph_is_dropped_compared_and_downloaded(tab, pictures, wanted):
    drop(tab, "#drop", pictures / NAME)
    expect(tab.locator("#download")).to_be_visible()
    sizes = tab.locator(".stack img").evaluate_all("(images) => images.map((i) => [i.naturalWidth, i.naturalHeight])")
    assert sizes == [[90, 120], [90, 120]]  # upright, at full resolution
    expect(tab.locator("#facts")).to_have_text(re.compile(r"90 × 120 pixels, restored at 180 × 240 in [\d.]+ s"))
    box = tab.locator(".stack").bounding_box()
    y = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + box["width"] / 2, y)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] / 4, y, steps=4)
    tab.mouse.up()
    assert cut(tab) == pytest.approx(25, abs=1)
    line = tab.get_by_label("Blurred | Restored")
    line.press("ArrowRight")
    line.press("ArrowRight")
    assert cut(tab) == pytest.approx(26, abs=1) and cut(tab) == float(line.input_value())
    assert downloaded(tab, tab.locator("#download")) == (NAME, wanted()[NAME])
    expect(tab.locator("#said")).to_have_text(f"{NAME} is restored.")


def test_several_with_a_broken_one_and_one_that_browsers_do_not_display(tab, pictures, wanted):
    drop(tab, "footer", *(pictures / name for name in ("third.tiff", "text.jpg", "second.png")))
    expect(tab.locator("li.done")).to_have_count(2)
    assert states(tab) == ["restored", "not restored", "restored"]
    expect(tab.locator("#name")).to_have_text("third.tiff")
    before, after = tab.locator(".stack img").all()
    expect(before).to_have_js_property("naturalHeight", 70)
    expect(after).to_have_js_property("naturalHeight", 70)
    for name in ("third.tiff", "second.png"):
        button = tab.get_by_role("button", name=f"Download {name}")
        assert downloaded(tab, button) == (name, wanted()[name])
    tab.locator("li.failed .open").click()
    expect(tab.locator("#problem")).to_have_text(re.compile("^text.jpg: not an image that can be read; JPEG"))
    tab.get_by_role("button", name="Remove text.jpg").click()
    expect(tab.locator("#name")).to_have_text("second.png")
    expect(before).to_have_js_property("naturalHeight", 64)

    name, content = downloaded(tab, tab.get_by_role("button", name="Download all"))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert name == "restored.zip" and archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            name: wanted()[name] for name in ("third.tiff", "second.png")
        }


@pytest.mark.slow
def test_names_that_are_equal_stay_apart_in_the_archive(tab, pictures, wanted):
    choose(tab, pictures / NAME)
    choose(tab, pictures / NAME)
    expect(tab.locator("li.done")).to_have_count(2)
    _, content = downloaded(tab, tab.get_by_role("button", name="Download all"))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == [NAME, NAME.replace(".jpg", " (2).jpg")]
        assert {archive.read(name) for name in archive.namelist()} == {wanted()[NAME]}


def test_a_picture_is_pasted(open_tab, pictures):
    tab = open_tab(permissions=["clipboard-read", "clipboard-write"])
    content = base64.b64encode((pictures / "second.png").read_bytes()).decode()
    tab.evaluate(
        """async (content) => {
          const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
          await navigator.clipboard.write([new ClipboardItem({'image/png': new Blob([bytes], {type: 'image/png'})})]);
        }""",
        content,
    )
    tab.keyboard.press("Control+v")
    expect(tab.locator("#download")).to_be_visible()
    expect(tab.locator("#name")).to_have_text("image.png")
    expect(tab.locator(".stack img").first).to_have_js_property("naturalHeight", 64)


def test_strength_acts_at_once_and_on_the_download_by_keyboard_alone(tab, pictures, wanted):
    choose(tab, pictures / "second.png")
    expect(tab.locator("#download")).to_be_visible()
    strength = tab.get_by_label("Strength")
    for _ in range(10):
        strength.press("ArrowLeft")
    after = tab.locator(".stack img").nth(1)
    assert after.evaluate("(image) => image.style.opacity") == "0.5"
    expect(tab.locator("#strength-value")).to_have_text("50 %")
    tab.locator("#download").focus()
    with tab.expect_download() as download:
        tab.keyboard.press("Enter")
    assert download.value.path().read_bytes() == wanted(0.5)["second.png"] != wanted()["second.png"]
    n_requests = len(tab.asked)
    assert downloaded(tab, tab.locator("#download"))[1] == wanted(0.5)["second.png"]
    assert len([url for url in tab.asked[n_requests:] if "restore" in url]) == 0  # what was made is kept
    strength.press("Home")
    assert downloaded(tab, tab.locator("#download"))[1] == wanted(0.0)["second.png"]
    assert after.evaluate("(image) => image.style.opacity") == "0"


def test_quality_and_network_restore_again_and_are_used_for_all(tab, pictures, generators):
    choose(tab, pictures / "second.png", pictures / "third.tiff")
    expect(tab.locator("li.done")).to_have_count(2)
    expect(tab.locator("#views small").nth(2)).to_have_text(re.compile(r"^(about \d+|less than 1) s$"))
    tab.get_by_label("finer").check()
    tab.get_by_label("Crisper").check()
    expect(tab.locator("#download")).to_be_visible()
    expected = deblur(generators["crisper"], read_rgb(pictures / "second.png"), ensemble=4)
    np.testing.assert_array_equal(pixels(downloaded(tab, tab.locator("#download"))[1]), expected)
    tab.locator("li .open").nth(1).click()
    expect(tab.get_by_label("Crisper")).not_to_be_checked()
    tab.locator("li .open").nth(0).click()
    tab.get_by_role("button", name="Use for all photographs").click()
    expect(tab.locator("li.done")).to_have_count(2)
    expect(tab.locator("#for-all")).to_be_hidden()
    expected = deblur(generators["crisper"], read_rgb(pictures / "third.tiff"), ensemble=4)
    content = downloaded(tab, tab.get_by_role("button", name="Download third.tiff"))[1]
    np.testing.assert_array_equal(pixels(content), expected)
    n_requests = len(tab.asked)
    tab.get_by_label("Faithful").check()
    tab.get_by_label("fast").check()
    expect(tab.locator("#download")).to_be_visible()
    assert len([url for url in tab.asked[n_requests:] if "restore" in url]) <= 1  # faithful and finer, between the two


def test_cancel_ends_the_restoration_within_two_tiles(tab, served, pictures, tiles):
    choose(tab, pictures / "second.png", pictures / NAME)
    tiles.release(30)
    expect(tab.locator("#progress-text")).to_have_text(re.compile(r"Restoring, 30 %, (about \d+|less than 1) s left"))
    expect(tab.locator("#bar")).to_have_js_property("value", 30)
    tab.locator("#cancel").click()
    expect(tab.locator("#problem")).to_have_text("Cancelled.")
    eventually(lambda: tiles.n_done == 30 and served.restorer.jobs[0].cancelled)
    tiles.release(2)
    eventually(lambda: tiles.begun == 2)  # the next photograph
    assert tiles.n_done <= 32
    tab.get_by_role("button", name=f"Cancel {NAME}").click()
    eventually(lambda: served.restorer.jobs[-1].cancelled)
    tiles.release(2)
    eventually(served.idle)
    tab.locator("li .open").first.click()
    tab.get_by_role("button", name="Restore again").click()
    tiles.release(200)
    expect(tab.locator("#download")).to_be_visible()


def test_a_closed_tab_ends_the_restoration_within_two_tiles(open_tab, served, pictures, tiles):
    tab = open_tab()
    choose(tab, pictures / "second.png")
    eventually(lambda: tiles.begun == 1)
    tab.close()
    eventually(lambda: served.restorer.jobs[0].cancelled)
    tiles.release(2)
    eventually(served.idle)
    assert tiles.n_done <= 2


def test_two_tabs_are_served_in_turn(open_tab, served, pictures, tiles):
    first, second = open_tab(), open_tab()
    choose(first, pictures / "second.png", pictures / NAME)
    eventually(lambda: tiles.begun == 1)
    choose(second, pictures / "third.tiff")
    expect(second.locator("#progress-text")).to_have_text(re.compile("^1 photograph before this one"))
    tiles.release(100)
    expect(first.locator("li.done")).to_have_count(1)
    eventually(lambda: [job.name for job in served.restorer.jobs] == ["third.tiff", NAME])
    tiles.release(200)
    expect(second.locator("li.done")).to_have_count(1)
    expect(first.locator("li.done")).to_have_count(2)


@pytest.fixture
def loading(served, monkeypatch):
    """An Event until which the server loads the network of the photograph whose turn it is."""
    loaded, generator = threading.Event(), served.restorer._generator
    monkeypatch.setattr(served.restorer, "_generator", lambda name: loaded.wait(4 * PATIENCE) and generator(name))
    yield loaded
    loaded.set()


def test_a_photograph_with_none_before_it_is_said_to_start(tab, pictures, loading):
    choose(tab, pictures / "second.png")
    expect(tab.locator("#progress-text")).to_have_text("Starting")
    loading.set()
    expect(tab.locator("#download")).to_be_visible()


def test_an_archive_has_what_was_set_when_it_was_asked_for(tab, served, pictures, wanted, request):
    choose(tab, pictures / "second.png", pictures / "third.tiff")
    expect(tab.locator("li.done")).to_have_count(2)
    tab.get_by_label("Strength").fill("50")
    tab.get_by_role("button", name="Use for all photographs").click()
    loading = request.getfixturevalue("loading")
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Download all").click()
        eventually(lambda: len(served.restorer.jobs) == 1)
        tab.locator("li .open").nth(1).click()
        tab.get_by_label("finer").check()
        tab.get_by_label("Strength").fill("0")
        eventually(lambda: len(served.restorer.jobs) == 2)
        loading.set()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            name: wanted(0.5)[name] for name in ("second.png", "third.tiff")
        }
    expect(tab.locator("li.done")).to_have_count(2)


def test_photographs_that_come_before_the_server_has_answered_wait_for_it(tab, pictures, wanted):
    held = []
    tab.route("**/status", lambda route: held.append(route))
    tab.reload()
    choose(tab, pictures / "second.png")
    choose(tab, pictures / "third.tiff")
    tab.wait_for_timeout(500)
    held.pop().continue_()
    expect(tab.locator("li.done .name")).to_have_text(["second.png", "third.tiff"])
    assert downloaded(tab, tab.get_by_role("button", name="Download second.png"))[1] == wanted()["second.png"]


def test_if_the_server_does_not_answer_at_the_beginning_the_page_says_so(tab, pictures):
    answers = [lambda route: route.abort(), lambda route: route.fulfill(status=502, json={"error": "try again later"})]
    for answer in answers:
        tab.route("**/status", answer)
        tab.reload()
        problem = tab.get_by_text("The server does not answer; see whether it runs, and load this page again")
        expect(problem).to_be_visible()
        choose(tab, pictures / "second.png")
        tab.wait_for_timeout(200)
        expect(problem).to_be_visible()
        expect(tab.locator("#list")).to_be_hidden()
    tab.unroute("**/status")
    tab.reload()
    expect(tab.locator("body.ready")).to_be_attached()
    expect(problem).to_be_hidden()


def test_a_sample_by_keyboard_alone_and_zoom(tab, generators):
    for _ in range(20):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.closest('#samples') !== null"):
            break
    tab.keyboard.press("Enter")
    expect(tab.locator("#download")).to_be_visible()
    expect(tab.locator("#name")).to_have_text("rocket.png")
    expected = deblur(generators["faithful"], pixels(blurred_sample("rocket")))
    np.testing.assert_array_equal(pixels(downloaded(tab, tab.locator("#download"))[1]), expected)
    zoom = tab.get_by_role("button", name="Zoom to 100 %")
    fitted = tab.locator(".stack").bounding_box()["width"]
    zoom.press("Enter")
    assert zoom.get_attribute("aria-pressed") == "true"
    assert tab.locator(".stack").bounding_box()["width"] == pytest.approx(640, abs=1)
    tab.locator(".stack").dblclick()
    assert tab.locator(".stack").bounding_box()["width"] == fitted


def test_a_large_photograph_is_shown_pixel_by_pixel(tab, tmp_path):
    y, x = np.mgrid[:1200, :1600]
    large = np.stack([x // 7 % 256, y // 5 % 256, x * 0], axis=-1).astype(np.uint8)
    Image.fromarray(large).save(tmp_path / "large.png")
    choose(tab, tmp_path / "large.png")
    expect(tab.locator("#download")).to_be_visible(timeout=4000 * PATIENCE)
    box = tab.locator(".stack").bounding_box()
    assert box["width"] < 900
    tab.mouse.dblclick(box["x"] + 0.9 * box["width"], box["y"] + 0.9 * box["height"])
    assert tab.locator(".stack").bounding_box()["width"] == 1600
    left, top = tab.locator(".scroller").evaluate("(box) => [box.scrollLeft, box.scrollTop]")
    assert left > 600 and top > 300
    assert tab.evaluate("document.documentElement.scrollWidth") == 1280


def test_when_the_server_is_gone_the_page_says_so(tab, pictures):
    tab.context.set_offline(True)
    choose(tab, pictures / "second.png")
    expect(tab.locator("#problem")).to_have_text(re.compile("^second.png: the server does not answer; "))
    tab.context.set_offline(False)
    tab.get_by_role("button", name="Restore again").click()
    expect(tab.locator("#download")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_sticks_out(open_tab, pictures, wanted, scheme):
    tab = open_tab(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    choose(tab, pictures / NAME, pictures / "text.jpg", pictures / "second.png")
    expect(tab.locator("li.done")).to_have_count(2)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    box = tab.locator(".stack").bounding_box()
    tab.touchscreen.tap(box["x"] + box["width"] / 5, box["y"] + 40)
    assert cut(tab) == pytest.approx(20, abs=1)
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.search(r"\d+", ground)[0]) < 60) == (scheme == "dark")


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The source of axe-core, from npm."""
    folder = tmp_path_factory.mktemp("axe")
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    if subprocess.run(["npm", "pack", "axe-core@4"], cwd=folder, capture_output=True).returncode:
        pytest.skip("needs axe-core, which npm does not get here")
    with tarfile.open(next(folder.glob("*.tgz"))) as package:
        return package.extractfile("package/axe.min.js").read().decode()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_tab, axe, pictures, scheme, tiles):
    tab = open_tab(bypass_csp=True, color_scheme=scheme, reduced_motion="reduce")
    tab.evaluate(axe)

    def check():
        found = tab.evaluate("axe.run()")["violations"]
        assert [rule for rule in found if rule["impact"] in ("serious", "critical")] == []

    check()
    choose(tab, pictures / "second.png", pictures / "text.jpg", pictures / NAME)
    tiles.release(10)
    expect(tab.locator("#progress-text")).to_have_text(re.compile("Restoring, 10 %"))
    check()
    tiles.release(90 + 50)
    expect(tab.locator("li.failed")).to_have_count(1)
    expect(tab.locator("#download")).to_be_visible()
    check()
    tab.locator("#zoom").click()
    check()
    tab.locator("li.failed .open").click()
    check()
