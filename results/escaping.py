r"""Text from outside (names, class names, errors) for Markdown, LaTeX, HTML and file names.

One function per format, which its writer in `results.tables.writers` applies. Control characters,
line ends and signs that turn the direction of writing are made visible first, in every format.
"""

import hashlib
import re
import unicodedata

from markupsafe import escape

_MOST_LETTERS_OF_A_FILE = 100
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MARKDOWN = re.compile(
    r"[\\`*\[\]|~$]|<(?=[A-Za-z/!?])|&(?=[A-Za-z#])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"
)
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
    "\u0328": "k",
}
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # behind \\ it would begin an option
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "·": r"$\cdot$",
    "−": r"$-$",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"\textbar{}",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\rightarrow$",
    "°": r"$^\circ$",
    "²": r"$^2$",
    "³": r"$^3$",
    "—": "---",
    "–": "--",
    "…": r"\dots{}",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
    "µ": r"$\mu$",
    "\u00a0": "~",
} | {
    unicodedata.lookup(f"GREEK SMALL LETTER {name.upper()}"): rf"$\{name}$"
    for name in (
        *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"),
        *("mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
    )
}


def visible(text: object) -> str:
    r"""Return text on one line, every sign that is not seen written as its code.

    Examples:
        >>> visible("a\nb \u202ec")
        'a b [U+202E]c'
    """
    one_line = re.sub(r"[ \t]*[\r\n\x0b\x0c\x85\u2028\u2029]\s*", " ", str(text)).replace(
        "\t", " "
    )
    return "".join(
        f"[U+{ord(letter):04X}]" if unicodedata.category(letter) in _INVISIBLE else letter
        for letter in one_line
    )


def escape_markdown(text: object) -> str:
    r"""Return text that Markdown prints as it is, in a table's cell too.

    What is no markup where it stands (an underscore within a word, "p < 0.05") stays as it is.

    Examples:
        >>> escape_markdown("no_cell | <b> *x*")
        'no_cell \\| \\<b> \\*x\\*'
    """
    return _MARKDOWN.sub(lambda match: f"\\{match[0]}", visible(text))


def escape_latex(text: object) -> str:
    r"""Return text that LaTeX prints as it is, with any engine.

    Letters with accents become commands; letters that pdfLaTeX has no font for are written as
    their code, so that a name in another script does not stop it.

    Examples:
        >>> escape_latex("no_cell ± 5 %")
        'no\\_cell $\\pm$ 5 \\%'
        >>> escape_latex("größe 心")
        'gr\\"{o}\\ss{}e {[}U+5FC3{]}'
    """
    escaped = "".join(map(_latex_letter, visible(text).replace("--", "-\u200a-")))
    return escaped.replace("\u200a", "{}")


def escape_html(text: object) -> str:
    """Return text that HTML prints as it is, in elements and in quoted attributes.

    Examples:
        >>> escape_html("5 < 6 & <b>")
        '5 &lt; 6 &amp; &lt;b&gt;'
    """
    return str(escape(visible(text)))


def _latex_letter(letter: str) -> str:
    if letter in _LATEX:
        return _LATEX[letter]
    if letter.isascii() or letter == "\u200a":
        return letter
    base, *marks = list(unicodedata.normalize("NFD", letter))
    if len(marks) == 1 and base.isascii() and marks[0] in _ACCENTS:
        return f"\\{_ACCENTS[marks[0]]}{{{base}}}"
    return f"{{[}}U+{ord(letter):04X}{{]}}"


def file_name(name: str) -> str:
    """Return a name as part of a path: itself if it can be, else its plain letters and a hash.

    Examples:
        >>> file_name("js_stability")
        'js_stability'
        >>> file_name("x/../../OUTSIDE")
        'x-OUTSIDE-e3495aaa'
    """
    if len(name) <= _MOST_LETTERS_OF_A_FILE and _FILE_NAME.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).lstrip("-._")[:_MOST_LETTERS_OF_A_FILE]
    return f"{plain}-{digest}" if plain else digest
