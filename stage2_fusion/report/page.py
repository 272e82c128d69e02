"""The HTML of a report. Every text that it shows is escaped here."""

import base64
import re
from collections.abc import Sequence
from functools import singledispatchmethod
from html import escape
from pathlib import Path

from stage2_fusion.report.content import (
    Beside,
    Code,
    Fact,
    Facts,
    Figure,
    Grid,
    Group,
    Lines,
    Picture,
    Section,
    Table,
    Text,
)
from stage2_fusion.report.figures import for_page

CSS = Path(__file__).with_name("page.css")
MISSING_TITLE = "Not shown, and how to get it"


class Page:
    """Turns sections into one HTML document."""

    def __init__(self, drawn: dict[str, str]) -> None:
        """drawn: {name of a figure: its SVG}."""
        self._drawn = drawn
        self._count = 0

    def document(self, title: str, about: str, sections: Sequence[Section], footer: str) -> str:
        """The whole file. about, footer: texts under the title and at the end."""
        shown = [section for section in sections if section.lead or section.blocks or section.notes]
        missing = [Fact(section.title, line) for section in sections for line in section.missing]
        if missing:
            shown.append(Section(MISSING_TITLE, blocks=[Lines(missing)]))
        named = [(f"section-{number}", section) for number, section in enumerate(shown, 1)]
        links = "".join(f'<li><a href="#{name}">{escape(section.title)}</a></li>' for name, section in named)
        body = "\n".join(self.section(name, section) for name, section in named)
        return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{escape(title)}</title>
<style>
{CSS.read_text(encoding="utf-8")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the report</a>
<header>
<h1>{escape(title)}</h1>
<p class="about">{escape(about)}</p>
<nav aria-label="Sections"><ol>{links}</ol></nav>
</header>
<main id="main">
{body}
</main>
<footer><p>{escape(footer)}</p></footer>
</body>
</html>
"""

    def section(self, name: str, section: Section) -> str:
        """A section with its heading, lead, blocks and notes."""
        parts = [f'<section id="{name}" aria-labelledby="{name}-title">', f'<h2 id="{name}-title">']
        parts[-1] += f"{escape(section.title)}</h2>"
        parts += [f"<p>{escape(section.lead)}</p>"] if section.lead else []
        parts += [self.block(block) for block in section.blocks]
        lines = "".join(f"<li>{_marked(text)}</li>" for text in section.notes)
        parts += [f'<ul class="notice" aria-label="Notes">{lines}</ul>'] if lines else []
        return "\n".join([*parts, "</section>"])

    @singledispatchmethod
    def block(self, block: object) -> str:
        """The HTML of one block."""
        raise TypeError(f"{type(block).__name__} is not a block of a section")

    @block.register
    def _text(self, block: Text) -> str:
        return f"<p>{escape(block.text)}</p>"

    @block.register
    def _code(self, block: Code) -> str:
        return f'<pre tabindex="0">{escape(block.text)}</pre>'

    @block.register
    def _facts(self, block: Facts) -> str:
        return f'<dl class="facts">{"".join(map(_fact, block.facts))}</dl>'

    @block.register
    def _lines(self, block: Lines) -> str:
        lines = "".join(
            f"<li><strong>{escape(each.label)}:</strong> {_marked(each.value)}</li>" for each in block.lines
        )
        return f'<ul class="lines">{lines}</ul>'

    @block.register
    def _beside(self, block: Beside) -> str:
        parts = "".join(f"<div>{self.block(part)}</div>" for part in (block.left, block.right))
        return f'<div class="beside">{parts}</div>'

    @block.register
    def _table(self, block: Table) -> str:
        numeric = set(block.numeric)

        def cell(column: int, text: str, tag: str, scope: str) -> str:
            style = ' class="number"' if column in numeric else ""
            return f"<{tag}{scope}{style}>{escape(text)}</{tag}>"

        head = "".join(cell(column, text, "th", ' scope="col"') for column, text in enumerate(block.header))
        rows = "\n".join(
            "<tr>"
            + "".join(
                cell(column, text, "td" if column else "th", "" if column else ' scope="row"')
                for column, text in enumerate(row)
            )
            + "</tr>"
            for row in block.rows
        )
        caption = escape(block.caption)
        return (
            f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table><caption>{caption}</caption>'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
        )

    @block.register
    def _figure(self, block: Figure) -> str:
        return self._drawing(block)

    @block.register
    def _grid(self, block: Grid) -> str:
        figures = "\n".join(self._drawing(figure) for figure in block.figures)
        caption = f'<p class="caption">{escape(block.caption)}</p>' if block.caption else ""
        few = " few" if len(block.figures) < 3 else ""
        return f'<div class="grid{few}">{figures}</div>{caption}'

    @block.register
    def _picture(self, block: Picture) -> str:
        data = base64.b64encode(block.data).decode("ascii")
        image = f'<img src="data:image/{block.kind};base64,{data}" alt="{escape(block.alt)}">'
        return f"<figure>{image}{_caption(block.caption)}</figure>"

    @block.register
    def _group(self, block: Group) -> str:
        inner = "\n".join(map(self.block, block.blocks))
        title = escape(block.title)
        if block.folded:
            return f"<details><summary>{title}</summary>\n{inner}\n</details>"
        return f"<h3>{title}</h3>\n{inner}"

    def _drawing(self, figure: Figure) -> str:
        self._count += 1
        svg = for_page(self._drawn[figure.name], f"f{self._count}-")
        shown = f'<div class="drawing" role="img" aria-label="{escape(figure.alt)}">{svg}</div>'
        return f"<figure>{shown}{_caption(figure.caption)}</figure>"


def _marked(text: str) -> str:
    """Escaped text, with `commands` marked as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _fact(fact: Fact) -> str:
    note = f'<dd class="note">{escape(fact.note)}</dd>' if fact.note else ""
    return f"<div><dt>{escape(fact.label)}</dt><dd>{escape(fact.value)}</dd>{note}</div>"


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>" if text else ""
