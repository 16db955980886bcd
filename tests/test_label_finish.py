"""The page's end: the model is tested blind, the photographs are sorted, all in one."""

import csv
import re
from pathlib import Path

import pytest

from skadma import Campaign

from .label_site import CLASSES, paint, press, saved, shown, until

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")


def truth(page):
    """The key of the right label: pictures with an odd number are bright."""
    shown(page)
    return "12"[int(Path(page.inner_text(".caption")).stem) % 2]


def answer(page, n):
    for _ in range(n):
        press(page, truth(page))


def kinds(site):
    return [event["kind"] for event in site.log()]


def test_from_labels_to_a_sorted_folder(serve, pages, tmp_path):
    probe = "--training", "probe", "--backbone", "resnet18"
    site = serve(tmp_path / "campaign", paint(tmp_path / "photos", 46), *probe, n=10)
    page = pages(site, bypass_csp=True, accept_downloads=True)
    axe = axe_playwright.Axe()
    page.click("#view-test")
    page.wait_for_selector("text=Label some pictures first")
    page.click("#view-single")
    answer(page, 8)
    saved(page)
    page.click("#view-finish")
    page.wait_for_selector("text=A forecast takes 30 labels; there are 8.")
    with Campaign.open(site.folder) as campaign:
        rest = campaign.candidates()[:25]
        campaign.teach({p: CLASSES[int(Path(p).stem) % 2] for p in rest}, train=False)
    page.click("#view-test")
    # What the model expects of itself, and whether that is enough.
    page.click("#view-finish")
    page.wait_for_selector("#forecast")
    rows = page.locator("#forecast tbody tr").all_inner_texts()
    numbers = [[int(n) for n in re.findall(r"\d+", row)] for row in rows]
    assert [row[0] for row in numbers[1:]] == [20, 50, 100]
    assert all(low <= value <= high for *_, value, low, high in numbers)
    page.fill("#goal", str(max(1, numbers[0][1])))
    page.keyboard.press("Tab")
    page.wait_for_selector("text=You can stop.")
    page.fill("#goal", "100")
    page.keyboard.press("Tab")
    page.wait_for_selector("text=More than 100 labels are to come.")
    page.click("#view-single")
    page.keyboard.press("g")  # guesses are shown, but for a test
    saved(page)

    # A test: drawn, answered by the same keys, taken back, left and gone on with.
    page.click("#view-test")
    page.click("text=Test the model: 13 pictures, about 1 minute")
    page.wait_for_selector("text=0 of 13 answered")
    shown(page)
    assert page.inner_text("#guess") == ""
    page.get_by_role("button", name="What is what").click()
    page.get_by_role("button", name="Close").click()
    assert axe.run(page).violations_count == 0
    answer(page, 6)
    wrong = page.inner_text(".caption")
    page.keyboard.press("12"[truth(page) == "1"])
    page.wait_for_selector("text=7 of 13 answered")
    page.keyboard.press("Backspace")
    page.wait_for_selector("text=6 of 13 answered")
    assert page.inner_text(".caption").startswith(wrong)
    page.keyboard.press("s")  # it comes last
    shown(page)
    assert page.inner_text(".caption") != wrong
    saved(page)
    assert page.locator(".recent li[data-target]").count() == 9
    # Its pictures do not come in the other views, and nothing is left there.
    page.click("#view-single")
    page.wait_for_selector("text=All 33 pictures are decided.")
    page.goto(site.address())
    until(page, "window.skadmaPage")
    page.click("#view-test")
    page.wait_for_selector("text=6 of 13 answered")
    answer(page, 6)
    add = "() => skadmaPage.queue.changeClasses({ change: 'add', names: ['rust'] })"
    page.evaluate(add)  # no answer will be of it
    page.keyboard.press(truth(page))
    page.wait_for_selector("#test-value")
    said = page.inner_text("#test-result")
    assert axe.run(page).violations_count == 0
    events = site.log()
    answers = [d for e in events if e["kind"] == "answer" for d in e["other_answers"]]
    undone = sum(event["kind"] == "undo" for event in events)
    assert (len(answers), undone) == (14, 1)
    assert len(site.given()) == 33
    with Campaign.open(site.folder) as campaign:
        found = campaign.audits.estimate()
        assert not campaign.audits.pending()
    share = f"{round(100 * found.value)} % of 13 pictures, from 13 answers"
    assert share in said
    assert "rust\tno answer" in said
    for name, recall in zip(CLASSES, found.recall.values(), strict=False):
        assert f"{name}\t{round(20 * recall.value)} times of 20 (" in said
    mistakes = found.confusion.sum() - found.confusion.trace()
    assert ("would help most" in said) == (mistakes >= 0.5)

    # Sorted into a folder that is new and typed in full, and into no other.
    page.click("#view-finish")
    page.wait_for_selector("text=At the last test the model was right")
    assert axe.run(page).violations_count == 0
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    for into, why in (
        ("sorted", "Give the folder in full"),
        (tmp_path / "full", "there is something in it"),
        (tmp_path / "photos/sorted", "among the photographs"),
    ):
        page.fill("#sort-into", str(into))
        page.click("#sort-plan")
        page.wait_for_selector(f"text={why}")
    into = tmp_path / "sorted"
    page.fill("#sort-into", str(into))
    page.fill("#sort-unsure", "0")
    page.click("#sort-plan")
    page.wait_for_selector("#plan")
    assert "46 by your labels, 0 by the model." in page.inner_text("#plan")
    assert axe.run(page).violations_count == 0
    assert not into.exists()
    page.click("#sort-go")
    page.wait_for_selector("#sorted")
    for path in sorted((tmp_path / "photos").iterdir()):
        copy = into / ("ok" if int(path.stem) % 2 else "crack") / path.name
        assert copy.read_bytes() == path.read_bytes()
    assert (tmp_path / "full/file").read_text() == "mine"
    with page.expect_download() as download:
        page.click("#save-labels")
    rows = csv.DictReader(Path(download.value.path()).read_text("utf-8").splitlines())
    assert {row["path"]: row["label"] for row in rows} == site.held()
    for command in ("export-model", "finish"):
        said = f"skadma {command} --campaign {site.folder}"
        assert said in page.inner_text("#finish-hand")

    # The end of the test: its labels are trained with.
    page.click("#view-test")
    page.click("text=End the test")
    page.wait_for_selector("text=No picture is left for a test.")
    assert len(site.held()) == 46
    until(page, "skadmaPage.queue.state.n_labels === 46")
