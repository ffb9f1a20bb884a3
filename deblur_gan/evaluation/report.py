"""Tables for the terminal, and an HTML page that loads nothing from elsewhere.

The page is `report.html` of this folder with the same tables, thumbnails, and pictures side by side, and a copy of the
`.css` and `.js` files. Its Content-Security-Policy makes the browser refuse every request of the page to the network.
"""

import base64
import html
import io
from importlib import resources
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
from PIL import Image

from deblur_gan.evaluation.measure import KINDS, PROTOCOLS, Row
from deblur_gan.evaluation.metrics import METRICS
from deblur_gan.files import printable

THUMBNAIL_SIZE = (128, 80)

# Larger pictures are cropped to this many pixels each way; shrinking would hide blur.
LARGEST_PICTURE = 1280

# Pixels each way in the zoomed crops.
WINDOW = 96

# From this difference on (of 255, mean of the channels) an error map is white.
LARGEST_ERROR = 64
_ERROR_COLOURS = np.array([[0, 0, 0], [87, 15, 109], [187, 55, 84], [249, 142, 8], [255, 255, 255]], np.float64)

LABELS = {"blurred": "blurred input", "restored": "restored", "gain": "gain"}

# The scores of each image on the page; `metrics.csv` has all.
_PAGE_SCORES = [(name, kind) for name in ("psnr", "ssim") for kind in KINDS]


class Example(NamedTuple):
    """A pair that the page shows in full: title, scores, and uint8 `(H, W, 3)` images."""

    title: str
    row: Row
    sharp: np.ndarray
    blurred: np.ndarray
    restored: np.ndarray


class Section(NamedTuple):
    """The part of the page about one protocol.

    `summary` is `{"overall": summary, "sequences": {sequence: summary}}`, see `summarize`; `images` is a list of
    `(Row, path of the thumbnail)`; `examples` is a list of `Example`.
    """

    protocol: str
    summary: dict
    images: list
    examples: list


def format_table(result):
    """Formats the scores of one `Result` as Markdown tables, one for each protocol."""
    parts = []
    for protocol, summary in result.summaries.items():
        first, *others = _notes(summary["overall"])
        table = _markdown(_means(summary), left=(0, 2))
        parts += [f"Protocol {protocol}: {PROTOCOLS[protocol].description}\n{first}", table, *others]
    return "\n\n".join(parts)


def _means(summary):
    """Returns the means of one protocol as lines of cells, the header first."""
    lines = [["sequence", "images", "", *(metric.label for metric in METRICS.values())]]
    for sequence, means in [*summary["sequences"].items(), ("all", summary["overall"])]:
        for kind in KINDS:
            first = [sequence, str(means["n_images"])] if kind == "blurred" else ["", ""]
            lines.append([*first, LABELS[kind], *(_number(name, kind, means[kind][name]) for name in METRICS)])
    return lines


def _notes(overall):
    notes = [f"{overall['n_images']} images, {overall['seconds_per_image']:.3g} s per image (median of deblurring)"]
    if overall["n_perfect"]:
        notes.append(
            f"{overall['n_perfect']} of {overall['n_images']} images equal their sharp version before or after "
            "restoring: their PSNR is infinite and left out of the means of PSNR."
        )
    return notes


def format_comparison(results):
    """Formats one Markdown table of several `Result`: a row for each protocol and file, and the blurred input."""
    lines = [["protocol", "weights", *(metric.label for metric in METRICS.values()), "gain [dB]", "s per image"]]
    for protocol, first in results[0].summaries.items():
        blurred = first["overall"]["blurred"]
        lines.append(
            [protocol, LABELS["blurred"], *(_number(name, "blurred", blurred[name]) for name in METRICS), "", ""]
        )
        for result in results:
            means = result.summaries[protocol]["overall"]
            scores = [_number(name, "restored", means["restored"][name]) for name in METRICS]
            gain = _number("psnr", "gain", means["gain"]["psnr"])
            lines.append(["", result.name, *scores, gain, f"{means['seconds_per_image']:.3g}"])
    return _markdown(lines, left=(0, 1))


def _number(name, kind, value):
    return "-" if value is None else f"{value:{'+' if kind == 'gain' else ''}.{METRICS[name].digits}f}"


def _markdown(lines, left):
    """Formats a Markdown table; the columns numbered in `left` are flush left, the others flush right."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [cell.ljust(widths[i]) if i in left else cell.rjust(widths[i]) for i, cell in enumerate(line)] for line in lines
    ]
    header, *body = (f"| {' | '.join(line)} |" for line in padded)
    rule = "|".join("-" * (width + 2) if i in left else "-" * (width + 1) + ":" for i, width in enumerate(widths))
    return "\n".join([header, f"|{rule}|", *body])


def thumbnail(image):
    """Encodes uint8 `(H, W, 3)` as a small JPEG of about 3 kB; returns bytes."""
    small = Image.fromarray(image)
    small.thumbnail(THUMBNAIL_SIZE)
    return _encoded(small, quality=70, optimize=True)


def error_map(sharp, image):
    """Draws the absolute difference of two images, averaged over the channels, in false colours.

    Returns uint8 `(H, W, 3)`: black for none, through purple, red and orange to white for `LARGEST_ERROR` and more.
    """
    error = np.abs(sharp.astype(np.int16) - image).mean(axis=-1) / LARGEST_ERROR
    steps = np.linspace(0, 1, len(_ERROR_COLOURS))
    colours = [np.interp(error, steps, channel) for channel in _ERROR_COLOURS.T]
    return np.stack(colours, axis=-1).round().astype(np.uint8)


def most_changed(sharp, blurred, restored):
    """Finds the window in which restoring changed the squared error most, for better or worse.

    Returns `(x, y)`, its left and upper edge in pixels; it is `WINDOW` pixels wide and high, or as large as fits.
    """
    before, after = (np.square(sharp.astype(np.float64) - image).sum(axis=-1) for image in (blurred, restored))
    sums = np.pad(np.cumsum(np.cumsum(before - after, axis=0), axis=1), ((1, 0), (1, 0)))
    height, width = (min(WINDOW, side) for side in sharp.shape[:2])
    change = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    y, x = np.unravel_index(np.argmax(np.abs(change)), change.shape)
    return int(x), int(y)


def write_page(path, title, facts, sections, problems):
    """Writes the page: about 5 kB for each image, and at most five pictures of 1280x1280 pixels for each example.

    Args:
        path: str or Path of the HTML file.
        title: str.
        facts: dict from str to str, such as the weights and the data.
        sections: list of `Section`.
        problems: list of str.
    """
    links = " ".join(f'<a href="#{section.protocol}">{section.protocol}</a>' for section in sections)
    lines = "".join(f"<li>{_html(line)}</li>" for line in problems)
    summary = f"<summary>Files left out: {len(problems)}</summary>"
    page = Template(_source("report.html")).substitute(
        title=_html(title),
        style=_source("report.css", "slider.css"),
        links=f"<nav>Protocols: {links}</nav>\n" if len(sections) > 1 else "",
        problems=f'<details class="problems">{summary}<ul>{lines}</ul></details>\n' if problems else "",
        sections="".join(part for section in sections for part in _section(section)),
        facts=_definitions(facts),
        scores=_definitions({metric.label: metric.definition for metric in METRICS.values()}),
        script=_source("slider.js", "report.js"),
    )
    Path(path).write_text(page, encoding="utf-8", errors="replace")


def _source(*names):
    folder = resources.files("deblur_gan.evaluation")
    return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def _section(section):
    yield f'<section id="{section.protocol}">\n<h2>Protocol {section.protocol}</h2>\n'
    description = PROTOCOLS[section.protocol].description
    for note in (description[0].upper() + description[1:], *_notes(section.summary["overall"])):
        yield f"<p>{_html(note)}</p>\n"
    header, *lines = _means(section.summary)
    yield '<div class="wide"><table class="means">\n<thead><tr>'
    yield "".join(f'<th scope="col">{_html(cell)}</th>' for cell in header) + "</tr></thead>\n<tbody>\n"
    for line in lines:
        cells = "".join(f"<td{_sign(cell)}>{_html(cell)}</td>" for cell in line)
        yield f'<tr class="{line[2].split()[0]}">{cells}</tr>\n'
    yield "</tbody></table></div>\n"
    if section.examples:
        yield (
            "<h3>Side by side</h3>\n<p>Drag the two lines in the large picture to compare blurred, restored and sharp. "
            "Below it, click into a picture, or move the frame with the arrow keys (with Shift in "
            "larger steps): the lower row shows what is in the frame, pixel by pixel, and starts where restoring "
            "changed most. Error maps: black for no difference from the sharp picture, white for "
            f"{LARGEST_ERROR} of 255 or more.</p>\n"
        )
    for example in section.examples:
        yield from _example(example)
    yield "<h3>All images</h3>\n<p>Click a heading to sort. The thumbnail is the restored picture.</p>\n"
    yield '<div class="wide"><table class="images">\n<thead><tr><td></td>'
    for column in ("name", "size", *(f"{METRICS[name].label} {kind}" for name, kind in _PAGE_SCORES)):
        yield f'<th scope="col"><button>{column}</button></th>'
    yield "</tr></thead>\n<tbody>\n"
    for row, path in section.images:
        content = Path(path).read_bytes()
        width, height = Image.open(io.BytesIO(content)).size
        yield f'<tr><td><img loading="lazy" alt="" width="{width}" height="{height}" src="{_data_uri(content)}"></td>'
        yield f"<td>{_html(_full_name(row))}</td>"
        yield f'<td data-value="{row.width * row.height}">{row.width}x{row.height}</td>'
        for name, kind in _PAGE_SCORES:
            value = getattr(row, kind)[name]
            text = _number(name, kind, value)
            # JavaScript reads the numbers; report.js sorts NaN to the end.
            yield f'<td{_sign(text)} data-value="{str(value).replace("inf", "Infinity")}">{text}</td>'
        yield "</tr>\n"
    yield "</tbody></table></div>\n</section>\n"


def _example(example):
    x, y = most_changed(example.sharp, example.blurred, example.restored)
    height, width = example.sharp.shape[:2]
    left, top = (
        min(max(start + WINDOW // 2 - LARGEST_PICTURE // 2, 0), max(side - LARGEST_PICTURE, 0))
        for start, side in ((x, width), (y, height))
    )
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
    row = example.row
    shown = [_number(name, kind, getattr(row, kind)[name]) for name, kind in _PAGE_SCORES]
    scores = "PSNR {} to {} dB ({}), SSIM {} to {} ({})".format(*shown)
    cropped = "" if sharp.shape == example.sharp.shape else f" (a part of the {width}x{height} picture)"
    yield f'<figure class="example" data-x="{x - left}" data-y="{y - top}" data-window="{WINDOW}">\n'
    yield f"<figcaption><b>{example.title}</b> {_html(_full_name(row))}: {scores}{cropped}</figcaption>\n"
    yield '<div class="panels">\n'
    for name, picture in pictures.items():
        quality = 80 if name.startswith("error") else 95
        # Not optimize=True, as for thumbnails: Pillow's buffer would be too small for a large picture of noise.
        source = _data_uri(_encoded(Image.fromarray(picture), quality=quality, subsampling=0))
        yield (
            f'<div class="panel"><span class="name">{name}</span><div class="picture">'
            f'<img alt="{name}" width="{picture.shape[1]}" height="{picture.shape[0]}" src="{source}">'
            f'<button class="frame" aria-label="Frame of the zoomed crops; arrow keys move it" '
            f'tabindex="{0 if name == "sharp" else -1}"></button></div>'
            f'<canvas width="{4 * WINDOW}" height="{4 * WINDOW}" role="img" aria-label="{name}, zoomed"></canvas>'
            "</div>\n"
        )
    yield "</div>\n</figure>\n"


def _full_name(row):
    return f"{row.sequence}/{row.name}" if row.sequence else row.name


def _definitions(terms):
    lines = "".join(f"<dt>{_html(term)}</dt><dd>{_html(meaning)}</dd>\n" for term, meaning in terms.items())
    return f"<dl>\n{lines}</dl>\n"


def _encoded(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def _data_uri(jpeg):
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _sign(text):
    """Returns the class of a number that has a sign, which only gains have."""
    if text[:1] not in ("+", "-") or not text.strip("+-0."):
        return ""
    return ' class="good"' if text[0] == "+" else ' class="bad"'


def _html(text):
    return html.escape(printable(text))
