"""The labelling page for those who cannot see it, or use no mouse."""

import pytest

from .label_site import Site, paint, press, saved, shown, until

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")

VIEWS = [
    "single",
    "grid",
    "gallery",
    "second",
    "progress",
    "test",
    "finish",
    "classes",
    "settings",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accessible")
    site = Site(folder / "campaign", paint(folder / "photos", 60), n=10)
    yield site
    site.stop()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(site, pages, scheme):
    """On each view, with labels, a list, a guess and the dialog open."""
    # axe is put into the page as a string, which the page's policy forbids.
    page = pages(site, color_scheme=scheme, bypass_csp=True)
    axe = axe_playwright.Axe()
    for key in "12tsx1212":
        press(page, key)
    page.keyboard.press("g")
    until(page, "/ %/.test(document.querySelector('#guess').innerText)")
    for view in VIEWS:
        page.click(f"#view-{view}")
        if view == "grid":
            page.keyboard.press("g")
            page.wait_for_selector(".badge.guessed")
            page.locator(".tile").first.focus()
            page.keyboard.press("1")
        if view == "gallery":
            page.click("#map-turn")
            until(page, "skadmaPage.views.gallery.map.places")
            page.locator("#gallery .tile").first.click()
            page.wait_for_selector("#gallery .guessed")
        if view == "progress":
            page.wait_for_selector(".list li")
        results = axe.run(page)
        assert results.violations_count == 0, results.generate_report()
    page.keyboard.press("h")
    page.wait_for_selector("dialog[open]")
    results = axe.run(page)
    assert results.violations_count == 0, results.generate_report()
    page.keyboard.press("Escape")
    page.evaluate(
        """() => {
          document.querySelector("#sums").style.opacity = "0.3";
          const input = document.querySelector("#keys-on");
          input.closest("label").replaceWith(input);
        }"""
    )
    found = {violation["id"] for violation in axe.run(page).response["violations"]}
    assert found == {"label", "color-contrast"}  # it does look


@pytest.mark.parametrize("width", [1280, 380])
def test_everything_by_keyboard(site, pages, width):
    """Tab reaches each control, the focus is seen, and each is large enough."""
    page = pages(site, viewport={"width": width, "height": 760})
    shown(page)
    for view in VIEWS:
        page.click(f"#view-{view}")
        if view in ("grid", "gallery"):
            page.wait_for_selector(".tile")
        if view == "progress":
            page.wait_for_selector("text=Pace")
        controls = page.locator("button:visible:enabled, input:visible, select:visible")
        n = controls.count()
        boxes = [controls.nth(i).bounding_box() for i in range(n)]
        small = [b for b in boxes if b["height"] < 24 or b["width"] < 24]
        assert n > 5 and small == []
        page.evaluate("() => document.activeElement.blur()")
        reached, unseen = set(), []
        for _ in range(n + 5):
            page.keyboard.press("Tab")
            name, outline = page.evaluate(
                """() => {
                  const e = document.activeElement;
                  const { outlineStyle, outlineWidth } = getComputedStyle(e);
                  const all = [...document.querySelectorAll("button, input, select")];
                  return [all.indexOf(e), outlineStyle + outlineWidth];
                }"""
            )
            reached.add(name)
            if name >= 0 and outline.startswith("none"):
                unseen.append(name)
        # Tiles are one stop; arrows go on from there.
        n_tiles = page.locator(".tile").count()
        assert len(reached - {-1}) >= n - max(0, n_tiles - 1) and unseen == []
        wide = page.evaluate(
            "() => document.documentElement.scrollWidth > window.innerWidth"
        )
        assert not wide


def go(page, selector):
    """Press Tab until something has the focus, as somebody without a mouse does."""
    for _ in range(80):
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {selector}")


def test_the_work_of_a_day_without_a_mouse(site, pages):
    page = pages(site)
    shown(page)
    go(page, "#view-settings")
    page.keyboard.press("Enter")
    go(page, '[data-key-of="class:crack"]')
    page.keyboard.press("Enter")
    page.keyboard.press("q")
    assert "Key of crack: Q" in page.evaluate("() => document.activeElement.ariaLabel")
    go(page, "#view-single")
    page.keyboard.press("Enter")
    press(page, "q")
    press(page, "2")
    saved(page)
    assert [mark for _, mark in site.given()[-2:]] == ["crack", "ok"]
    n = len(site.held())
    go(page, ".recent li:nth-child(2) button[aria-label^='Take back']")
    page.keyboard.press("Enter")
    saved(page)
    assert len(site.held()) == n - 1 and site.given()[-1][0] in site.held()
    go(page, "#view-grid")
    page.keyboard.press("Enter")
    page.wait_for_selector(".tile")
    go(page, ".tile")
    page.keyboard.press("q")
    page.keyboard.press("End")
    page.keyboard.press("Space")  # through the labels
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    saved(page)
    assert sorted(mark for _, mark in site.given()[-2:]) == ["crack", "ok"]
    go(page, "#view-progress")
    focused = "() => document.activeElement.id"
    page.keyboard.press("h")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="hidden")
    assert page.evaluate(focused) == "view-progress"  # where it was before


def test_labels_are_told_by_words_not_by_colour_alone(site, pages):
    page = pages(site)
    press(page, "1")
    assert page.locator(".recent li").first.inner_text().startswith("crack")
    saved(page)
    page.click("#view-grid")
    tile = page.locator(".tile").first
    tile.focus()
    path = tile.get_attribute("title")
    assert tile.get_attribute("aria-label") == f"{path}: no label"
    page.keyboard.press("2")
    until(page, "document.querySelector('.tile').innerText === 'ok'")
    assert page.inner_text("#live") == f"{path}: ok"
    assert tile.get_attribute("aria-label") == f"{path}: ok"
    page.keyboard.press("g")
    guessed = page.locator(".tile:has(.guessed)").first
    assert guessed.inner_text() == f"{guessed.get_attribute('data-mark')} ?"
    assert guessed.get_attribute("aria-label").endswith(", the model's guess")
    page.click("#view-progress")
    rows = page.locator(".bars tr:not(.quiet) th")
    rows.first.wait_for()
    assert rows.all_inner_texts() == ["crack", "ok"]


def test_the_focus_stays_when_pictures_come(site, pages):
    page = pages(site)
    press(page, "1")
    saved(page)
    page.click("#view-grid")
    tile = page.locator(".tile").nth(2)
    path = tile.get_attribute("title")
    tile.click(modifiers=["Control"])
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Control+z")
    until(page, f"document.querySelectorAll('.tile')[3].title === '{path}'")
    assert page.evaluate("document.activeElement.title") == path
    assert page.locator(".tile.selected").get_attribute("title") == path
    page.keyboard.press("2")
    until(page, "document.querySelectorAll('.tile')[3].innerText === 'ok'")


def test_what_is_said(site, pages):
    page = pages(site)
    press(page, "1")
    assert page.get_attribute("#live", "aria-live") == "polite"
    assert page.inner_text("#live").startswith("crack. ")
    assert page.inner_text("#live").endswith(" of 60")
    page.keyboard.press("Backspace")
    assert page.inner_text("#live").startswith("Taken back: crack, ")
    image = page.locator("#stage img")
    assert image.get_attribute("alt").startswith("Picture to label: ")
    button = page.get_by_role("button", name="crack", exact=True)
    assert button.get_attribute("aria-keyshortcuts") == "1"


def test_a_button_with_the_focus_keeps_its_own_keys(site, pages):
    """Enter on a button presses it, and is no shortcut for another."""
    page = pages(site)
    before = shown(page)
    page.get_by_role("button", name="ok", exact=True).focus()
    page.keyboard.press("Enter")
    shown(page, before)
    assert page.locator(".recent li").first.get_attribute("data-mark") == "ok"
    focused = page.evaluate("() => document.activeElement.dataset.focus")
    assert focused == "class:ok"
