"""What may be changed, and what can be seen to be a cheat by reading the code before it runs.

Reading is best effort: code that wants to hide a seed or a name can. What it finds saves a training.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

from looper.benchmarks.research.measurement import Cheat
from looper.parsing import parsed

EDITABLE = "train.py"
"""The one file of the task that may change."""
CODE_BYTES = 65_536
"""Size that train.py may have."""
LITERAL = 4_000
"""Characters, or elements, that a single literal may have."""

FIXED = {
    "evaluate_bpb": Cheat.SCORE,
    "batches": Cheat.LONGER,
    "TOKEN_BUDGET": Cheat.LONGER,
    "SEED": Cheat.SEED,
    "CONTEXT": Cheat.PREPARE,
    "VOCABULARY": Cheat.PREPARE,
}
"""Names of prepare.py that train.py may use and not bind anew."""
_SEEDING = {"manual_seed", "manual_seed_all", "seed"}

Objection = tuple[Cheat, str]


def touched(patch: str) -> tuple[str, ...]:
    """Return the files that a unified diff of git changes, makes, renames or deletes, sorted."""
    pattern = r'^(?:diff --git "?a/(.+?)"? "?b/.+|(?:---|\+\+\+) "?[ab]/(.+?)"?|(?:rename|copy) (?:from|to) (.+?))\t?$'
    found = {next(filter(None, groups)) for groups in re.findall(pattern, patch, re.MULTILINE)}
    for line in re.findall(r"^diff --git .*$", patch, re.MULTILINE):
        found.add(line.rpartition(" b/")[2].strip('"'))
    return tuple(sorted(found))


def contract(patch: str) -> Objection | None:
    """Return what a patch may not do: change a file other than train.py. None if it keeps to the contract."""
    others = [path for path in touched(patch) if path != EDITABLE]
    if not others:
        return None
    return Cheat.PREPARE, f"the patch changes {', '.join(others)}; only {EDITABLE} may change"


def objection(train: str, *, fixed: Mapping[str, Cheat] = FIXED, seeds: bool = True) -> Objection | None:
    """Return what can be seen in the text of train.py that no measurement would accept, None if there is nothing.

    `fixed` are the names that it may not bind anew; with `seeds` it may set no seed but SEED.
    """
    if len(train.encode()) > CODE_BYTES:
        return Cheat.VALIDATION, f"train.py has {len(train.encode())} bytes; at most {CODE_BYTES} are read as code"
    try:
        tree = parsed(train)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # running it says what is wrong
    texts = {id(text) for text in map(_documentation, ast.walk(tree)) if text}
    for node in ast.walk(tree):
        found = _bound(node, fixed) or (_seeded(node) if seeds else None)
        found = found or (None if id(node) in texts else _carried(node))
        if found:
            return found
    return None


def _bound(node: ast.AST, fixed: Mapping[str, Cheat]) -> Objection | None:
    name = ""
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        name = node.id
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        name = node.name
    elif isinstance(node, ast.alias) and node.asname:
        name = node.asname
    if name not in fixed or (isinstance(node, ast.alias) and node.name == name):
        return None
    line = f" in line {node.lineno}" if hasattr(node, "lineno") else ""
    return fixed[name], f"train.py gives {name} another meaning{line}; prepare.py's is the one that counts"


def _seeded(node: ast.AST) -> Objection | None:
    if not isinstance(node, ast.Call):
        return None
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    values = [*node.args, *(keyword.value for keyword in node.keywords)] if name in _SEEDING else []
    if name == "batches":
        values = [keyword.value for keyword in node.keywords if keyword.arg == "seed"]
    elif name in _SEEDING and not values:
        return Cheat.SEED, f"line {node.lineno}: {name}() draws a seed of its own; a judged run has one seed, SEED"
    for value in values:
        if not (isinstance(value, ast.Name | ast.Attribute) and ast.unparse(value) in ("SEED", "prepare.SEED")):
            said = ast.unparse(value)[:60]
            return Cheat.SEED, f"line {node.lineno}: {name} is given {said}; a judged run has one seed, SEED"
    return None


def _carried(node: ast.AST) -> Objection | None:
    size = 0
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        size = len(node.value)
    elif isinstance(node, ast.List | ast.Tuple | ast.Set):
        size = len(node.elts)
    elif isinstance(node, ast.Dict):
        size = len(node.keys)
    if size <= LITERAL:
        return None
    return Cheat.VALIDATION, f"line {getattr(node, 'lineno', 0)}: a literal of {size} elements; code carries no data"


def _documentation(node: ast.AST) -> ast.AST | None:
    """Return the docstring's node of a module, class or function."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
        return None
    first = node.body[0]
    return first.value if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) else None
