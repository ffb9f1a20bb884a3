"""A page to look at: tables, thumbnails and pictures side by side, in one HTML file that asks nobody for anything."""

import base64
import html
import io
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from deblur_gan.files import printable

THUMBNAIL_SIZE = (128, 80)

# Larger pictures are cropped (not shrunk: shrinking hides blur) to this many pixels each way.
LARGEST_PICTURE = 1280

# The zoomed crops show so many pixels each way.
WINDOW = 96

# From this difference on (of 255, mean of the channels) an error map is white.
LARGEST_ERROR = 64
_ERROR_COLOURS = np.array([[0, 0, 0], [87, 15, 109], [187, 55, 84], [249, 142, 8], [255, 255, 255]], np.float64)


class Example(NamedTuple):
    """A pair to be looked at closely.

    Attributes:
        title, caption: str.
        sharp, blurred, restored: uint8 `(H, W, 3)`.
    """

    title: str
    caption: str
    sharp: np.ndarray
    blurred: np.ndarray
    restored: np.ndarray


class Section(NamedTuple):
    """What the page shows of one protocol.

    Attributes:
        name, description: str.
        notes: list of str.
        means: list of lists of str, a table; the first line is the header.
        examples: list of `Example`.
        columns: list of str, header of the table of images; the first column is text, the others are numbers.
        images: list of `(path of the thumbnail, cells)`; cells are `(text, str or float to sort by)`.
    """

    name: str
    description: str
    notes: list
    means: list
    examples: list
    columns: list
    images: list


def thumbnail(image):
    """A small JPEG (some 3 kB) of uint8 `(H, W, 3)`, as bytes."""
    small = Image.fromarray(image)
    small.thumbnail(THUMBNAIL_SIZE)
    return _encoded(small, quality=70)


def error_map(sharp, image):
    """Where an image is wrong: the absolute difference from `sharp`, averaged over the channels, in false colours.

    Args:
        sharp, image: uint8 `(H, W, 3)`.

    Returns:
        uint8 `(H, W, 3)`: black for none, through purple, red and orange to white for `LARGEST_ERROR` and more.
    """
    error = np.abs(sharp.astype(np.int16) - image).mean(axis=-1) / LARGEST_ERROR
    steps = np.linspace(0, 1, len(_ERROR_COLOURS))
    return (
        np.stack([np.interp(error, steps, channel) for channel in _ERROR_COLOURS.T], axis=-1).round().astype(np.uint8)
    )


def most_changed(sharp, blurred, restored):
    """The window in which restoring changed the squared error most, for better or worse.

    Args:
        sharp, blurred, restored: uint8 `(H, W, 3)`.

    Returns:
        `(x, y)`, its left and upper edge in pixels; it is `WINDOW` pixels wide and high, or as large as fits.
    """
    before, after = (np.square(sharp.astype(np.float64) - image).sum(axis=-1) for image in (blurred, restored))
    sums = np.pad(np.cumsum(np.cumsum(before - after, axis=0), axis=1), ((1, 0), (1, 0)))
    height, width = (min(WINDOW, side) for side in sharp.shape[:2])
    change = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    y, x = np.unravel_index(np.argmax(np.abs(change)), change.shape)
    return int(x), int(y)


def write_page(path, title, facts, definitions, sections, problems):
    """Writes the page.

    Its size is bounded: some 5 kB for each image, and for each example at most five pictures of 1280x1280 pixels.

    Args:
        path: str or Path of the HTML file.
        title: str.
        facts: dict from str to str: what was measured, with what.
        definitions: dict from the names of the scores to what they are exactly.
        sections: list of `Section`.
        problems: list of str.
    """
    with open(path, "w", encoding="utf-8", errors="replace") as file:
        for part in _page(title, facts, definitions, sections, problems):
            file.write(part)


def _page(title, facts, definitions, sections, problems):
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # The browser itself then refuses whatever the page might ask of the network.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" '
        f'content="light dark">\n<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<header>\n'
        f"<h1>{_text(title)}</h1>\n"
    )
    if len(sections) > 1:
        links = (f'<a href="#{_text(section.name)}">{_text(section.name)}</a>' for section in sections)
        yield f"<nav>Protocols: {' '.join(links)}</nav>\n"
    yield "</header>\n<main>\n"
    if problems:
        lines = "".join(f"<li>{_text(line)}</li>" for line in problems)
        yield f'<details class="problems"><summary>{len(problems)} files left out</summary><ul>{lines}</ul></details>\n'
    for section in sections:
        yield from _section(section)
    yield "<section><h2>What was measured</h2>\n" + _definitions(facts)
    yield "<h3>Scores</h3>\n" + _definitions(definitions)
    yield f"</section>\n</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"


def _section(section):
    yield f'<section id="{_text(section.name)}">\n<h2>Protocol {_text(section.name)}</h2>\n'
    yield f"<p>{_text(section.description)}</p>\n" + "".join(f"<p>{_text(note)}</p>\n" for note in section.notes)
    header, *lines = section.means
    yield '<div class="wide"><table class="means">\n<thead><tr>'
    yield "".join(f'<th scope="col">{_text(cell)}</th>' for cell in header) + "</tr></thead>\n<tbody>\n"
    for line in lines:
        cells = "".join(f"<td{_sign(cell)}>{_text(cell)}</td>" for cell in line)
        yield f'<tr class="{_text(line[2].split()[0])}">{cells}</tr>\n'
    yield "</tbody></table></div>\n"
    if section.examples:
        yield (
            "<h3>Side by side</h3>\n<p>Click into a picture, or move the frame with the arrow keys (with Shift in "
            "larger steps): the lower row shows what is in the frame, pixel by pixel, and starts where restoring "
            "changed most. Error maps: black for no difference from the sharp picture, white for "
            f"{LARGEST_ERROR} of 255 or more.</p>\n"
        )
    for example in section.examples:
        yield from _example(example)
    yield "<h3>All images</h3>\n<p>Click a heading to sort. The thumbnail is the restored picture.</p>\n"
    yield '<div class="wide"><table class="images">\n<thead><tr><td></td>'
    for column in section.columns:
        yield f'<th scope="col"><button>{_text(column)}</button></th>'
    yield "</tr></thead>\n<tbody>\n"
    for path, cells in section.images:
        content = Path(path).read_bytes()
        width, height = Image.open(io.BytesIO(content)).size
        yield f'<tr><td><img loading="lazy" alt="" width="{width}" height="{height}" src="{_data_uri(content)}"></td>'
        for text, value in cells:
            if isinstance(value, str):
                yield f"<td>{_text(text)}</td>"
            else:
                # JavaScript spells infinity its own way, and sorts what is not a number to the end.
                number = "Infinity" if value == math.inf else "-Infinity" if value == -math.inf else f"{value}"
                yield f'<td{_sign(text)} data-value="{number}">{_text(text)}</td>'
        yield "</tr>\n"
    yield "</tbody></table></div>\n</section>\n"


def _example(example):
    x, y = most_changed(example.sharp, example.blurred, example.restored)
    height, width = example.sharp.shape[:2]
    left = min(max(x + WINDOW // 2 - LARGEST_PICTURE // 2, 0), max(width - LARGEST_PICTURE, 0))
    top = min(max(y + WINDOW // 2 - LARGEST_PICTURE // 2, 0), max(height - LARGEST_PICTURE, 0))
    sharp, blurred, restored = (
        image[top : top + LARGEST_PICTURE, left : left + LARGEST_PICTURE] for image in example[2:]
    )
    pictures = {
        "sharp": sharp,
        "blurred": blurred,
        "restored": restored,
        "error of blurred": error_map(sharp, blurred),
        "error of restored": error_map(sharp, restored),
    }
    cropped = "" if sharp.shape == example.sharp.shape else f" (a part of the {width}x{height} picture)"
    yield f'<figure class="example" data-x="{x - left}" data-y="{y - top}" data-window="{WINDOW}">\n'
    yield f"<figcaption><b>{_text(example.title)}</b> {_text(example.caption)}{cropped}</figcaption>\n"
    yield '<div class="panels">\n'
    for number, (name, picture) in enumerate(pictures.items()):
        quality = 80 if name.startswith("error") else 95
        source = _data_uri(_encoded(Image.fromarray(picture), quality=quality, subsampling=0))
        yield (
            f'<div class="panel"><span class="name">{name}</span><div class="picture">'
            f'<img alt="{name}" width="{picture.shape[1]}" height="{picture.shape[0]}" src="{source}">'
            f'<button class="frame" aria-label="Frame of the zoomed crops; arrow keys move it" '
            f'tabindex="{0 if number == 0 else -1}"></button></div>'
            f'<canvas width="{4 * WINDOW}" height="{4 * WINDOW}" role="img" aria-label="{name}, zoomed"></canvas>'
            "</div>\n"
        )
    yield "</div>\n</figure>\n"


def _definitions(terms):
    lines = "".join(f"<dt>{_text(term)}</dt><dd>{_text(meaning)}</dd>\n" for term, meaning in terms.items())
    return f"<dl>\n{lines}</dl>\n"


def _encoded(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", optimize=True, **options)
    return file.getvalue()


def _data_uri(jpeg):
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _sign(text):
    """Colours a number that carries its sign: gains are the only ones that do."""
    if text[:1] not in ("+", "-") or not text.strip("+-0."):
        return ""
    return ' class="good"' if text[0] == "+" else ' class="bad"'


def _text(text):
    return html.escape(printable(text))


_STYLE = """
:root { --ground: #fff; --raised: #f4f5f7; --ink: #1c1e21; --faint: #5c6370; --line: #d9dce1; --accent: #0b5cad;
  --good: #17703a; --bad: #b3261e; --frame: #ffd400; }
@media (prefers-color-scheme: dark) { :root { --ground: #14161a; --raised: #1f2228; --ink: #e6e8eb; --faint: #a0a7b3;
  --line: #363b44; --accent: #7db7f5; --good: #6fd08c; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header, main { max-width: 1500px; margin: 0 auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin: 1.5rem 0 .5rem; } h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; } p { margin: .3rem 0; color: var(--faint); max-width: 75em; }
a { color: var(--accent); } nav a { margin-left: .6rem; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { background: var(--raised); font-weight: 600; }
.means td:first-child, .means td:nth-child(3), .means th:first-child { text-align: left; }
.means .gain td { font-weight: 600; border-bottom-width: 2px; }
.images td:not([data-value]) { text-align: left; }
.images img { display: block; margin: auto; }
.images { font-size: .9rem; }
.images th:nth-child(2) { text-align: left; }
.good { color: var(--good); } .bad { color: var(--bad); }
.images th { padding: 0; white-space: normal; vertical-align: bottom; }
.images th button { all: unset; box-sizing: border-box; width: 100%; padding: .4rem .7rem;
  cursor: pointer; }
.images th button::after { content: "\\2195"; color: var(--faint); margin-left: .3em; opacity: .6; }
.images th[aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
.images th[aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
button:focus-visible, a:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.images tbody tr:hover { background: var(--raised); }
.example { margin: 1rem 0 1.6rem; padding: 1rem; background: var(--raised); border-radius: .5rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: .7rem; margin-top: .6rem; }
.panel { min-width: 0; } .panel .name { font-size: .85rem; color: var(--faint); }
.picture { position: relative; cursor: crosshair; }
.picture img { display: block; width: 100%; height: auto; }
.frame { position: absolute; padding: 0; background: none; border: 2px solid var(--frame); cursor: crosshair;
  box-shadow: 0 0 0 1px #0008; pointer-events: none; }
canvas { display: block; width: 100%; margin-top: .4rem; image-rendering: pixelated; }
.problems { border-left: 4px solid var(--bad); padding: .3rem .8rem; background: var(--raised); margin: 1rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .4rem 0 1.5rem; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
"""

_SCRIPT = """
'use strict';
for (const table of document.querySelectorAll('table.images')) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const names = new Intl.Collator('en', {numeric: true});
  for (const head of heads) head.querySelector('button')?.addEventListener('click', () => {
    const down = head.getAttribute('aria-sort') === 'ascending';
    for (const other of heads) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const compare = (a, b) => {
      a = a.cells[head.cellIndex]; b = b.cells[head.cellIndex];
      if (!('value' in a.dataset)) return (down ? -1 : 1) * names.compare(a.textContent, b.textContent);
      a = Number(a.dataset.value); b = Number(b.dataset.value);
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return (down ? -1 : 1) * (a < b ? -1 : a > b ? 1 : 0);
    };
    body.append(...[...body.rows].sort(compare));
  });
}
const show = (example) => {
  const images = [...example.querySelectorAll('img')];
  const {naturalWidth: width, naturalHeight: height} = images[0];
  const across = Math.min(Number(example.dataset.window), width);
  const down = Math.min(Number(example.dataset.window), height);
  const move = (x, y) => {
    x = Math.round(Math.min(Math.max(x, 0), width - across));
    y = Math.round(Math.min(Math.max(y, 0), height - down));
    example.dataset.x = x;
    example.dataset.y = y;
    for (const frame of example.querySelectorAll('.frame')) {
      frame.style.left = `${100 * x / width}%`;
      frame.style.top = `${100 * y / height}%`;
      frame.style.width = `${100 * across / width}%`;
      frame.style.height = `${100 * down / height}%`;
    }
    example.querySelectorAll('canvas').forEach((canvas, i) => {
      const context = canvas.getContext('2d');
      canvas.height = Math.round(canvas.width * down / across);
      context.imageSmoothingEnabled = false;
      context.drawImage(images[i], x, y, across, down, 0, 0, canvas.width, canvas.height);
    });
  };
  const follow = (event) => {
    const place = event.currentTarget.getBoundingClientRect();
    move((event.clientX - place.left) / place.width * width - across / 2,
      (event.clientY - place.top) / place.height * height - down / 2);
  };
  for (const picture of example.querySelectorAll('.picture')) {
    picture.addEventListener('click', follow);
    picture.addEventListener('pointermove', (event) => { if (event.buttons & 1) follow(event); });
    picture.querySelector('img').draggable = false;
  }
  example.addEventListener('keydown', (event) => {
    const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!way || !event.target.matches('.frame')) return;
    event.preventDefault();
    const step = event.shiftKey ? across / 2 : 8;
    move(Number(example.dataset.x) + way[0] * step, Number(example.dataset.y) + way[1] * step);
  });
  move(Number(example.dataset.x), Number(example.dataset.y));
};
addEventListener('load', () => document.querySelectorAll('.example').forEach(show));
"""
