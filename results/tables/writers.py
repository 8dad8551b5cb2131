"""Tables as Markdown, LaTeX and HTML: a writer for each, which alone escapes for its format."""

from collections.abc import Sequence
from typing import Protocol

from results.escaping import escape_html, escape_latex, escape_markdown
from results.tables.table import Column, ShownCell, Table


class Writer(Protocol):
    """Writes tables in one format."""

    def escape(self, text: object) -> str:
        """Return text as the format prints it, on one line."""
        ...

    def table(self, table: Table) -> str:
        """Return headings and rows, and the caption where the format has one."""
        ...

    def paragraphs(self, texts: Sequence[str]) -> str:
        """Return a paragraph for each text; empty if there are none."""
        ...


class MarkdownWriter:
    """Writes pipe tables."""

    def escape(self, text: object) -> str:
        """Return text as Markdown prints it, on one line."""
        return escape_markdown(text)

    def table(self, table: Table) -> str:
        """Return a pipe table; the text around it has the caption."""
        rules = ["---:" if column.align == "right" else "---" for column in table.columns]
        lines = [self._line(table.header), f"| {' | '.join(rules)} |"]
        return "\n".join([*lines, *map(self._line, table.lines)])

    def paragraphs(self, texts: Sequence[str]) -> str:
        """Return paragraphs with empty lines between them."""
        return "\n\n".join(map(self.escape, texts))

    def _line(self, texts: Sequence[str]) -> str:
        return f"| {' | '.join(map(self.escape, texts))} |"


class LatexWriter:
    """Writes floating tables with the rules of booktabs."""

    def escape(self, text: object) -> str:
        """Return text as LaTeX prints it, on one line."""
        return escape_latex(text)

    def table(self, table: Table) -> str:
        """Return a ``table`` environment; a rule parts groups of rows."""
        title = f"{table.title}." if table.title else ""
        caption = " ".join(self.escape(text) for text in (title, table.caption) if text)
        sides = "".join("r" if column.align == "right" else "l" for column in table.columns)
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            r"\small",
            rf"\begin{{tabular}}{{{sides}}}",
            r"\toprule",
            self._line(table.header),
        ]
        for group in table.groups():
            lines.append(r"\midrule")
            lines += [self._line([cell.text for cell in row]) for row in group]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])

    def paragraphs(self, texts: Sequence[str]) -> str:
        """Return paragraphs with empty lines between them."""
        return "\n\n".join(map(self.escape, texts))

    def _line(self, texts: Sequence[str]) -> str:
        return rf"{' & '.join(map(self.escape, texts))} \\"


class HtmlWriter:
    """Writes table elements; the names of a group stand in its first row alone."""

    def escape(self, text: object) -> str:
        """Return text as HTML prints it, in elements and attributes."""
        return escape_html(text)

    def table(self, table: Table) -> str:
        """Return a ``table`` that scrolls; the text around it has the caption."""
        header = "".join(
            f"<th{_class(column, is_heading=True)}>{self.escape(column.label)}</th>"
            for column in table.columns
        )
        has_groups = any(column.names_group for column in table.columns)
        rows = [
            self._row(table, row, starts=has_groups and not place, repeats=place > 0)
            for group in table.groups()
            for place, row in enumerate(group)
        ]
        return "\n".join(
            [
                f'<div class="scroll"><table><thead><tr>{header}</tr></thead>',
                "<tbody>",
                *rows,
                "</tbody></table></div>",
            ]
        )

    def paragraphs(self, texts: Sequence[str]) -> str:
        """Return an element for each text."""
        return "\n".join(f"<p>{self.escape(text)}</p>" for text in texts)

    def _row(self, table: Table, row: Sequence[ShownCell], *, starts: bool, repeats: bool) -> str:
        cells = "".join(
            self._cell(column, cell, is_blank=repeats and column.names_group)
            for column, cell in zip(table.columns, row, strict=True)
        )
        first = ' class="first"' if starts else ""
        return f"<tr{first}>{cells}</tr>"

    def _cell(self, column: Column, cell: ShownCell, *, is_blank: bool) -> str:
        reason = f' title="{self.escape(cell.reason)}"' if cell.reason and not is_blank else ""
        text = "" if is_blank else self.escape(cell.text)
        return f"<td{_class(column)}{reason}>{text}</td>"


WRITERS: dict[str, Writer] = {
    "markdown": MarkdownWriter(),
    "latex": LatexWriter(),
    "html": HtmlWriter(),
}


def _class(column: Column, *, is_heading: bool = False) -> str:
    if column.align == "right":
        return ' class="n"'
    return ' class="name"' if column.names_group and not is_heading else ""
