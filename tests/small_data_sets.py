"""Data sets of a few painted files, in the layout of the published ones."""

import numpy as np
from PIL import Image


def picture(path, value=0, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(value)
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def voc2012(folder):
    """Two lists of images with one to three objects each, as in the devkit."""
    root = folder / "VOCdevkit" / "VOC2012"
    # name, difficult, xmin, ymin, xmax, ymax
    person, dog = ("person", 0, 1, 1, 20, 20), ("dog", 0, 5, 5, 30, 35)
    cat, far = ("cat", 0, 2, 2, 9, 9), ("sheep", 1, 1, 1, 40, 40)
    lists = {
        "train": [[person, dog], [person], [cat], [far], [far, cat], [dog, person],
                  [person], [cat, person], [dog]],
        "val": [[dog], [cat], [person], [cat, far], [person, cat], [far]],
    }  # fmt: skip
    for part, images in lists.items():
        stems = []
        for i, objects in enumerate(images):
            stem = f"2012_{part}{i:03}"
            stems.append(stem)
            picture(root / "JPEGImages" / f"{stem}.jpg", i)
            described = "".join(
                f"<object><name>{name}</name><pose>Left</pose>"
                f"<difficult>{difficult}</difficult><bndbox><xmax>{x2}</xmax>"
                f"<xmin>{x1}</xmin><ymax>{y2}</ymax><ymin>{y1}</ymin></bndbox>"
                "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
                "<xmax>90</xmax><ymax>90</ymax></bndbox></part></object>"
                for name, difficult, x1, y1, x2, y2 in objects
            )
            annotation = root / "Annotations" / f"{stem}.xml"
            annotation.parent.mkdir(exist_ok=True)
            annotation.write_text(f"<annotation>{described}</annotation>")
        listed = root / "ImageSets" / "Main" / f"{part}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(stems) + "\n")


def indoor67(folder):
    root = folder / "indoor67"
    lists = {"TrainImages.txt": [], "TestImages.txt": []}
    for name in ("kitchen", "bar", "computerroom"):
        for i in range(6):
            picture(root / "Images" / name / f"int{i}.jpg", i)
            # One image is in neither list, as most are.
            if i:
                which = "TrainImages.txt" if i < 4 else "TestImages.txt"
                lists[which].append(f"{name}/int{i}.jpg")
    for which, lines in lists.items():
        (root / which).write_text("\n".join(lines))


def inria_person(folder):
    for part, n in (("Train", 5), ("Test", 3)):
        for sub in ("pos", "neg"):
            for i in range(n):
                picture(folder / "INRIAPerson" / part / sub / f"crop_{i}.png", i)
        (folder / "INRIAPerson" / part / "pos.lst").write_text("Train/pos/crop_0.png")


def dogs_vs_cats(folder):
    for i in range(8):
        for name in ("cat", "dog"):
            picture(folder / "dogs-vs-cats" / name / f"{i}.jpg", i)
