"""
Odd files
=========

Real folders hold 16-bit, CMYK, turned, animated, tiny and broken files. Here is what
the network sees of each.
"""

import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from skadma import CNNClassifier, SourceCenters
from skadma.bench.datasets import load_elpv
from skadma.strategies import UncertaintyHerding

# %%
# One photograph, saved in seven ways, a file that was cut off, and a text that calls
# itself a JPEG:

folder = Path(tempfile.mkdtemp())
photo = load_elpv()[0][3]
grey = Image.fromarray(photo)
colour = Image.merge("RGB", [grey, grey.point(lambda v: v // 2), grey])
exif = Image.Exif()
exif[0x0112] = 6  # lay it on its side: to be turned by 90 degrees
grey.save(folder / "grey.png")
Image.fromarray(photo.astype(np.uint16) * 257).save(folder / "16-bit.png")
colour.convert("CMYK").save(folder / "cmyk.jpg")
colour.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif)
grey.save(folder / "animated.gif", save_all=True, append_images=[grey.rotate(90)] * 3)
grey.resize((7, 5)).save(folder / "tiny.webp")
grey.crop((0, 0, 300, 60)).save(folder / "wide.tiff")
(folder / "text.jpg").write_text("This is no photograph.")
(folder / "cut off.png").write_bytes((folder / "grey.png").read_bytes()[:9000])
paths = sorted(str(path) for path in folder.iterdir())

# %%
# By default a file that cannot be decoded is an error that names it. With
# ``on_bad_image="skip"`` it is left out, with a warning, and indices still count it.

clf = CNNClassifier(
    "efficientnet_lite0", image_size=96, on_bad_image="skip", random_state=0
)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    chosen = UncertaintyHerding(random_state=0).query(clf, paths, 3)
print([Path(paths[i]).name for i in chosen])
print(caught[0].message)

# %%
# ``embed`` returns a row of NaN for what cannot be used. Source centres keep images as
# the network gets them, so they show what it sees of the others: 8 bits, three
# channels, upright, the middle of the picture.

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    features = clf.embed(paths, -2)[-2]
usable = np.isfinite(features).all(axis=1)
good = [path for path, ok in zip(paths, usable, strict=True) if ok]
seen = SourceCenters.from_examples(clf, dict(enumerate(good))).inputs

figure, axes = plt.subplots(1, len(good), figsize=(12, 2.6), layout="constrained")
for ax, path, pixels in zip(axes, good, seen, strict=True):
    image = Image.open(path)
    ax.imshow(pixels.transpose(1, 2, 0))
    name = f"{Path(path).name}\n{image.mode}, {image.size[0]} x {image.size[1]}"
    ax.set_title(name, fontsize="small")
    ax.set_axis_off()
bad = [Path(path).name for path, ok in zip(paths, usable, strict=True) if not ok]
_ = figure.suptitle(f"left out: {', '.join(bad)}", fontsize="medium", y=0.06)
