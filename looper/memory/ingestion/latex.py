"""LaTeX as blocks under its sections: the main file found, its inputs inlined, comments left out."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from looper.errors import StoreError
from looper.memory.ingestion.passages import Block, lines_of

NOTHING = "%"
"""What is left of a line that held a comment alone."""
_BEGIN, _END = r"\begin{document}", r"\end{document}"
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%.*")
_INPUT = re.compile(
    r"\\(?:input|include|subfile)\s*\{(?P<name>[^{}]+)\}|\\input\s+(?P<bare>[^\s{}\\]+)"
    r"|\\(?:sub)?import\s*\{(?P<folder>[^{}]*)\}\s*\{(?P<file>[^{}]+)\}"
)
_SECTION = re.compile(r"\\(part|chapter|section|subsection|subsubsection|paragraph|subparagraph)\*?\s*(?=[\[{])")
_DEPTH = {
    name: depth
    for depth, name in enumerate(
        ("part", "chapter", "section", "subsection", "subsubsection", "paragraph", "subparagraph")
    )
}
_FLOAT = re.compile(r"\\begin\{((?:wrap|side)?(?:figure|table)|algorithm|longtable|listing)(\*?)\}")
_LABEL = re.compile(r"\\label\s*\{([^{}]+)\}")
_LEFT_OUT = re.compile(
    r"\\(?:begin|end)\{(?:document|abstract|center|small|itemize|enumerate)\}(?:\[[^\]]{0,300}\])?|\\maketitle"
    r"|\\(?:centering|noindent|clearpage|newpage|appendix|small|footnotesize|toprule|midrule|bottomrule|hline)(?![A-Za-z])"
    r"|\\(?:vspace|hspace|includegraphics|bibliography|bibliographystyle|resizebox)\*?(?:\[[^\]]{0,300}\])?\{[^{}]*\}"
)
_WRAPPER = re.compile(r"\\(?:emph|textbf|textit|texttt|textsc|text|underline|mbox|url)\s*\{([^{}]*)\}")
_CITE = re.compile(r"~?\\(?:cite[a-z]*|[a-zA-Z]*ref)\*?(?:\[[^\]]{0,300}\])*\{([^{}]*)\}")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the document, and the file that it comes from."""

    text: str
    file: str
    number: int


def main_file(files: Mapping[str, str]) -> str:
    r"""Return the file that holds `\documentclass`; of several the one with a body, then the usual names, then the top.

    Raises StoreError if there is none.
    """
    found = []
    for name, text in files.items():
        plain = "\n".join(_COMMENT.sub(r"\1", line) for line in lines_of(text))
        if re.search(r"\\document(?:class|style)\b", plain):
            body = r"\begin{document}" in plain
            usual = posixpath.basename(name).lower() in ("main.tex", "ms.tex", "paper.tex", "article.tex")
            found.append((not body, not usual, name.count("/"), -len(text), name))
    if not found:
        names = ", ".join(sorted(files)[:5]) or "no file"
        raise StoreError(f"no LaTeX file with \\documentclass among {names}; give the folder of the whole paper")
    return min(found)[-1]


def inlined(files: Mapping[str, str], main: str) -> list[Line]:
    r"""Return the document's lines with `\input`, `\include`, `\subfile` and `\import` replaced by what they name.

    A file is taken once, where it comes first: so files that name each other end, and cannot multiply the text.
    What is missing stays as it was written.
    """
    seen: set[str] = set()

    def read(name: str) -> Iterator[Line]:
        seen.add(name)
        for number, line in enumerate(_uncommented(files[name]), 1):
            done = 0
            for match in _INPUT.finditer(line):
                other = _resolved(files, match, main, name)
                if not other:
                    continue
                if line[done : match.start()].strip():
                    yield Line(text=line[done : match.start()], file=name, number=number)
                done = match.end()
                if other not in seen:
                    if len(seen) > 500:
                        raise StoreError(f"{main} includes more than 500 files ({other!r} is one too many)")
                    yield from read(other)
            rest = line[done:]
            if rest.strip() or not line.strip():
                yield Line(text=rest, file=name, number=number)

    try:
        return list(read(main))
    except RecursionError as error:
        raise StoreError(f"the inputs of {main} are nested too deeply to follow; join its files into one") from error


def _resolved(files: Mapping[str, str], match: re.Match[str], main: str, here: str) -> str:
    """Return the file that an input names: seen from the main file's folder or from the one that it stands in."""
    if match["file"]:
        name = posixpath.join(match["folder"].strip(), match["file"].strip())
    else:
        name = (match["name"] or match["bare"]).strip().strip('"')
    for folder in (posixpath.dirname(main), posixpath.dirname(here)):
        path = posixpath.normpath(posixpath.join(folder, name))
        for candidate in (path, f"{path}.tex"):
            if candidate in files:
                return candidate
    return ""


def _uncommented(text: str) -> Iterator[str]:
    r"""Return the lines without comments; inside `comment` and `\iffalse` they are NOTHING, so that numbers stay."""
    closing = ""
    for line in lines_of(text):
        if closing:
            if closing in line:
                yield line.split(closing, 1)[1]
                closing = ""
            else:
                yield NOTHING
            continue
        stripped = _COMMENT.sub(r"\1", line)
        for opening, end in ((r"\begin{comment}", r"\end{comment}"), (r"\iffalse", r"\fi")):
            if opening in stripped:
                stripped, rest = stripped.split(opening, 1)
                if end in rest:
                    stripped += rest.split(end, 1)[1]
                else:
                    closing = end
                break
        # A line that held only a comment is no blank line: it ends no paragraph.
        yield NOTHING if line.strip() and not stripped.strip() else stripped


def title_of(lines: list[Line]) -> str:
    r"""Return the text of `\title`, '' without one."""
    text = "\n".join(line.text for line in lines)
    match = re.search(r"\\title\s*(?:\[[^\]]{0,300}\])?\s*(?=\{)", text)
    return _one_line(braced(text, match.end())[0]) if match else ""


def _one_line(text: str) -> str:
    return " ".join(plain(text).replace("{", "").replace("}", "").split())


def braced(text: str, at: int) -> tuple[str, int]:
    """Return what stands between the brace at `at` and its partner, and the index after it; all if it has none."""
    depth = 0
    for index in range(at, len(text)):
        if text[index] in "{}" and (index == 0 or text[index - 1] != "\\"):
            depth += 1 if text[index] == "{" else -1
            if depth == 0:
                return text[at + 1 : index], index + 1
    return text[at + 1 :], len(text)


def plain(text: str) -> str:
    """Return a paragraph as words: layout left out, emphasis unwrapped, citations as [keys]; formulas stay."""
    text = _LABEL.sub("", _LEFT_OUT.sub("", text))
    text = _CITE.sub(r" [\1]", text)
    for _ in range(3):  # wrappers inside wrappers
        text = _WRAPPER.sub(r"\1", text)
    text = re.sub(r"\\item(?![A-Za-z])", "-", text).replace("~", " ")
    text = re.sub(r"\\([%&_#$])", r"\1", text)
    return "\n".join(re.sub(r"[ \t]+", " ", line).strip() for line in text.split("\n")).strip("\n")


@dataclass(kw_only=True)
class _Reader:
    """Where the reading stands: headings above, lines held, the float that is open."""

    path: list[tuple[int, str]] = field(default_factory=list)
    label: str = ""
    held: list[Line] = field(default_factory=list)
    closing: str = ""
    blocks: list[Block] = field(default_factory=list)

    def flush(self) -> None:
        """End the paragraph, or float, that is held."""
        held, self.held = self.held, []
        raw = "\n".join(line.text for line in held)
        label, title = self.label, ""
        if self.closing:
            found = _LABEL.search(raw)
            label = found.group(1) if found else ""
            caption = re.search(r"\\caption(?:of\{\w+\})?\*?\s*(?:\[[^\]]{0,300}\])?\s*(?=\{)", raw)
            title = _one_line(braced(raw, caption.end())[0])[:200] if caption else ""
        else:
            if (found := _LABEL.match(raw.strip())) and not label:
                self.label = label = found.group(1)
            # Lines that only lay out are not where the text stands; a float is shown whole.
            while held and not plain(held[0].text).strip():
                held.pop(0)
            while held and not plain(held[-1].text).strip():
                held.pop()
        # One file for a block: its lines are numbered within it.
        file = held[0].file if held else ""
        numbers = [line.number for line in held if line.file == file]
        text = plain(raw)
        if text.strip(" \n%{}"):
            names = tuple(words for _, words in self.path)
            last = max(numbers)
            self.blocks.append(
                Block(text=text, first=numbers[0], last=last, file=file, path=names, label=label, title=title)
            )
        self.closing = ""

    def head(self, depth: int, words: str) -> None:
        """Begin a section."""
        self.flush()
        self.path = [*(one for one in self.path if one[0] < depth), (depth, words)]
        self.label = ""

    def take(self, line: Line) -> None:
        """Read one line."""
        text = line.text
        if text == NOTHING:
            return
        if self.closing:
            self.held.append(line)
            if self.closing in text:
                self.flush()
            return
        if not text.strip():
            self.flush()
            return
        if match := _FLOAT.search(text):
            self.flush()
            self.closing = f"\\end{{{match.group(1)}{match.group(2)}}}"
            self.take(line)
            return
        self.held.append(line)


def latex_blocks(lines: list[Line]) -> list[Block]:
    r"""Return the document's paragraphs, figures and tables; captions name the floats, labels are kept.

    Only the body counts where there is a `document` environment, and what follows the bibliography is kept
    (appendices), the bibliography itself not.
    """
    reader = _Reader()
    skipping = ""
    for line in _joined(_body(lines)):
        text = line.text
        if skipping:
            if skipping in text:
                skipping = ""
            continue
        if r"\begin{thebibliography}" in text:
            reader.flush()
            skipping = r"\end{thebibliography}"
        elif r"\begin{abstract}" in text:
            reader.head(_DEPTH["section"], "Abstract")
            reader.take(line)
        elif match := None if reader.closing else _SECTION.search(text):
            if text[: match.start()].strip():
                reader.take(Line(text=text[: match.start()], file=line.file, number=line.number))
            start = text.index("{", match.end()) if "{" in text[match.end() :] else match.end()
            words, end = braced(text, start)
            reader.head(_DEPTH[match.group(1)], _one_line(words))
            if text[end:].strip():
                reader.take(Line(text=text[end:], file=line.file, number=line.number))
        else:
            reader.take(line)
    reader.flush()
    return reader.blocks


def _body(lines: list[Line]) -> list[Line]:
    """Return what stands in the `document` environment, also beside its marks; all where there is none."""
    begin = next((n for n, line in enumerate(lines) if _BEGIN in line.text), -1)
    if begin < 0:
        return lines
    opened = replace(lines[begin], text=lines[begin].text.split(_BEGIN, 1)[1])
    rest = [*([opened] if opened.text.strip() else []), *lines[begin + 1 :]]
    end = next((n for n, line in enumerate(rest) if _END in line.text), len(rest))
    closed = [replace(line, text=line.text.split(_END, 1)[0]) for line in rest[end : end + 1]]
    return [*rest[:end], *(line for line in closed if line.text.strip())]


def _joined(lines: list[Line]) -> Iterator[Line]:
    """Join the lines of a heading that goes on over several."""
    rest = iter(lines)
    for line in rest:
        text = line.text
        for _ in range(5):
            match = _SECTION.search(text)
            if not match or text.count("{") <= text.count("}"):
                break
            more = next(rest, None)
            if more is None:
                break
            text = f"{text} {more.text}"
        yield Line(text=text, file=line.file, number=line.number)
