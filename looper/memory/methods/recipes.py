"""Put a method into code: its recipe's edits, each of which has to find its place exactly once."""

from __future__ import annotations

from collections.abc import Iterable

from looper.errors import PatchError
from looper.memory.predicates import applies, present
from looper.memory.rows import Method
from looper.memory.syntax import Code, code_of
from looper.parsing import parsed


def apply(method: Method, code: str, *, pack: Iterable[Method] = ()) -> str:
    """Return the code with the method in it.

    With a pack, methods that this one couples with are put in first where the code lacks them, and one that the code
    has and this one excludes is an error. Raises PatchError: there is no recipe, the code has the method, it does not
    apply to the code, an edit's place is not there or not unique, or the result is no valid Python.
    """
    methods = {other.id: other for other in pack}
    before = Code(code)
    if not method.recipe:
        raise PatchError(f"method {method.id!r} has no recipe; its summary says why: {method.summary}")
    if present(method, before):
        raise PatchError(f"method {method.id!r} is in the code already; choose one that is not")
    for other in excluded(method, before, methods.values()):
        raise PatchError(f"method {method.id!r} does not go with {other!r}, which is in the code; choose another one")
    for name in method.couples_with:
        if name in methods and not present(methods[name], before):
            code = apply(methods[name], code, pack=methods.values())
            before = Code(code)
    if not applies(method, before):
        needed = f"; it couples with {', '.join(method.couples_with)}, apply that first" if method.couples_with else ""
        raise PatchError(f"method {method.id!r} does not apply: {method.applies_if} does not hold{needed}")
    for number, edit in enumerate(method.recipe, 1):
        code = _edited(code, edit["search"], edit["replace"], f"edit {number} of method {method.id!r}")
    try:
        parsed(code)
    except SyntaxError as error:
        raise PatchError(f"method {method.id!r} leaves invalid Python at line {error.lineno}: {error.msg}") from error
    if not present(method, Code(code)):
        raise PatchError(f"the edits of method {method.id!r} were made, but {method.present_if} does not hold")
    return code


def chain(method: Method, code: Code | str, pack: Iterable[Method] = ()) -> list[dict[str, str]]:
    """Return the edits that `apply` makes, in their order: those of partners that the code lacks come first."""
    methods, before = {other.id: other for other in pack}, code_of(code)
    edits: list[dict[str, str]] = []
    for name in method.couples_with:
        if name in methods and not present(methods[name], before):
            edits += [edit for edit in chain(methods[name], before, methods.values()) if edit not in edits]
    return [*edits, *method.recipe]


def excluded(method: Method, code: Code | str, pack: Iterable[Method]) -> list[str]:
    """Return ids of methods that the code has and that do not go with this one, whichever of the two says so."""
    code = code_of(code)
    return [
        other.id
        for other in pack
        if (other.id in method.contraindications or method.id in other.contraindications) and present(other, code)
    ]


def _edited(code: str, search: str, replace: str, what: str) -> str:
    found = code.count(search)
    if found != 1:
        first = search.strip().splitlines()[0]
        raise PatchError(f"{what}: its place, {first!r}, is in the code {found} times; it has to be there once")
    return code.replace(search, replace)
