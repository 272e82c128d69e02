"""The page of `emit serve` in a headless Chromium, from a dropped clip to its downloads."""

import csv
import json
import re

import pytest

COUNT_RECORDED = """() => {
    window.recorded = 0;
    const start = MediaRecorder.prototype.start;
    MediaRecorder.prototype.start = function (...options) {
        this.addEventListener("dataavailable", (event) => { window.recorded += event.data.size; });
        return start.apply(this, options);
    };
}"""
NEVER_MET = "This model has never met a person"


@pytest.fixture
def open_page(browser, server):
    """open_page(**context options) -> a page with its drop area; every request of it goes to the server."""
    contexts = []

    def open(**options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.requests, page.errors = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(server.url)
        page.wait_for_selector("#emit-files input[type=file]", state="attached")
        return page

    yield open
    for context in contexts:
        for page in context.pages:
            outside = [url for url in page.requests if not url.startswith((server.url, "data:", "blob:"))]
            assert not outside and not page.errors, (outside, page.errors)
        context.close()
    assert server.uploads() == []


def score(page, *files, shown="emit-results h2"):
    page.set_input_files("#emit-files input[type=file]", [str(file) for file in files])
    page.get_by_test_id("download-link").nth(len(files) - 1).wait_for()
    page.click("#emit-score")
    page.wait_for_selector(shown)


def seconds(page) -> float:
    return float(page.get_by_role("slider", name="Position in the clip").get_attribute("aria-valuenow"))


def test_dropped_clip_plays_over_its_curves_and_a_key_or_a_click_moves_it(open_page, media, screenshots):
    page = open_page()
    assert NEVER_MET in page.inner_text("#emit-intro")  # before anybody is scored
    assert "At most 8 clips and 3 MB at once" in page.inner_text("#emit-intro")
    score(page, media / "talking.webm", media / "talking.txt")
    assert "1 clip scored." in page.inner_text("#emit-status")
    text = page.inner_text("emit-results")
    assert all(words in text for words in ("Joy", "Empathic Pain", "Face: found in", "I am sad about the dog"))
    page.wait_for_function("document.querySelector('emit-results video').readyState >= 2")
    slider = page.get_by_role("slider", name="Position in the clip")
    slider.focus()
    page.keyboard.press("PageUp")
    assert page.evaluate("document.querySelector('emit-results video').currentTime") == pytest.approx(0.3, abs=0.05)
    assert re.fullmatch(r"0:00\.3: Joy 0\.\d\d, Empathic Pain 0\.\d\d", slider.get_attribute("aria-valuetext"))
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + 40)
    assert seconds(page) == pytest.approx(1.5, abs=0.1)
    page.evaluate("document.querySelector('emit-results video').play()")
    page.wait_for_function("document.querySelector('.er-seek').getAttribute('aria-valuenow') > 1.9")
    page.screenshot(path=screenshots / "desktop.png", full_page=True)


def test_recording_of_the_webcam_is_scored_whole_and_again_after_its_deletion(open_page, server, screenshots):
    """Chromium's pretended camera and microphone."""
    page = open_page(permissions=["camera", "microphone"])
    page.evaluate(COUNT_RECORDED)
    page.get_by_role("tab", name="Record").click()
    recorder = page.locator("#emit-recording")
    recorder.get_by_text("Click to Access Webcam").click()
    recorder.get_by_text("Record", exact=True).click()
    page.wait_for_function("window.recorded > 20000")
    recorder.get_by_text("Stop").click()
    page.click("#emit-score")  # also while it is on its way
    page.wait_for_selector("emit-results h2")
    assert "1 clip scored." in page.inner_text("#emit-status"), page.inner_text("emit-results")
    assert page.inner_text("emit-results h2") == "recording.webm"
    page.wait_for_function("document.querySelector('emit-results video').duration < 100")  # MediaRecorder says none
    length = page.evaluate("document.querySelector('emit-results video').duration")
    slider = page.get_by_role("slider", name="Position in the clip")
    assert float(slider.get_attribute("aria-valuemax")) == pytest.approx(length, abs=0.3)
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + 40)
    assert seconds(page) == pytest.approx(length / 2, abs=0.3)
    page.screenshot(path=screenshots / "recording.png", full_page=True)
    first = page.inner_text("emit-results .er-facts")
    assert server.uploads() == []
    page.evaluate("document.querySelector('emit-results').dataset.first = ''")
    page.click("#emit-score")
    page.wait_for_selector("emit-results:not([data-first]) h2")
    assert "1 clip scored." in page.inner_text("#emit-status")
    assert page.inner_text("emit-results .er-facts") == first


def test_several_clips_make_a_table_that_sorts_and_downloads(open_page, media, screenshots):
    page = open_page(color_scheme="dark")
    score(page, media / "voice.wav", media / "notes.mp4", media / "talking.webm", shown="emit-results table")
    assert "2 clips scored, 1 failed." in page.inner_text("#emit-status")
    assert page.evaluate("document.body.classList.contains('dark')")

    def names():
        return page.locator("emit-results tbody th").all_inner_texts()

    assert names() == ["voice.wav", "notes.mp4", "talking.webm"]
    page.get_by_role("button", name="Clip", exact=True).click()
    assert names() == ["notes.mp4", "talking.webm", "voice.wav"]
    page.get_by_role("button", name="Joy", exact=True).press("Enter")
    assert page.get_by_role("columnheader", name="Joy").get_attribute("aria-sort") == "descending"
    values = page.locator("emit-results tbody tr td:nth-child(2)").all_inner_texts()
    assert values[:2] == sorted(values[:2], reverse=True) and values[2].startswith("Not scored: not a readable media")
    page.get_by_role("button", name="notes.mp4").click()
    assert "Not scored" in page.inner_text(".er-detail")
    page.screenshot(path=screenshots / "error_dark.png", full_page=True)
    with page.expect_download() as table:
        page.get_by_role("button", name="Download CSV").click()
    with page.expect_download() as document:
        page.get_by_role("button", name="Download JSON").click()
    rows = list(csv.DictReader(table.value.path().open()))
    answer = json.loads(document.value.path().read_text())
    assert [row["Filename"] for row in rows] == [clip["name"] for clip in answer["clips"]]
    assert float(rows[0]["Joy"]) == pytest.approx(answer["clips"][0]["intensities"]["Joy"], abs=1e-4)


def test_film_that_the_browser_cannot_play_is_shown_by_its_faces_on_a_phone(open_page, media, screenshots):
    page = open_page(viewport={"width": 375, "height": 740}, has_touch=True, reduced_motion="reduce")
    score(page, media / "old.mpg", shown=".er-face[src^='data:image/jpeg']")
    assert "This browser cannot play" in page.inner_text(".er-media")
    page.get_by_role("button", name="Play", exact=True).tap()
    page.wait_for_function("document.querySelector('.er-seek').getAttribute('aria-valuenow') > 0.5")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.screenshot(path=screenshots / "phone.png", full_page=True)


def test_nothing_chosen_is_one_line_and_a_large_file_is_refused(open_page, tmp_path):
    page = open_page()
    page.click("#emit-score")
    page.get_by_role("alert").filter(has_text="No clip: send one or more video or audio files.").wait_for()
    (tmp_path / "large.mp4").write_bytes(b"x" * 4_000_000)
    page.set_input_files("#emit-files input[type=file]", str(tmp_path / "large.mp4"))
    page.get_by_text(re.compile("maximum allowed size|more than 3 MB")).first.wait_for()
