"""The labelling page: many classes, the end of the work, a server that comes back."""

import pytest

from skadma import Campaign
from skadma.cli import main

from .label_site import CLASSES, marks_of, paint, press, saved, shown, strip, until

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
    page.keyboard.press("/")  # and the picture is another one before the answer
    page.evaluate("() => { skadmaPage.queue.items.reverse(); skadmaPage.render(); }")
    page.keyboard.type("pl")
    page.keyboard.press("Enter")
    page.wait_for_selector(".notice:has-text('it got none')")
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
    page.locator(".tile").nth(3).hover()  # the focus is at another one
    page.keyboard.press("/")
    page.keyboard.type("plu")
    page.keyboard.press("Enter")
    badges = page.locator(".badge").all_inner_texts()[:4]
    assert badges == ["walnut", "–", "–", "plum"]
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
    late = []
    page.route("**/operations", lambda route: late.append((route, route.fetch())))
    press(page, "1")
    # The log has it, and its answer is on its way: it counts once.
    until(page, "skadmaPage.queue.state.n_decided === 1")
    assert page.evaluate("skadmaPage.queue.outbox.size") == 1
    assert page.evaluate("skadmaPage.queue.nDecided") == 1
    ((route, response),) = late
    route.fulfill(response=response)
    page.unroute("**/operations")
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


def test_one_persons_answers_are_not_sent_as_anothers(tmp_path, serve, pages):
    """They wait in the browser until the server has that person's name again."""
    site = serve(tmp_path / "campaign", paint(tmp_path / "photos", 6), "--who", "ana")
    page = pages(site)
    press(page, "1")
    saved(page)
    sha256 = shown(page)
    site.kill()
    page.keyboard.press("2")
    page.wait_for_selector(".banner:visible")
    site.command[site.command.index("ana")] = "ben"
    site.start()
    ben = page.context.new_page()
    ben.goto(site.address())
    shown(ben)
    assert "keeps 1 answer for another campaign, or of" in ben.inner_text("#others")
    page.wait_for_selector(".banner:has-text('another person')")  # still ana's
    assert [e["who"] for e in site.log() if e["kind"] == "teach"] == ["ana"]
    site.kill()
    ben.close()
    site.command[site.command.index("ben")] = "ana"
    site.start()
    address = site.address()
    page.evaluate("address => { location.href = address; }", address)
    until(page, "skadmaPage.queue.state?.n_decided === 2")
    events = [e for e in site.log() if e["kind"] == "teach"]
    assert [event["who"] for event in events] == ["ana", "ana"]
    assert marks_of(events)[-1] == (sha256, CLASSES[1])
    page.complaints.clear()  # Chromium's own, about servers that were not there


def swipe(page, dx, dy):
    """Move a finger over the picture."""
    box = page.locator("#stage").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    client = page.context.new_cdp_session(page)
    for kind, share in (("Start", 0), ("Move", 0.5), ("Move", 1)):
        point = {"x": x + share * dx, "y": y + share * dy}
        event = {"type": f"touch{kind}", "touchPoints": [point]}
        client.send("Input.dispatchTouchEvent", event)
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_labels_are_changed_and_explained_and_a_phone(tmp_path, serve, pages):
    """Add, rename, merge, a note and examples; seen on demand; swipes on a phone."""
    site = serve(tmp_path / "campaign", paint(tmp_path / "photos", 20), n=5)
    page = pages(site, bypass_csp=True)
    first = shown(page)
    press(page, "1")
    press(page, "2")
    saved(page)
    old = page.evaluate("skadmaPage.queue.state.as_of")
    page.get_by_role("button", name="Example of crack").click()
    until(page, "skadmaPage.queue.state.notes.crack")
    page.click("#view-classes")
    page.fill("form [name=into]", "constructor")
    page.keyboard.press("Enter")
    until(page, "skadmaPage.queue.about.classes.length === 3")
    page.fill("form [name=into]", "constructor")
    page.get_by_role("button", name="Add").click()
    page.wait_for_selector("[role=alert]:has-text('a class')")
    page.get_by_role("button", name="Note: crack").click()
    page.fill("textarea", "A <b>dark</b> line.\nNot a scratch.")
    check_axe(page)
    for names, into in (
        (["ok"], "o" * 300),
        (["o" * 300], "ok"),
    ):  # by somebody meanwhile
        change = {"change": "rename", "names": names, "into": into}
        page.evaluate("change => skadmaPage.queue.changeClasses(change)", change)
        until(page, f"skadmaPage.queue.about.classes.includes('{into}')")
        width = "main => [main.scrollWidth, main.clientWidth]"
        assert len(set(page.eval_on_selector("main", width))) == 1
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector(".note")
    page.get_by_role("button", name="Rename: ok").click()
    page.fill("[data-class=ok] [name=into]", "sound")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Merge: constructor").click()
    page.select_option("[data-class=constructor] select", "crack")
    page.get_by_role("button", name="Save").click()
    until(page, "skadmaPage.queue.about.classes.length === 2")
    assert page.inner_text("[data-class=crack] .note").startswith("A <b>dark</b> line.")
    assert strip(page) == ["sound", "crack"]
    # One history: the labels, and what was answered with them.
    page.fill("form [name=into]", "gone")
    page.get_by_role("button", name="Add").click()
    until(page, "skadmaPage.queue.about.classes.includes('gone')")
    page.click("#view-single")
    press(page, "3")
    given, before = ["gone", "sound", "crack"], ["crack", "sound", "gone"]
    for key, marks, classes in (
        ("z", given[1:], before),
        ("z", given[1:], ["crack", "sound"]),
        ("z", given[1:], ["crack", "sound", "constructor"]),  # not merged
        ("y", given[1:], ["crack", "sound"]),
        ("y", given[1:], before),
        ("y", given, before),
        ("z", given[1:], before),
        ("z", given[1:], ["crack", "sound"]),
    ):
        page.keyboard.press(f"Control+{key}")
        page.wait_for_function(
            "([marks, classes]) => { const { queue } = skadmaPage; return"
            " String(queue.about.classes) === classes && String("
            "queue.strip().map(({ mark }) => mark)) === marks; }",
            arg=[",".join(marks), ",".join(classes)],
        )
        saved(page)
    # What was merged is apart again, also in what is not saved, or is done again.
    change = "change => skadmaPage.queue.changeClasses(change)"
    page.evaluate(change, {"change": "add", "names": ["third"], "into": None})
    press(page, "1")
    page.evaluate("skadmaPage.set('many', 2)")  # others are for the phone
    page.click("#view-grid")
    tile = page.locator(".tile").first
    tile.focus()
    page.keyboard.press("1")
    merge = {"change": "merge", "names": ["crack", "third"], "into": "third"}
    page.evaluate(change, merge)
    assert (tile.inner_text(), strip(page)[0]) == ("third", "third")
    keys = "['sound', 'third'].map((name) => skadmaPage.keys.of(`class:${name}`))"
    assert page.evaluate(keys) == ["2", "3"]  # as before
    page.keyboard.press("Control+z")
    until(page, "skadmaPage.queue.about.classes.length === 3")
    assert (tile.inner_text(), strip(page)[0]) == ("crack", "crack")
    for key in "zzy":  # the mark, the answer
        page.keyboard.press(f"Control+{key}")
    assert strip(page)[0] == "crack"
    saved(page)
    assert [*site.held().values()].count("crack") == 2
    for _ in range(2):
        page.keyboard.press("Control+z")
        saved(page)
    until(page, "String(skadmaPage.queue.about.classes) === 'crack,sound'")
    # A name is what it was when the page last heard of it.
    call = "change => skadmaPage.queue.transport.call('classes', change)"
    change = {"change": "rename", "names": ["ok"], "into": "fine", "as_of": old}
    assert page.evaluate(call, change)["classes"] == ["crack", "fine"]
    change = {"change": "note", "names": ["fine"], "as_of": old}
    refused = "change => skadmaPage.queue.transport.call('classes', change)" + (
        ".catch(error => error.status)"
    )
    assert page.evaluate(refused, {**change, "names": ["fine"] * 5, "into": ""}) == 422
    text = "change => ({ ...change, into: '\\ud800' })"
    assert page.evaluate(f"change => ({refused})(({text})(change))", change) == 422
    page.complaints.clear()  # Chromium's own, about what was refused
    kinds = [event["kind"] for event in site.log()]
    assert kinds.count("classes") == 13
    assert main(["check", "--campaign", str(site.folder)]) == 0

    phone = pages(
        site, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True,
        bypass_csp=True,
    )  # fmt: skip
    sha256 = shown(phone)
    phone.get_by_role("button", name="What is what").tap()
    assert "Not a scratch." in phone.inner_text("dialog[open]")
    example = phone.locator("dialog[open] img")
    assert example.get_attribute("data-sha256") == first
    check_axe(phone)
    phone.get_by_role("button", name="Close").tap()
    for choice in phone.locator(".choices .choice").all():
        box = choice.bounding_box()
        assert box["height"] >= 56 and box["y"] + box["height"] < 844
    assert "Swipe left: crack, right: fine" in phone.inner_text("main")
    assert phone.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    check_axe(phone)
    wanted = []
    for dx, dy, mark in ((-120, 10, "crack"), (120, 0, "fine"), (0, -150, "?skip")):
        wanted.append((sha256, mark))
        swipe(phone, dx, dy)
        sha256 = shown(phone, sha256)
    swipe(phone, 30, 5)  # too short
    swipe(phone, 0, 150)  # takes the last one back
    shown(phone, sha256)
    saved(phone)
    given = [e for e in site.log() if e["kind"] in ("teach", "undo")]
    assert marks_of(given[-4:-1]) == wanted and given[-1]["kind"] == "undo"

    with Campaign.open(site.folder) as campaign:
        campaign._change_classes("note", ["fine"], "No line.")
        campaign.undo()  # of the note alone
    until(page, f"skadmaPage.queue.state.as_of >= {site.log()[-1]['id']}")
    assert list(page.evaluate("skadmaPage.queue.state.notes")) == ["crack"]
