"""The report of a campaign: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

from PIL import Image, ImageOps

from ...images.decoding import Range, UnreadableImageError, from_file
from .campaign import Campaign
from .history import right_guesses
from .state import Decision

_SIDE = 96
_SHOWN = 60

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 62em;
       padding: 0 1em; color: #222; }
h1, h2 { font-weight: 600; } h2 { margin-top: 2em; }
table { border-collapse: collapse; } td, th { padding: .15em .9em .15em 0; }
th { text-align: left; font-weight: 600; } td.n { text-align: right; }
.images { display: flex; flex-wrap: wrap; gap: .8em; }
figure { margin: 0; width: 96px; font-size: 11px; overflow-wrap: anywhere; }
figure img { display: block; } pre { white-space: pre-wrap; } .wrong { color: #b00; }
"""


def make_report(campaign: Campaign) -> str:
    """Make the HTML page, with images and names as data: nothing in it runs."""
    events = campaign.log()
    decisions = campaign.decisions()
    sections = [
        f"<pre>{escape(str(campaign.status()))}</pre>",
        "<h2>Right before the label came</h2>"
        "<p>Of the images of each query that have a label by now, the share that the "
        "model at the time of the query had right. They were chosen, mostly for being "
        "hard, so this is no estimate of the accuracy on all images.</p>"
        + _curve(right_guesses(events, decisions)),
        f"<h2>Decisions, the latest {_SHOWN}</h2>"
        + _latest(campaign, events, decisions),
    ]
    title = escape(campaign.folder.name)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{title}</h1>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def _curve(rounds: Sequence[tuple[int, int, int]]) -> str:
    if not rounds:
        return "<p>No query with a trained model has been answered yet.</p>"
    width, height, left, bottom = 620, 240, 50, 40
    most = max(n for n, _, _ in rounds) or 1
    points = [
        (
            left + (width - left - 10) * n / most,
            10 + (height - bottom - 10) * (1 - r / m),
        )
        for n, m, r in rounds
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    grid = "".join(
        f'<line x1="{left}" x2="{width}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>'
        f'<text x="{left - 8}" y="{y + 4:.0f}" text-anchor="end">{share:.0%}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
        for y in [10 + (height - bottom - 10) * (1 - share)]
    )
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="#4878a8">'
        f"<title>{n} labels: {r} of {m}</title></circle>"
        for (x, y), (n, m, r) in zip(points, rounds, strict=True)
    )
    return (
        f'<svg width="{width}" height="{height}" font-size="12">{grid}'
        f'<polyline points="{line}" fill="none" stroke="#4878a8" stroke-width="2"/>'
        f'{dots}<text x="{left}" y="{height - 6}">labels at the time of the query '
        f"(up to {most})</text></svg>"
        "<table><tr><th>labels</th><th>answered</th><th>right</th></tr>"
        + "".join(
            "<tr>" + "".join(f'<td class="n">{n}</td>' for n in row) + "</tr>"
            for row in rounds
        )
        + "</table>"
    )


def _latest(
    campaign: Campaign,
    events: list[dict[str, Any]],
    decisions: list[tuple[str, Decision, str]],
) -> str:
    guesses = {
        p["path"]: p["guess"] for event in events for p in event.get("proposals", [])
    }
    decisions = sorted(decisions, key=lambda row: (-row[1].event, row[0]))[:_SHOWN]
    files = campaign.files(path for path, *_ in decisions)
    figures = []
    for file, (path, decision, state) in zip(files, decisions, strict=True):
        guess = guesses.get(path)
        text = escape(decision.mark)
        if guess is not None and decision.label is not None and guess != decision.label:
            text += f' <span class="wrong">(guessed {escape(guess)})</span>'
        if state != "as labelled":
            text += f" ({state} since)"
        image = _thumbnail(str(file), campaign.value_range)
        caption = f"{escape(path)}<br><b>{text}</b>"
        figures.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return f'<div class="images">{"".join(figures) or "None yet."}</div>'


def _thumbnail(path: str, value_range: Range | None) -> str:
    try:
        decoded = from_file(path, path, value_range=value_range, to_be_seen=True)
    except UnreadableImageError:
        return "<i>cannot be read</i>"
    buffer = io.BytesIO()
    image = ImageOps.fit(Image.fromarray(decoded), (_SIDE, _SIDE))
    image.save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{_SIDE}" height="{_SIDE}"'
    return f'<img {size} alt="" src="data:image/jpeg;base64,{data}">'
