"""The labelling page with campaigns that learn, are killed, are shared or change."""

import hashlib
import time

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign
from skadma.cli import main
from skadma.images.dataset import ImageDataset, Preprocessing
from skadma.labelling.campaign import status

from .label_site import (
    CLASSES,
    TINY,
    loaded,
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


def test_a_burst_of_keys(tmp_path, serve, pages):
    """300, as fast as pictures come: each recorded once, in order, while it learns."""
    site = serve(tmp_path / "campaign", paint(tmp_path / "photos", 400), n=60)
    page = pages(site)
    sha256 = shown(page)
    before = len(site.log())
    seen = page.evaluate(
        """async (n) => {
          const seen = [];
          const key = (key) => document.dispatchEvent(
            new KeyboardEvent("keydown", { key, bubbles: true }));
          const stage = () => document.querySelector("#stage");
          while (seen.length < n) {
            const page = skadmaPage.views.single;
            if (page.visible && page.item) {
              const mark = seen.length % 5 ? "2" : "1";
              seen.push([page.item.sha256, mark === "1" ? "crack" : "ok"]);
              key(mark);
              key(mark === "1" ? "2" : "1");  // no picture is seen yet, or the next is
              const item = skadmaPage.strip.page.queue.outbox.entries.at(-1);
              const marks = item.operation.marks;
              if (marks[0].sha256 !== seen.at(-1)[0]) {
                seen.push([marks[0].sha256, marks[0].mark]);
              }
            }
            await new Promise((resolve) => setTimeout(resolve, 0));
          }
          return seen;
        }""",
        300,
    )
    saved(page)
    assert seen[0][0] == sha256 and len({sha for sha, _ in seen}) == len(seen) >= 300
    for _ in range(600):  # the process may not have had its turn yet
        if any(event["kind"] == "train" for event in site.log()):
            break
        time.sleep(0.1)
    else:
        raise AssertionError("no model")
    assert marks_of(site.log()[before:]) == [tuple(each) for each in seen]


# Milliseconds from the key until the next picture is painted, told by the page itself:
# what follows a frame's callbacks, as a message of its own, comes after the paint.
WATCH = """() => {
  window.latencies = [];
  let began = null;
  document.addEventListener("keydown", (event) => { began = event.timeStamp; }, true);
  const stage = document.querySelector("#stage");
  new MutationObserver(async () => {
    const image = stage.querySelector("img");
    if (began === null || !image) return;
    const start = began;
    began = null;
    await image.decode();
    requestAnimationFrame(() => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => latencies.push(performance.now() - start);
      port2.postMessage(0);
    });
  }).observe(stage, { childList: true });
}"""


def latencies_while_it_trains(page, n):
    """Milliseconds of `n` keys before and after which the child was training."""
    found = []
    while len(found) < n:
        n_before = page.evaluate("() => latencies.length")
        trained = page.evaluate("() => skadmaPage.queue.state.stage") == "training"
        press(page, "2")
        until(page, f"latencies.length > {n_before}")
        saved(page)  # its answer has the server's word of what the child does
        trained &= page.evaluate("() => skadmaPage.queue.state.stage") == "training"
        if trained:
            found.append(page.evaluate("() => latencies.at(-1)"))
    return found


def test_learning_does_not_slow_the_hand(tmp_path, serve, pages):
    """From a key to the next picture, while the child trains: under 100 ms."""
    slow = ["--set", "estimator__image_size=32", "estimator__max_epochs=400"]
    photos = paint(tmp_path / "photos", 260)
    site = serve(tmp_path / "campaign", photos, *slow, n=60)
    page = pages(site)
    shown(page)
    until(page, "skadmaPage.queue.state.stage === 'idle'")
    for i in range(30):  # half a round, after which it learns
        press(page, "12"[i % 2])
    saved(page)
    until(page, "skadmaPage.queue.state.stage === 'training'")
    n_before = len(site.log())
    page.evaluate(WATCH)
    medians = []
    for _ in range(3):  # processors are shared
        medians.append(np.median(latencies_while_it_trains(page, 24)))
        if medians[-1] < 100:
            break
    assert min(medians) < 100, medians
    given = [e["id"] for e in site.log()[n_before:] if e["kind"] == "teach"]
    page.wait_for_function("n => skadmaPage.queue.state.n_known >= n", arg=30)
    trained = [e["id"] for e in site.log()[n_before:] if e["kind"] == "train"]
    assert len(given) >= 24 and trained
    assert sum(e < trained[-1] for e in given) >= 24  # the training outlasted the keys


def test_odd_pictures_and_names(tmp_path, serve, pages):
    """TIFF, 16 bits, CMYK, an EXIF turn: as the network sees them. A name of HTML."""
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    deep = (rng.random((40, 60)) * 65535).astype(np.uint16)
    Image.fromarray(rgb).save(photos / "a.tiff")
    Image.fromarray(deep).save(photos / "b.tif")
    Image.fromarray(255 - rgb).convert("CMYK").save(photos / "c.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb[:, :50]).save(photos / "d.jpg", exif=exif, quality=95)
    hostile = "<img src=x onerror=alert(1)>.png"
    Image.fromarray(rgb[:30]).save(photos / hostile)
    classes = ["<b>crack</b>", "ok"]
    site = serve(tmp_path / "campaign", photos, n=5, classes=classes)
    page = pages(site)
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog), dialog.dismiss()))
    for _ in range(5):
        sha256 = shown(page)
        (path,) = [
            p for p in photos.iterdir()
            if hashlib.sha256(p.read_bytes()).hexdigest() == sha256
        ]  # fmt: skip
        assert page.inner_text(".caption") == path.name
        pixels = np.array(page.evaluate(
            """() => {
              const image = document.querySelector("#stage img");
              const canvas = document.createElement("canvas");
              canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
              const context = canvas.getContext("2d");
              context.drawImage(image, 0, 0);
              const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
              return { data: [...data], shape: [canvas.height, canvas.width] };
            }"""
        )["data"]).reshape(-1, 4)[:, :3]  # fmt: skip
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) == 6
            width, height = image.size[::-1] if turned else image.size
        side = min(width, height)
        network = ImageDataset([str(path)], Preprocessing(side, side))[0].numpy()
        picture = pixels.reshape(height, width, 3).transpose(2, 0, 1)
        top, left = (height - side) // 2, (width - side) // 2
        crop = picture[:, top : top + side, left : left + side]
        assert np.array_equal(crop, network)
        page.keyboard.press("1")
        if path.name != hostile:
            page.wait_for_timeout(50)
        saved(page)
        if len(site.held()) < 5:
            shown(page, sha256)
    page.wait_for_selector(".empty:has-text('All 5 pictures are decided')")
    assert site.held() == dict.fromkeys([p.name for p in photos.iterdir()], classes[0])
    page.click("#view-progress")
    page.wait_for_selector("text=Labels by class")
    assert page.locator("#page b, #page img[src=x]").count() == 0
    assert dialogs == []


def set_keys(page, **keys):
    for name, key in keys.items():
        page.evaluate("([n, k]) => skadmaPage.keys.set(n, k)", [f"class:{name}", key])


def test_killed_in_the_middle(tmp_path, serve, pages):
    """SIGKILL while keys are pressed; the page still has what the server had not."""
    site = serve(tmp_path / "campaign", paint(tmp_path / "photos", 60), n=20)
    page = pages(site)
    set_keys(page, crack="c", ok="S")  # which S no longer skips
    for key in "cscsc":
        press(page, key)
    saved(page)
    held = site.held()
    assert len(held) == 5
    sha256 = shown(page)
    loaded(page, 2)
    site.kill()
    pressed = []
    for key in "ss":
        pressed.append(sha256)
        page.keyboard.press(key)
        sha256 = shown(page, sha256)
    page.keyboard.press("Backspace")  # takes the second one back
    page.wait_for_selector(".banner:visible")
    port = site.port
    site.start()
    assert site.port == port  # or the browser would not know what it keeps
    until(page, "/started anew/.test(document.querySelector('.banner').innerText)")
    assert site.held() == held  # nothing lost, nothing made up
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(site.address())
    shown(page)
    saved(page)
    paths = {hashlib.sha256(p.read_bytes()).hexdigest(): p.name
             for p in (tmp_path / "photos").iterdir()}  # fmt: skip
    assert site.held() == {**held, paths[pressed[0]]: CLASSES[1]}
    assert [mark for _, mark in site.given()].count(CLASSES[1]) == 4
    page.complaints.clear()  # Chromium's own, about the server that was not there


def test_two_people(tmp_path, serve, pages):
    """Two servers on one campaign: nothing is overwritten, each has an own strip."""
    photos = paint(tmp_path / "photos", 40)
    ana = serve(tmp_path / "campaign", photos, "--who", "ana", n=8)
    ben = serve(tmp_path / "campaign", photos, "--who", "ben", n=8)
    assert ana.port != ben.port
    a, b = pages(ana), pages(ben)
    shown(a)
    shown(b)
    for _ in range(8):
        time.sleep(status.SHORTEST)  # a hand: what is faster is not timed
        press(a, "1")
        press(b, "2")
    saved(a)
    saved(b)
    events = [e for e in ana.log() if e["kind"] == "teach"]
    by = {who: {d["path"] for e in events if e["who"] == who for d in e["decisions"]}
          for who in ("ana", "ben")}  # fmt: skip
    assert not by["ana"] & by["ben"]
    held = ana.held()
    wanted = dict.fromkeys(by["ana"], CLASSES[0])
    assert held == wanted | dict.fromkeys(by["ben"], CLASSES[1])
    assert set(strip(a)) == {CLASSES[0]} and set(strip(b)) == {CLASSES[1]}
    b.click("#view-progress")
    until(b, "/ana/.test(document.querySelector('.progress').innerText)")


def test_second_looks_and_agreement(tmp_path, serve, pages):
    """One that ben had wrong, to mend; and how far ana agrees with him."""
    photos = paint(tmp_path / "photos", 60)
    folder = tmp_path / "campaign"
    main(["start", str(photos), "--classes", *CLASSES, "--campaign", str(folder),
          "-n", "6", *TINY])  # fmt: skip
    labels = {f"{i:03}.png": CLASSES[i % 2] for i in range(30)}
    wrong = "007.png"
    labels[wrong] = CLASSES[0]
    with Campaign.open(folder, who="ben") as campaign:
        campaign.teach(labels, train=False)
    site = serve(folder, photos, "--who", "ana", n=6)
    page = pages(site)
    shown(page)
    until(page, "skadmaPage.queue.items.some((item) => item.guess)")
    page.click("#view-progress")
    page.get_by_role("button", name="Look at them").click()
    page.wait_for_selector("#doubted[data-shown]")
    question = page.inner_text("#question")
    assert f"{CLASSES[0]}. A model that did not see this label takes it for" in question
    page.evaluate(  # where it cannot be shown, it gets no answer
        """() => { const { queue: { transport }, views: { second } } = skadmaPage;
          const { picture } = transport;
          const again = (now) => { transport.picture = now; second.shown = null; };
          again(() => picture("0".repeat(64), "view"));
          transport.mend = () => { again(picture); second.render(); };
          second.render(); }"""
    )
    page.wait_for_selector("#doubted :text('cannot be shown')")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("skadmaPage.queue.outbox.size") == 0
    page.evaluate("skadmaPage.queue.transport.mend()")
    page.wait_for_selector("#doubted[data-shown]")
    assert all("404" in text for text in page.complaints)
    page.complaints.clear()
    kept = {}
    while wrong not in page.inner_text("#question"):
        path = page.inner_text("#question .quiet").partition(" ·")[0]
        kept[path] = labels[path]
        page.keyboard.press("ArrowLeft")  # keep
        page.wait_for_selector("#doubted[data-shown]")
    assert not page.locator(f"#question:has-text('takes it for {CLASSES[0]}')").count()
    page.keyboard.press("ArrowRight")  # change
    saved(page)
    assert site.held()[wrong] == CLASSES[1]
    page.keyboard.press("Control+z")
    page.wait_for_selector(f"#question:has-text('{wrong}')")
    page.wait_for_selector("#doubted[data-shown]")
    page.get_by_role("button", name=f"Change to {CLASSES[1]}").click()
    saved(page)
    assert {**site.held(), **kept} == site.held()
    assert site.held()[wrong] == CLASSES[1]
    confirmed = [e for e in site.log() if e["kind"] == "confirm"]
    assert len(confirmed) == len(kept)
    page.click("#view-single")
    for _ in range(10):
        press(page, "1")
    saved(page)
    with Campaign.open(folder, who="ana") as campaign:
        for image in campaign.repeats_due(1)[:4]:
            campaign.teach({image.path: CLASSES[0]}, blind=True)
    held = site.held()
    assert [held[name] for name in labels] == [
        CLASSES[1] if name == wrong else label for name, label in labels.items()
    ]  # nothing of ben's was overwritten
    page.click("#view-progress")
    page.locator("#part-agreement tbody tr").filter(has_text="ana and ben").wait_for()
    page.click("#view-single")
    n = sum(e["kind"] == "undo" for e in site.log())
    assert n == 1
    for _ in range(10):
        page.keyboard.press("Backspace")
        saved(page)
    assert sum(e["kind"] == "undo" for e in site.log()) == n + 10


def test_classes_and_pools_that_change(tmp_path, serve, pages):
    """The page learns of them without a reload, and shows pictures of all pools."""
    photos = paint(tmp_path / "photos", 6)
    site = serve(tmp_path / "campaign", photos, n=4)
    page = pages(site)
    set_keys(page, crack="c")
    press(page, "c")
    saved(page)
    with Campaign.open(site.folder) as campaign:
        campaign.rename_class("crack", "split")
        campaign.add_classes(["rust <b>"])
        moved = paint(tmp_path / "more", 4, seed=1)
        campaign.add_pool(moved, "new")
    until(page, "skadmaPage.queue.about.classes.length === 3")
    names = page.eval_on_selector_all(
        ".choices .choice span", "all => all.map(e => e.textContent)"
    )
    assert names == ["split", "ok", "rust <b>"]
    assert "The classes were changed. They are: split (C), ok (2)" in page.inner_text(
        "body"
    )
    assert strip(page) == ["split"]
    press(page, "c")  # the renamed class has its key
    press(page, "3")
    saved(page)
    assert [mark for _, mark in site.given()[-2:]] == ["split", "rust <b>"]
    until(page, "skadmaPage.queue.state.n_images === 10")

    page.goto("about:blank")
    site.kill()
    moved.rename(tmp_path / "elsewhere")
    site.command += ["--pool", f"new={tmp_path / 'elsewhere'}"]
    place = site.command.index("--classes")
    site.command[place - 1 : place + 3] = []  # they have changed since
    site.start()
    page = pages(site)
    set_keys(page, split="c")
    for _ in range(6):
        press(page, "c")
    page.keyboard.press("c")
    saved(page)
    assert sum(path.startswith("new/") for path in site.held()) == 4
    assert len(site.held()) == 10
