"""The labelling page in a real browser: keys, grid, tabs, and what it shows."""

import pytest

from .label_site import (
    CLASSES,
    Site,
    marks_of,
    paint,
    press,
    saved,
    shown,
    strip,
    until,
)

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A campaign about 400 pictures that the tests of this file go on with."""
    folder = tmp_path_factory.mktemp("page")
    site = Site(folder / "campaign", paint(folder / "photos", 400), n=20)
    yield site
    assert "Ended." in site.stop()
    assert site.process.returncode == 0
    assert [
        line for line in site.errors if "reading" not in line and line.strip()
    ] == []


@pytest.fixture
def page(site, pages):
    return pages(site)


def test_labels_by_keys_undo_and_reload(site, page):
    """30 labels by keys: each in the log, in order, and the network learns of them."""
    before = len(site.log())
    wanted = []
    sha256 = shown(page)
    for i in range(30):
        wanted.append((sha256, CLASSES[i % 3 == 0]))
        page.keyboard.press("12"[i % 3 == 0])
        sha256 = shown(page, sha256)
    saved(page)
    events = site.log()[before:]
    assert marks_of(events) == wanted
    assert all(e["n"] == 1 for e in events if e["kind"] == "teach")
    assert strip(page) == [label for _, label in wanted[:-11:-1]]
    until(page, "/knows (2\\d|30) of your 30 labels/.test(document.body.innerText)")

    page.keyboard.press("Backspace")
    assert shown(page, sha256) == wanted[-1][0]
    page.keyboard.press("Backspace")
    shown(page, wanted[-1][0])
    assert page.get_attribute("#stage", "data-shown") == wanted[-2][0]
    saved(page)
    assert site.log()[-1]["kind"] in ("undo", "train", "query")
    assert len(site.held()) == 28

    page.reload()
    shown(page)
    page.wait_for_selector(".recent li[data-target]")
    assert strip(page) == [label for _, label in wanted[27:17:-1]]
    page.keyboard.press("Backspace")  # the log knows, so undo works after a reload
    saved(page)
    assert len(site.held()) == 27


def test_other_answers(site, page):
    shown(page)
    n = len(site.held())
    for key in "stx":
        press(page, key)
    page.get_by_role("button", name="Skip").first.click()
    saved(page)
    given = [mark for _, mark in site.given()[-4:]]
    assert given == ["?skip", "?cant-tell", "?not-an-image", "?skip"]
    assert len(site.held()) == n + 4
    for _ in range(4):
        page.keyboard.press("Backspace")
    saved(page)
    assert len(site.held()) == n


def test_undo_of_one_in_the_strip(site, page):
    for key in "121":
        press(page, key)
    saved(page)
    middle = page.locator(".recent li[data-target]").nth(1)
    assert middle.get_attribute("data-mark") == CLASSES[1]
    middle.get_by_role("button", name="Take back").click()
    saved(page)
    assert strip(page)[:2] == [CLASSES[0], CLASSES[0]]
    path = site.given()[-2][0]
    assert path not in site.held()


def test_grid(site, page):
    """A batch at once: keys, clicks, the rest; one step in the log, undone as one."""
    shown(page)
    page.click("#view-grid")
    until(page, "document.querySelectorAll('.tile').length === 20")
    tiles = page.locator(".tile")
    shas = [tiles.nth(i).get_attribute("data-sha256") for i in range(20)]
    tiles.nth(0).focus()
    page.keyboard.press("1")  # labels, and goes on to the next
    page.keyboard.press("2")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("t")
    tiles.nth(5).click()
    tiles.nth(6).click()
    tiles.nth(6).click()
    assert page.locator(".badge.set").count() == 5
    page.get_by_role("group", name="All without a label").get_by_role(
        "button", name=CLASSES[1]
    ).click()
    tiles.nth(0).focus()
    before = len(site.log())
    page.keyboard.press("Enter")
    saved(page)
    (event,) = [e for e in site.log()[before:] if e["kind"] == "teach"]
    said = {d["sha256"]: d["label"] for d in event["decisions"]}
    expected = dict.fromkeys(shas, CLASSES[1])
    expected |= {shas[0]: CLASSES[0], shas[3]: "?cant-tell", shas[5]: CLASSES[0]}
    assert said == expected
    page.wait_for_function(
        "first => document.querySelectorAll('.tile').length === 20 &&"
        " document.querySelector('.tile').dataset.sha256 !== first",
        arg=shas[0],
    )
    n = len(site.held())

    def marks():
        return dict(
            page.eval_on_selector_all(
                ".tile", "all => all.map(e => [e.dataset.sha256, e.dataset.mark])"
            )
        )

    # One history: first the click that is not saved, then the batch with its marks.
    tiles.nth(2).click()
    clicked = tiles.nth(2).get_attribute("data-sha256")
    page.keyboard.press("Backspace")
    assert marks()[clicked] == "" and len(site.held()) == n
    page.keyboard.press("Control+z")
    saved(page)
    assert len(site.held()) == n - 20
    assert [*marks()] == shas and marks() == expected
    page.keyboard.press("Control+z")  # all others
    given = [shas[i] for i in (0, 1, 3, 5, 6)]
    assert [sha for sha, mark in marks().items() if mark] == given
    assert page.inner_text("#live").endswith(": no label")
    page.keyboard.press("Control+z")  # the second click on the last one
    assert marks()[shas[6]] == CLASSES[0]
    for _ in range(3):
        page.keyboard.press("Control+Shift+z")
    saved(page)
    assert len(site.held()) == n and not set(shas) & set(marks())
    assert dict(marks_of(site.log())[-20:]) == expected
    page.keyboard.press("Control+y")  # the click that was taken back first
    assert marks()[clicked] == CLASSES[0]
    page.click("#view-single")
    press(page, "1")  # from now on there is nothing to be done again
    page.keyboard.press("Control+y")
    assert page.get_by_role("button", name="Redo").is_disabled()
    page.keyboard.press("Control+z")
    was = page.get_by_role("group", name="Labels").locator("[aria-pressed=true]")
    assert was.get_attribute("data-focus") == "class:crack"
    assert "(was: crack)" in page.inner_text(".caption")
    assert marks_of(site.log())[-1][0] == shown(page)
    page.keyboard.press("Control+z")  # shows where it takes something back
    assert marks()[clicked] == "" and page.locator("#view-grid[aria-current=page]")
    page.click("#view-single")
    page.get_by_role("button", name="Redo").click()
    page.keyboard.press("Control+y")
    saved(page)
    assert len(site.held()) == n + 1


def test_the_guess_is_hidden_until_asked_for(site, page):
    for _ in range(40):
        if page.evaluate("() => skadmaPage.queue.items[0]?.guess"):
            break
        press(page, "2")
        page.wait_for_timeout(400)
    assert page.evaluate("() => skadmaPage.queue.items[0].guess") in CLASSES
    assert page.inner_text("#guess") == ""
    page.click("#view-grid")
    page.wait_for_selector(".tile")
    assert page.locator(".badge.set").count() == 0
    page.click("#view-single")
    page.keyboard.press("g")
    guess = page.evaluate("skadmaPage.queue.items[0].guess")
    assert f"guess: {guess}" in page.inner_text("#guess")
    page.click("#view-grid")
    page.keyboard.press("g")
    page.wait_for_selector(".badge.guessed")
    shown_guess = page.locator(".tile").first.get_attribute("data-mark")
    assert shown_guess in CLASSES


def test_held_keys_and_shortcuts_do_nothing(site, page):
    shown(page)
    n = len(site.held())
    page.evaluate(
        """() => {
          const key = (more) => document.dispatchEvent(
            new KeyboardEvent("keydown", { key: "1", bubbles: true, ...more }));
          key({ repeat: true }); key({ ctrlKey: true }); key({ metaKey: true });
          key({ altKey: true }); key({ isComposing: true });
        }"""
    )
    saved(page)
    assert len(site.held()) == n


def test_keys_can_be_changed_and_switched_off(site, page):
    shown(page)
    page.click("#view-settings")
    page.click(f'[data-key-of="class:{CLASSES[0]}"]')
    page.keyboard.press("q")
    page.click("#view-single")
    assert page.locator("kbd", has_text="Q").count() == 1
    press(page, "q")
    saved(page)
    assert site.given()[-1][1] == CLASSES[0]
    n = len(site.given())
    page.keyboard.press("1")  # no longer
    page.click("#view-settings")
    page.uncheck("#keys-on")
    page.click("#view-single")
    page.keyboard.press("q")
    saved(page)
    assert len(site.given()) == n
    assert page.locator(".choice kbd").count() == 0
    page.reload()
    shown(page)
    page.keyboard.press("q")
    saved(page)
    assert len(site.given()) == n


def test_zoom_and_contrast_are_view_only(site, page):
    """Wheel, drag and keys zoom within the stage; a click leaves no button armed."""

    def box(selector="#stage"):
        return page.locator(selector).bounding_box()

    shown(page)
    stage = box()
    image = page.locator("#stage img")
    # The 32 pixels of the picture fill the stage; nothing lies below the window.
    assert image.evaluate("e => getComputedStyle(e).objectFit") == "contain"
    assert box("#stage img") == stage
    x, y = stage["x"] + stage["width"] / 4, stage["y"] + stage["height"] / 3
    page.mouse.move(x, y)
    page.mouse.wheel(0, -400)
    until(page, "skadmaPage.view.zoom.scale > 2")
    zoomed = box("#stage img")
    scale = zoomed["width"] / stage["width"]
    assert abs((x - zoomed["x"]) / scale - stage["width"] / 4) < 1
    assert box() == stage and box(".rows")["y"] + box(".rows")["height"] < 720
    page.mouse.down()
    page.mouse.move(x + 30, y + 20)
    page.mouse.up()
    assert abs(box("#stage img")["x"] - zoomed["x"] - 30) < 1
    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    assert box("#stage img")["x"] < zoomed["x"]
    page.mouse.wheel(0, 9000)  # out, and no farther than the whole picture
    until(page, "skadmaPage.view.zoom.scale === 1")
    assert box("#stage img") == stage
    page.get_by_role("button", name="Keep zoom").click()
    page.keyboard.press("z")
    kept = box("#stage img")
    press(page, "2")
    assert box("#stage img") == kept
    before = shown(page)
    page.get_by_role("button", name=CLASSES[0], exact=True).click()
    shown(page, before)
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    saved(page)
    assert page.evaluate("() => document.activeElement.id") == "stage"
    assert marks_of(site.log())[-1] == (before, CLASSES[0])
    page.get_by_role("button", name="Keep zoom").click()
    press(page, "2")
    for key in "zkb":
        page.keyboard.press(key)
    assert image.get_attribute("data-size") == "full"
    page.wait_for_function("() => document.querySelector('#stage img').naturalWidth")
    assert "contrast(1.5) brightness(1.5)" in image.get_attribute("style")
    assert page.locator("#stage.zoomed").count() == 1
    press(page, "2")
    assert page.locator("#stage.zoomed").count() == 0


def test_help(site, page):
    shown(page)
    page.keyboard.press("h")
    dialog = page.get_by_role("dialog")
    rows = dialog.locator("tr").all_inner_texts()
    assert rows[:3] == [
        "crack\t1",
        "ok\t2",
        "Skip: ask again when nothing else is left\tS",
    ]
    said = dialog.inner_text().split("\n")
    assert said[0] == "Keys" and said[-1] == "Close"
    assert not {"null", "undefined", "They are switched off, see Settings."} & set(said)
    n = len(site.held())
    page.keyboard.press("1")  # means nothing here
    dialog.get_by_role("button", name="Close").click()
    saved(page)
    assert len(site.held()) == n


def test_full_screen(site, page):
    """The key turns it on and off; the picture is seen and takes keys throughout."""
    on = "document.fullscreenElement !== null"
    size = "[innerWidth, innerHeight]"
    window = page.evaluate(f"() => {size}")
    shown(page)
    page.keyboard.press("f")
    until(page, on)
    whole = page.evaluate("() => document.fullscreenElement.contains(skadmaPage.main)")
    assert whole and page.locator("#stage img").is_visible()
    sha256 = shown(page)
    press(page, "1")
    press(page, "2")
    page.keyboard.press("Backspace")
    shown(page, sha256)
    saved(page)
    assert marks_of(site.log())[-2][0] == sha256
    page.keyboard.press("f")
    until(page, f"!({on})")
    page.get_by_role("button", name="Full screen").click()
    until(page, on)
    # Escape is the browser's own, which one without a window does not act on: so this.
    page.evaluate("() => document.exitFullscreen()")
    until(page, f"!({on})")
    assert page.evaluate(f"() => {size}") == window
    last = shown(page)
    press(page, "1")
    saved(page)
    assert marks_of(site.log())[-1] == (last, CLASSES[0])


def test_two_tabs(site, page):
    """They share the pictures, the strip, and undo."""
    other = page.context.new_page()
    other.goto(site.origin)  # the cookie is there already
    first, second = shown(page), shown(other)
    mine = page.evaluate("skadmaPage.queue.items.map(i => i.sha256)")
    theirs = other.evaluate("skadmaPage.queue.items.map(i => i.sha256)")
    assert first != second and not set(mine) & set(theirs)
    press(page, "1")
    press(other, "2")
    saved(page)
    saved(other)
    assert {m for _, m in marks_of(site.log())[-2:]} == {CLASSES[0], CLASSES[1]}
    page.wait_for_function(
        "mark => document.querySelector('.recent li')?.dataset.mark === mark",
        arg=CLASSES[1],
    )
    page.keyboard.press("Backspace")  # the last decision, whichever tab it came from
    saved(page)
    assert first in {sha for sha, _ in marks_of(site.log())}
    assert site.log()[-1]["kind"] in ("undo", "train", "query")
    other.close()


def test_the_page_waits_where_the_server_is_unreachable(site, page):
    sha256 = shown(page)
    page.route("**/api/operations", lambda route: route.abort())
    n = len(site.held())
    page.keyboard.press("1")
    shown(page, sha256)
    page.wait_for_selector(".banner:visible")
    assert "kept in this browser" in page.inner_text(".banner")
    assert page.locator('.recent li[data-saved="false"]').count() == 1
    assert len(site.held()) == n
    page.unroute("**/api/operations")
    saved(page)
    page.wait_for_selector(".banner", state="hidden")
    page.route("**/img/*", lambda route: route.abort())
    page.reload()
    page.wait_for_selector("#stage img")
    page.wait_for_timeout(300)
    page.keyboard.press("1")  # for what nobody saw
    page.keyboard.press("x")
    page.unroute("**/img/*")
    shown(page)
    saved(page)
    assert len(site.held()) == n + 1
    page.complaints.clear()  # Chromium's own, about the aborted requests


CURVE = """async () =>
  (await skadmaPage.queue.transport.call("progress")).curve"""


def test_progress(site, page):
    shown(page)
    n_rounds = 0
    while not n_rounds:  # until pictures that a trained model chose are answered
        press(page, "1")
        press(page, "2")
        saved(page)
        n_rounds = len(page.evaluate(CURVE))
    press(page, "t")
    saved(page)
    page.click("#view-progress")
    page.wait_for_selector("#part-unclear li")
    text = page.inner_text("main")
    counts = page.evaluate("skadmaPage.queue.state.counts")
    held = list(site.held().values())
    assert counts == {name: held.count(name) for name in CLASSES}
    assert f"Can't tell ({held.count('?cant-tell')})" in text
    assert page.locator(".curve .dot").count() >= 1
    unsure = page.get_attribute("#part-unclear img", "data-sha256")
    page.locator("#part-unclear li").first.get_by_role("button").nth(1).click()
    saved(page)
    assert marks_of(site.log())[-1] == (unsure, CLASSES[1])
    assert (
        list(site.held().values()).count("?cant-tell") == held.count("?cant-tell") - 1
    )
