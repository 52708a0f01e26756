import pytest

from looper.errors import StoreError
from looper.memory.ingestion.latex import braced, inlined, latex_blocks, main_file, title_of
from looper.memory.ingestion.passages import packed

MAIN = r"""\documentclass{article}
\title{Gated \emph{Linear} Units % working title
 Improve}
\begin{document}
\maketitle
\begin{abstract}
We test gates~\cite{a,b}.
\end{abstract}
\section{Method}\label{sec:method}
% a secret comment
The cost is 5\% of the whole.
% another
It goes on.
\input{parts/results}
\begin{thebibliography}{9}
\bibitem{a} Nobody reads this.
\end{thebibliography}
\appendix
\section*{More \texttt{code}}
At the end.
\end{document}
Never shown.
"""
RESULTS = r"""\subsection{Ablation
 of gates}
\begin{table}[t]
\centering
a & b \\ % numbers
\caption[short]{Loss of {SwiGLU} and others}
\label{tab:loss}
\end{table}
\begin{comment}
Hidden words.
\end{comment}
Shown \iffalse not shown \fi again.
"""


def chunks_of(files):
    return packed(latex_blocks(inlined(files, main_file(files))))


def test_a_paper_is_read_in_order_with_its_places():
    chunks = chunks_of({"paper.tex": MAIN, "parts/results.tex": RESULTS, "other.tex": r"\section{Stray}"})
    assert [(c.locator, c.title) for c in chunks] == [
        ("paper.tex:7-7 Abstract", "Abstract"),
        ("paper.tex:11-13 Method (sec:method)", "Method"),
        ("parts/results.tex:3-8 Method > Ablation of gates (tab:loss)", "Loss of SwiGLU and others"),
        ("parts/results.tex:12-12 Method > Ablation of gates", "Ablation of gates"),
        ("paper.tex:20-20 More code", "More code"),
    ]
    assert chunks[0].body == "We test gates [a,b]."
    assert chunks[1].body == "The cost is 5% of the whole.\nIt goes on."
    assert chunks[3].body == "Shown again."
    everything = " ".join(chunk.body for chunk in chunks)
    for hidden in ("secret", "Hidden", "not shown", "Nobody", "Never", "documentclass", "numbers"):
        assert hidden not in everything


def test_the_title_goes_over_lines_and_comments():
    assert title_of(inlined({"a.tex": MAIN}, "a.tex")) == "Gated Linear Units Improve"


def test_the_main_file_is_the_one_with_a_body():
    files = {
        "style.tex": r"\documentclass{x}",
        "deep/main.tex": r"\documentclass{x}\begin{document}",
        "notes.tex": r"%\documentclass{x}" + "\n\\begin{document}",
        "a.tex": r"\documentclass{x}\begin{document} longer than the other",
    }
    assert main_file(files) == "deep/main.tex"
    with pytest.raises(StoreError, match=r"documentclass among notes\.tex"):
        main_file({"notes.tex": files["notes.tex"]})


def test_inputs_end_although_files_name_each_other():
    files = {
        "a.tex": "A \\input{b} \\input b\nend",
        "b.tex": "B \\include{a} \\input{gone} \\import{d/}{c}",
        "d/c.tex": "C",
    }
    text = " ".join(line.text.strip() for line in inlined(files, "a.tex"))
    assert [word for word in text.split() if word in "ABC"] == ["A", "B", "C"]
    assert r"\input{gone}" in text and text.endswith("end")


def test_files_that_double_themselves_stay_small():
    files = {f"{n}.tex": f"\\input{{{n + 1}}}\\input{{{n + 1}}}" for n in range(60)}
    files["60.tex"] = "x" * 1000
    assert sum(len(line.text) for line in inlined(files, "0.tex")) < 2000


def test_inputs_nested_without_end_are_an_error():
    files = {f"{n}.tex": f"\\input{{{n + 1}}}" for n in range(3000)}
    with pytest.raises(StoreError, match=r"more than 500 files|nested too deeply"):
        inlined(files, "0.tex")


def test_braces():
    assert braced(r"{a {b} \} c} d", 0) == (r"a {b} \} c", 12)
    assert braced("{open", 0) == ("open", 5)


def test_text_beside_the_marks_of_the_document_is_kept():
    text = "\\documentclass{a}\n\\begin{document}\\section{One}First.\n\nMiddle.\n\nLast words.\\end{document} gone"
    assert [block.text for block in latex_blocks(inlined({"p.tex": text}, "p.tex"))] == [
        "First.", "Middle.", "Last words.",
    ]  # fmt: skip
    one = "\\documentclass{a}\\begin{document}All of it.\\end{document}"
    assert [block.text for block in latex_blocks(inlined({"p.tex": one}, "p.tex"))] == ["All of it."]
