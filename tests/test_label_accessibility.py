"""The labelling page for those who cannot see it, or use no mouse."""

import pytest

from .label_site import Site, paint, press, shown

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")

VIEWS = ["single", "grid", "progress", "settings"]


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
    for key in "12tsx12":
        press(page, key)
    page.keyboard.press("g")
    for view in VIEWS:
        page.click(f"#view-{view}")
        if view == "grid":
            page.wait_for_selector(".tile")
            page.locator(".tile").first.focus()
            page.keyboard.press("1")
        if view == "progress":
            page.wait_for_selector(".list li")
        results = axe.run(page)
        assert results.violations_count == 0, results.generate_report()
    page.keyboard.press("h")
    page.wait_for_selector("dialog[open]")
    results = axe.run(page)
    assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("width", [1280, 380])
def test_everything_by_keyboard(site, pages, width):
    """Tab reaches each control, the focus is seen, and each is large enough."""
    page = pages(site, viewport={"width": width, "height": 760})
    shown(page)
    for view in VIEWS:
        page.click(f"#view-{view}")
        if view == "grid":
            page.wait_for_selector(".tile")
        if view == "progress":
            page.wait_for_selector("text=Pace")
        controls = page.locator("button:visible:enabled, input:visible, select:visible")
        n = controls.count()
        boxes = [controls.nth(i).bounding_box() for i in range(n)]
        small = [b for b in boxes if b["height"] < 24 or b["width"] < 24]
        assert n > 8 and small == []
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
        # The tiles of the grid are one stop; arrows go on from there.
        n_tiles = page.locator(".tile").count() if view == "grid" else 0
        assert len(reached - {-1}) >= n - max(0, n_tiles - 1) and unseen == []
        wide = page.evaluate(
            "() => document.documentElement.scrollWidth > window.innerWidth"
        )
        assert not wide


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
