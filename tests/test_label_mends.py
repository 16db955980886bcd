"""The labelling page: many classes, the end of the work, a server that comes back."""

import pytest

from .label_site import CLASSES, paint, press, saved, shown, strip, until

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

MANY = [
    "apple", "ash", "bean", "birch", "cedar", "cherry", "elder", "elm", "fern", "fig",
    "hazel", "holly", "ivy", "larch", "lime", "maple", "oak", "palm", "pear", "pine",
    "plum", "rose", "rowan", "walnut", "été",
]  # fmt: skip


def check_axe(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    results = axe.Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_many_classes(tmp_path, serve, pages):
    """Ten digits, then letters, then a search; colours have a second mark."""
    photos = paint(tmp_path / "photos", 16)
    site = serve(tmp_path / "campaign", photos, n=5, classes=MANY)
    page = pages(site, bypass_csp=True)
    shown(page)
    buttons = page.eval_on_selector_all(
        ".choices .choice",
        """all => all.map(e => ({ name: e.querySelector("span").innerText,
          key: e.getAttribute("aria-keyshortcuts"), hue: e.className,
          sign: e.querySelector("span").dataset.sign ?? "",
          drawn: getComputedStyle(e.querySelector("span"), "::before").content }))""",
    )
    assert [button["name"] for button in buttons] == MANY
    keys = {button["name"]: button["key"] for button in buttons}
    assert [keys[name] for name in MANY[:10]] == [*"1234567890"]
    # H is help, and S, T, X, Z, K, B, G, F are taken as well.
    assert [keys[name] for name in MANY[10:15]] == ["a", "o", "i", "l", "m"]
    given = [key for key in keys.values() if key]
    assert len(given) == len(set(given)) and keys["été"] == "é"
    looks = {(button["hue"], button["sign"]) for button in buttons}
    assert len(looks) == len(MANY) and buttons[8]["sign"] == "◆"
    assert buttons[8]["drawn"].startswith('"◆"') and buttons[7]["drawn"] == "none"

    sha256 = press(page, "0") and press(page, "a")
    page.keyboard.press("/")
    check_axe(page)
    page.keyboard.type("ET")  # without accents; "fig" and others do not match
    assert page.locator("[role=option]").all_inner_texts() == ["été"]
    page.keyboard.press("Enter")
    sha256 = shown(page, sha256)
    page.keyboard.press("v")  # no key: it is typed
    assert page.input_value("#find") == "v"
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("p")
    options = page.locator("[role=option]")
    assert options.all_inner_texts()[:4] == ["palm", "pear", "pine", "plum"]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    shown(page, sha256)
    saved(page)
    assert [mark for _, mark in site.given()] == ["fig", "hazel", "été", "pear"]
    assert strip(page) == ["pear", "été", "hazel", "fig"]
    page.click("#view-grid")
    tile = page.locator(".tile").first
    tile.focus()
    page.keyboard.press("/")
    page.keyboard.type("wal")
    page.keyboard.press("Enter")
    assert tile.inner_text() == "walnut"
    assert tile.locator(".badge").get_attribute("data-sign") == "●"
    page.click("#view-settings")
    page.click('[data-key-of="class:walnut"]')
    page.keyboard.press("s")
    said = "S was the key of “Skip: ask again when nothing else is left”"
    assert said in page.inner_text("#key-taken")
    assert said in page.inner_text("#live")
    check_axe(page)


def test_the_end_and_a_server_that_comes_back(tmp_path, serve, pages):
    """What is left is told as it is, and an old tab goes on by itself."""
    photos = paint(tmp_path / "photos", 5)
    site = serve(tmp_path / "campaign", photos, n=5)
    page = pages(site, bypass_csp=True)
    press(page, "1")
    press(page, "s")
    press(page, "2")
    assert page.inner_text("#live") == "ok. 2 of 5"
    other = page.context.new_page()
    other.goto(site.origin)
    saved(page)
    site.kill()
    page.keyboard.press("1")
    until(page, "/start it again/.test(document.querySelector('.banner').innerText)")
    site.start()
    until(page, "/in another tab/.test(document.querySelector('.banner').innerText)")
    address = site.address()
    page.evaluate("address => { location.href = address; }", address)  # an old tab
    page.wait_for_selector(".banner", state="hidden")
    saved(page)
    other.wait_for_selector(".banner", state="hidden")  # goes on without one
    other.close()
    page.complaints.clear()  # Chromium's own, about the server that was not there

    press(page, "2")
    page.wait_for_function("() => skadmaPage.queue.items[0]?.before === '?skip'")
    saved(page)
    assert page.inner_text("#sums") == "4 of 5 decided, 1 skipped"
    page.keyboard.press("s")  # once more
    page.wait_for_selector("#end")
    assert "4 of 5 pictures are decided, 1 was skipped." in page.inner_text("#end")
    assert "Sort the photographs" in page.inner_text("#end")
    check_axe(page)
    page.get_by_role("button", name="Show what was skipped").click()
    shown(page)
    page.keyboard.press("1")
    page.wait_for_selector("#end:has-text('All 5 pictures are decided.')")
    assert page.inner_text("#live") == "crack. 5 of 5"
    saved(page)
    assert page.inner_text("#sums") == "5 of 5 decided"
    assert site.given()[-1][1] == CLASSES[0]
