"""Stages over numbers: each takes a typed name, writes lines, and returns an expression."""

from __future__ import annotations

from looper.benchmarks.bugs.scope import Scope


def keep_ints(s: Scope, v: str) -> str:
    """Filter, and perhaps convert, a list of ints."""
    x = s.item_of(v, "item", "int")
    test = s.int_test(x)
    value = x if s.chance(0.6) else s.int_expr(x)
    if not s.chance(s.family.loops):
        return f"[{value} for {x} in {v} if {test}]"
    out = s.local("list", "ints")
    s.emit(f"{out} = []")
    s.emit(f"for {x} in {v}:")
    s.emit(f"if {test}:", 2)
    s.emit(f"{out}.append({value})", 3)
    return out


def map_ints(s: Scope, v: str) -> str:
    """Convert every int of a list."""
    x = s.item_of(v, "item", "int")
    if not s.chance(s.family.loops):
        return f"[{s.int_expr(x)} for {x} in {v}]"
    out = s.local("list", "ints")
    s.emit(f"{out} = []")
    s.emit(f"for {x} in {v}:")
    if s.chance(0.5):
        test = s.int_test(x)
        s.emit(f"if {test}:", 2)
        s.emit(f"{x} = {s.int_expr(x)}", 3)
        s.emit(f"{out}.append({x})", 2)
    else:
        s.emit(f"{out}.append({s.int_expr(x)})", 2)
    return out


def running(s: Scope, v: str) -> str:
    """List running totals or differences of neighbours."""
    out = s.local("list", "ints")
    if s.chance(0.5):
        total, x = s.local("sum", "int"), s.item_of(v, "item", "int")
        s.emit(f"{total} = {s.rng.choice(('0', '0', '1'))}")
        s.emit(f"{out} = []")
        s.emit(f"for {x} in {v}:")
        s.bump(total, "+", x, 2)
        s.emit(f"{out}.append({total})", 2)
        return out
    i = s.local("index", "int")
    s.emit(f"{out} = []")
    s.emit(f"for {i} in range(1, len({v})):")
    op = s.rng.choice("-+")
    s.emit(f"{out}.append({v}[{i}] {op} {v}[{i} - 1])", 2)
    return out


def shape_ints(s: Scope, v: str) -> str:
    """Sort, slice or reverse a list."""
    k = s.rng.randint(1, 3)
    n = s.threshold(2, 3)
    return s.rng.choice(
        (
            f"sorted({v})",
            f"sorted({v}, reverse=True)",
            f"{v}[::-1]",
            f"{v}[{k}:]",
            f"{v}[:{n}]",
            f"{v}[-{k}:]",
            f"sorted({v})[:{n}]",
        )
    )


def unique(s: Scope, v: str) -> str:
    """Drop repeated elements."""
    kind = s.types.get(v, "ints")
    out, x = s.local("list", kind), s.item_of(v, "item", "int" if kind == "ints" else "str")
    s.emit(f"{out} = []")
    s.emit(f"for {x} in {v}:")
    s.emit(f"if {x} not in {out}:", 2)
    s.emit(f"{out}.append({x})", 3)
    return out


def sum_ints(s: Scope, v: str) -> str:
    """Add up a list, under a condition or not."""
    x = s.item_of(v, "item", "int")
    if not s.chance(s.family.loops):
        return f"sum({s.int_expr(x)} for {x} in {v} if {s.int_test(x)})" if s.chance(0.6) else f"sum({v})"
    total = s.local("sum", "int")
    s.emit(f"{total} = {s.rng.choice(('0', '0', '0', s.threshold(1, 5)))}")
    s.emit(f"for {x} in {v}:")
    if s.chance(0.25):
        s.emit(f"if {s.int_test(x)}:", 2)
        s.emit("continue", 3)
        s.bump(total, "+", x if s.chance(0.5) else s.int_expr(x), 2)
    elif s.chance(0.6):
        s.emit(f"if {s.int_test(x)}:", 2)
        s.bump(total, s.rng.choice("+++-"), x if s.chance(0.5) else s.int_expr(x), 3)
        if s.chance(0.35):
            s.emit("else:", 2)
            s.bump(total, s.rng.choice("+-"), str(s.rng.randint(1, 3)), 3)
    else:
        s.bump(total, "+", s.int_expr(x), 2)
    return total


def count_ints(s: Scope, v: str) -> str:
    """Count elements under a condition."""
    x = s.item_of(v, "item", "int")
    test = s.int_test(x)
    if not s.chance(s.family.loops):
        return s.rng.choice((f"len([{x} for {x} in {v} if {test}])", f"sum(1 for {x} in {v} if {test})"))
    count = s.local("count", "int")
    s.emit(f"{count} = 0")
    s.emit(f"for {x} in {v}:")
    s.emit(f"if {test}:", 2)
    s.bump(count, "+", "1", 3)
    return count


def rises(s: Scope, v: str) -> str:
    """Count neighbours that rise, fall, or lie near each other."""
    count, i = s.local("count", "int"), s.local("index", "int")
    s.emit(f"{count} = 0")
    if s.chance(0.5):
        s.emit(f"for {i} in range(1, len({v})):")
        a, b = f"{v}[{i}]", f"{v}[{i} - 1]"
    else:
        s.emit(f"for {i} in range(len({v}) - 1):")
        a, b = f"{v}[{i} + 1]", f"{v}[{i}]"
    tests = (f"{a} > {b}", f"{a} >= {b}", f"{a} < {b}", f"{a} != {b}", f"abs({a} - {b}) <= {s.threshold(1, 3)}")
    s.emit(f"if {s.rng.choice(tests)}:", 2)
    s.bump(count, "+", "1", 3)
    return count


def best_int(s: Scope, v: str) -> str:
    """Pick one element, or the spread of a list."""
    pick = s.rng.random()
    if pick < 0.25:
        return s.rng.choice((f"max({v})", f"min({v})", f"{v}[0]", f"{v}[-1]", f"sorted({v})[0]"))
    if pick < 0.45:
        return s.rng.choice(
            (f"max({v}) - min({v})", f"{v}[-1] - {v}[0]", f"sum({v}) // len({v})", f"sum({v}) - max({v})")
        )
    best, x = s.local("best", "int"), s.item_of(v, "item", "int")
    s.emit(f"{best} = {v}[0]")
    s.emit(f"for {x} in {v}:")
    key = s.threshold()
    s.emit(
        s.rng.choice(
            (
                f"if {x} > {best}:",
                f"if {x} < {best}:",
                f"if abs({x} - {key}) < abs({best} - {key}):",
                f"if {x} % 10 > {best} % 10:",
            )
        ),
        2,
    )
    s.emit(f"{best} = {x}", 3)
    return best


def first_index(s: Scope, v: str) -> str:
    """Find the first place where a condition holds."""
    i = s.local("index", "int")
    if s.chance(0.5):
        x = s.item_of(v, "item", "int")
        s.emit(f"for {i}, {x} in enumerate({v}):")
        s.emit(f"if {s.int_test(x)}:", 2)
        s.emit(f"return {i}", 3)
        return "-1"
    s.emit(f"{i} = 0")
    s.emit(f"while {i} < len({v}) and {v}[{i}] {s.rng.choice(('<', '<=', '>', '!='))} {s.threshold()}:", frozen=True)
    s.emit(f"{i} += 1", 2, frozen=True)
    return i


def arithmetic(s: Scope, v: str) -> str:
    """Compute with an int."""
    if s.chance(0.4):
        out = s.local("value", "int")
        s.emit(f"{out} = {s.int_expr(v)}")
        other = s.threshold(1, 5)
        return s.rng.choice(
            (f"{out} + {v}", f"{out} - {other}", f"{out} * {other}", f"max({out}, {other})", f"{v} - {out}")
        )
    return s.int_expr(v)


def adjust(s: Scope, v: str) -> str:
    """Change an int under a condition."""
    out = s.local("value", "int")
    s.emit(f"{out} = {s.int_expr(v)}")
    s.emit(f"if {s.int_test(s.rng.choice((v, out)))}:")
    if s.chance(0.6):
        s.bump(out, s.rng.choice("++-*"), s.threshold(1, 4), 2)
    else:
        s.emit(f"{out} = {s.int_expr(v)}", 2)
    return out


def early(s: Scope, v: str) -> str:
    """Return early for some ints."""
    for _ in range(s.rng.randint(1, 2)):
        s.emit(f"if {s.int_test(v)}:")
        s.emit(f"return {s.rng.choice((s.int_expr(v), s.threshold(0, 3), v))}", 2)
    return s.int_expr(v)


def digits(s: Scope, v: str) -> str:
    """Walk over the decimal digits of an int."""
    n, total = s.local("value", "int"), s.local("sum", "int")
    s.emit(f"{n} = abs({v})" if s.chance(0.5) else f"{n} = {v}")
    s.emit(f"{total} = 0")
    s.emit(f"while {n} > 0:", frozen=True)
    if s.chance(0.5):
        s.bump(total, "+", f"{n} % 10", 2)
    else:
        s.emit(f"if {s.int_test(f'{n} % 10')}:", 2)
        s.bump(total, "+", s.rng.choice(("1", f"{n} % 10")), 3)
    s.emit(f"{n} = {n} // 10", 2, frozen=True)
    return total


def steps(s: Scope, v: str) -> str:
    """Accumulate over a range."""
    total, i = s.local("sum", "int"), s.local("index", "int")
    product = s.chance(0.2)
    s.emit(f"{total} = {1 if product else 0}")
    start = s.rng.choice(("1, ", "1, ", "", s.threshold(1, 3) + ", "))
    s.emit(f"for {i} in range({start}{v}{s.rng.choice(('', ' + 1', ' + 1'))}):")
    if product:
        s.emit(f"{total} = {total} * {i} % {s.rng.randint(7, 20)}", 2)
    elif s.chance(0.5):
        s.bump(total, "+", s.int_expr(i), 2)
    else:
        s.emit(f"if {s.int_test(i)}:", 2)
        s.bump(total, "+", i, 3)
    return total


def ladder(s: Scope, v: str) -> str:
    """Classify an int."""
    a, b, c = s.rng.sample(LABELS, 3)
    low = s.rng.randint(2, 4)
    s.emit(f"if {v} {s.rng.choice(('<', '<='))} {low}:")
    s.emit(f"return {s.text(a)}", 2)
    s.emit(f"if {v} {s.rng.choice(('<', '<='))} {low + s.rng.randint(2, 4)}:")
    s.emit(f"return {s.text(b)}", 2)
    return s.text(c)


LABELS = ("tiny", "small", "mid", "large", "huge", "none", "some", "many", "thin", "thick", "bad", "fair", "good")


def label(s: Scope, v: str) -> str:
    """Write an int with a word around it."""
    word = s.text(s.rng.choice(LABELS))
    if s.family.fstrings:
        return s.rng.choice((f"f{word[:-1]} {{{v}}}{word[-1]}", f"f{word[0]}{{{v}}} {word[1:-1]}{word[-1]}"))
    return s.rng.choice((f"{word} + str({v})", f"str({v}) + {word}"))


def compare(s: Scope, v: str) -> str:
    """Decide something about an int."""
    if s.chance(0.5):
        return s.int_test(v)
    s.emit(f"if {s.int_test(v)}:")
    s.emit("return True", 2)
    return s.rng.choice(("False", s.int_test(v)))


def every(s: Scope, v: str) -> str:
    """Decide something about all ints of a list."""
    x = s.item_of(v, "item", "int")
    if not s.chance(s.family.loops):
        return f"{s.rng.choice(('any', 'all'))}({s.int_test(x)} for {x} in {v})"
    found = s.rng.choice((True, False))
    s.emit(f"for {x} in {v}:")
    s.emit(f"if {s.int_test(x)}:", 2)
    s.emit(f"return {found}", 3)
    return str(not found)


def spread(s: Scope, v: str) -> str:
    """List the multiples or divisors of an int."""
    i = s.local("index", "int")
    low = s.rng.choice(("", "1, ", "1, "))
    return s.rng.choice(
        (
            f"[{i} * {v} for {i} in range({low}{s.threshold(3, 5)})]",
            f"[{i} for {i} in range(1, {v} + 1) if {v} % {i} == 0]",
        )
    )


# ---- idioms of the natural families only


def pairs(s: Scope, v: str) -> str:
    """Compare neighbours by zip."""
    a, b = s.local("item", "int"), s.local("best", "int")
    test = s.rng.choice((f"{b} > {a}", f"{b} >= {a}", f"{b} - {a} > {s.rng.randint(1, 2)}", f"{a} != {b}"))
    return f"sum({s.rng.choice(('1', f'{b} - {a}'))} for {a}, {b} in zip({v}, {v}[1:]) if {test})"


def parts(s: Scope, v: str) -> str:
    """Split an int by divmod."""
    a, b = s.local("value", "int"), s.local("limit", "int")
    s.emit(f"{a}, {b} = divmod({v}, {s.rng.randint(3, 6)})")
    return s.rng.choice((f"{a} + {b}", f"{a} * 2 - {b}", f"{a} if {b} == 0 else {a} + 1"))


def ranked(s: Scope, v: str) -> str:
    """Number the elements from one."""
    i, x = s.local("index", "int"), s.item_of(v, "item", "int")
    return f"sum({i} * {x} for {i}, {x} in enumerate({v}, 1) if {s.int_test(x)})"
