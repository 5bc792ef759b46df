"""Text from data, put so that it prints as it stands: nothing in it is a command of LaTeX or of Markdown."""

import re
import unicodedata

import pandas as pd

ACCENTS = {
    **{"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": "."},
    **{"\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c"},
}
MATHS = dict(
    zip(
        "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ±×·≤≥≠≈↑↓→←∞",
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi "
        "chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega pm times cdot le ge ne approx uparrow "
        "downarrow rightarrow leftarrow infty".split(),
        strict=True,
    )
)
NAMES = dict(
    zip(
        "\\~^<>|–—“”†‡§¶…•ßæÆøØœŒłŁı",
        "textbackslash textasciitilde textasciicircum textless textgreater textbar textendash textemdash "
        "textquotedblleft textquotedblright dag ddag S P dots textbullet ss ae AE o O oe OE l L i".split(),
        strict=True,
    )
)
LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{sign: f"{{{sign}}}" for sign in "[]*`"},  # commands may take them for an argument, fonts for a ligature
    **{sign: f"$\\{name}$" for sign, name in MATHS.items()},
    **{sign: f"\\{name}{{}}" for sign, name in NAMES.items()},
    **{sign: f"$^{digit}$" for sign, digit in zip("¹²³", "123", strict=True)},
    **{"‘": "{`}", "’": "'", '"': "''", "−": "$-$", "\u2010": "-"},
}
LIGATURES = re.compile(r"([-'])(?=\1)")
MARKDOWN = re.compile(
    r"[|`*~$]"
    r"|\\(?=[!-/:-@\[-`{-~]|$)"  # before a letter it is no more than itself
    r"|(?<![^\W_])_|_(?![^\W_])"  # inside a word, too
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)"
    r"|\](?=[(\[:])"  # the brackets of a link
    r"|^[\[>]|^#(?=#*(?:\s|$))|^[+-](?=[\s-]|$)|(?<=^\d)[.)](?=\s|$)|(?<=^\d\d)[.)](?=\s|$)"  # lists, headings
)

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet computes
# not text: control characters, which XML cannot hold, and those that turn the order of writing round
UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


class Ready(str):
    """Text that is in the language of the template that it goes into; nothing escapes it again."""

    __slots__ = ()


def latex(value: object) -> Ready:
    """The value for pdfLaTeX, in one line; a character that its fonts lack as its number, U+4E2D."""
    if isinstance(value, Ready):
        return value
    return Ready(LIGATURES.sub(r"\1{}", "".join(map(_glyph, " ".join(str(value).split())))))


def markdown(value: object) -> Ready:
    """The value for GitHub's Markdown, in one line, escaped only where it would not print as it stands."""
    if isinstance(value, Ready):
        return value
    return Ready(MARKDOWN.sub(r"\\\g<0>", " ".join(str(value).split())))


def visible(text: str) -> str:
    """The text with U+FFFD for each control character, and for each that turns the order of writing round."""
    return UNSEEN.sub("\ufffd", text)


def spreadsheet(data: pd.DataFrame) -> bytes:
    """The data as CSV in which no text is a formula: an apostrophe stands before one."""
    plain = data.copy()
    for name in plain.select_dtypes(exclude=["number", "bool"]).columns:
        plain[name] = plain[name].map(_inert)
    return plain.to_csv(index=False).encode()


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _glyph(character: str) -> str:
    if known := LATEX.get(character):
        return known
    if character.isascii() and character.isprintable():
        return character
    letter, *accents = list(unicodedata.normalize("NFD", character))
    if len(accents) == 1 and accents[0] in ACCENTS and letter.isascii():
        return f"\\{ACCENTS[accents[0]]}{{{letter}}}"
    plain = unicodedata.normalize("NFKC", character)
    if plain != character:  # a ligature, a full-width letter, a blank that does not break
        return "".join(map(_glyph, plain))
    return f"U+{ord(character):04X}"
