"""Stages over strings, lists of words and tables."""

from __future__ import annotations

from looper.benchmarks.bugs.scope import Scope


def clean(s: Scope, v: str) -> str:
    """Tidy a string by a method or two."""
    a, b = s.mark(), s.text(s.rng.choice("-_x"))
    return s.rng.choice(
        (
            f"{v}.strip().lower()",
            f"{v}.strip()",
            f"{v}.lower()",
            f"{v}.strip().upper()",
            f"{v}.replace({a}, {b})",
            f"{v}.strip()[::-1]",
        )
    )


def cut(s: Scope, v: str) -> str:
    """Take a part of a string."""
    k, n = s.rng.randint(1, 3), s.threshold(2, 4)
    pick = s.rng.random()
    if pick < 0.5:
        return s.rng.choice(
            (f"{v}[{k}:]", f"{v}[:{n}]", f"{v}[-{k}:]", f"{v}[:{n}] + {v}[-1]", f"{v}[::-1]", f"{v}[:{n}].strip()")
        )
    s.emit(f"if len({v}) {s.rng.choice(('<', '<=', '>', '>='))} {n}:")
    s.emit(f"return {s.rng.choice((v, f'{v}[:{k}]', f'{v}.upper()', v + ' + ' + s.text('.')))}", 2)
    return s.rng.choice((f"{v}[:{n}]", f"{v}[:{n}] + {s.text('..')}", f"{v} * 2", v))


def filter_chars(s: Scope, v: str) -> str:
    """Build a string from the characters that pass a test."""
    out, ch = s.local("text", "str"), s.local("char", "str")
    test = char_test(s, ch)
    if not s.chance(s.family.loops):
        del s.types[out]
        return f"{s.text('')}.join({ch} for {ch} in {v} if {test})"
    s.emit(f"{out} = {s.text('')}")
    s.emit(f"for {ch} in {v}:")
    s.emit(f"if {test}:", 2)
    s.bump(out, "+", s.rng.choice((ch, ch, f"{ch}.upper()", f"{ch} * 2")), 3)
    if s.chance(0.3):
        s.emit("else:", 2)
        s.bump(out, "+", s.text(s.rng.choice("-_.")), 3)
    return out


def char_test(s: Scope, ch: str) -> str:
    """Return a condition over a character."""
    return s.rng.choice(
        (
            f"{ch} != {s.mark()}",
            f"{ch} in {s.text('aeiou')}",
            f"{ch} not in {s.text('aeiou')}",
            f"{ch}.isalpha()",
            f"{ch} == {s.mark()}",
            f"not {ch}.isupper()",
        )
    )


def count_chars(s: Scope, v: str) -> str:
    """Count characters."""
    ch = s.local("char", "str")
    test = char_test(s, ch)
    if not s.chance(s.family.loops):
        return s.rng.choice((f"sum(1 for {ch} in {v} if {test})", f"len([{ch} for {ch} in {v} if {test}])"))
    count = s.local("count", "int")
    s.emit(f"{count} = {s.rng.choice(('0', '0', '0', '1'))}")
    s.emit(f"for {ch} in {v}:")
    s.emit(f"if {test}:", 2)
    s.bump(count, "+", s.rng.choice(("1", "1", "2")), 3)
    return count


def measure(s: Scope, v: str) -> str:
    """Measure a string."""
    return s.rng.choice(
        (f"len({v})", f"len({v}.strip())", f"{v}.find({s.mark()})", f"{v}.count({s.mark()})", f"{v}.rfind({s.mark()})")
    )


def split(s: Scope, v: str) -> str:
    """Split a string into words."""
    domain = next((p.domain for p in s.params if p.name == v), "text")
    if domain == "csv":
        w = s.local("word", "str")
        return s.rng.choice((f"[{w}.strip() for {w} in {v}.split({s.text(',')})]", f"{v}.split({s.text(',')})"))
    return f"{v}{s.rng.choice(('', '', '.lower()', '.strip()'))}.split({s.rng.choice(('', s.text(' ')))})"


def keep_words(s: Scope, v: str) -> str:
    """Filter, and perhaps convert, words."""
    w = s.item_of(v, "word", "str")
    test = s.word_test(w)
    value = w if s.chance(0.6) else s.word_expr(w)
    if not s.chance(s.family.loops):
        return f"[{value} for {w} in {v} if {test}]"
    out = s.local("list", "words")
    s.emit(f"{out} = []")
    s.emit(f"for {w} in {v}:")
    if s.chance(0.25):
        s.emit(f"if not {test}:" if " " not in test else f"if not ({test}):", 2)
        s.emit("continue", 3)
        s.emit(f"{out}.append({value})", 2)
        return out
    s.emit(f"if {test}:", 2)
    s.emit(f"{out}.append({value})", 3)
    return out


def map_words(s: Scope, v: str) -> str:
    """Convert every word."""
    w = s.item_of(v, "word", "str")
    return f"[{s.word_expr(w)} for {w} in {v}]"


def shape_words(s: Scope, v: str) -> str:
    """Sort, slice or reverse words."""
    k, n = s.rng.randint(1, 2), s.threshold(1, 3)
    return s.rng.choice(
        (
            f"sorted({v})",
            f"sorted({v}, key=len)",
            f"{v}[::-1]",
            f"{v}[{k}:]",
            f"{v}[:{n}]",
            f"sorted({v}, reverse=True)",
            f"{v}[-{k}:]",
        )
    )


def join(s: Scope, v: str) -> str:
    """Join words."""
    sep = s.text(s.rng.choice(("-", "_", " ", ", ", "/")))
    return s.rng.choice(
        (f"{sep}.join({v})", f"{sep}.join({v})", f"{sep}.join(sorted({v}))", f"{sep}.join({v}[:{s.threshold(2, 3)}])")
    )


def best_word(s: Scope, v: str) -> str:
    """Pick one word."""
    if s.chance(0.3):
        return s.rng.choice((f"{v}[0]", f"{v}[-1]", f"max({v})", f"min({v})", f"{v}[0] + {v}[-1]"))
    best, w = s.local("best", "str"), s.item_of(v, "word", "str")
    s.emit(f"{best} = {v}[0]")
    s.emit(f"for {w} in {v}:")
    tests = (
        f"len({w}) > len({best})",
        f"len({w}) < len({best})",
        f"len({w}) >= len({best})",
        f"{w} < {best}",
        f"{w} > {best}",
    )
    s.emit(f"if {s.rng.choice(tests)}:", 2)
    s.emit(f"{best} = {w}", 3)
    return best


def count_words(s: Scope, v: str) -> str:
    """Count words, or their letters."""
    w = s.item_of(v, "word", "str")
    test = s.word_test(w)
    if not s.chance(s.family.loops):
        return s.rng.choice(
            (
                f"sum(len({w}) for {w} in {v})",
                f"sum(1 for {w} in {v} if {test})",
                f"len([{w} for {w} in {v} if {test}])",
            )
        )
    count = s.local("count", "int")
    s.emit(f"{count} = 0")
    s.emit(f"for {w} in {v}:")
    s.emit(f"if {test}:", 2)
    s.bump(count, "+", s.rng.choice(("1", f"len({w})")), 3)
    return count


def tally(s: Scope, v: str) -> str:
    """Make a table of words."""
    out, w = s.local("dict", "table"), s.item_of(v, "word", "str")
    s.emit(f"{out} = {{}}")
    s.emit(f"for {w} in {v}:")
    key = s.rng.choice((w, w, f"{w}[0]"))
    if s.chance(0.3):
        s.emit(f"if {s.word_test(w)}:", 2)
        s.emit(f"{out}[{key}] = len({w})", 3)
    else:
        s.emit(f"{out}[{key}] = {out}.get({key}, 0) + {s.rng.choice(('1', '1', f'len({w})'))}", 2)
    return out


def sum_table(s: Scope, v: str) -> str:
    """Add up or count the values of a table."""
    key, n = s.local("word", "str"), s.local("item", "int")
    if not s.chance(s.family.loops):
        del s.types[key]
        return s.rng.choice(
            (
                f"sum({n} for {n} in {v}.values() if {s.int_test(n)})",
                f"max({v}.values())",
                f"sum({v}.values())",
                f"len({v})",
            )
        )
    total = s.local("sum", "int")
    s.emit(f"{total} = 0")
    s.emit(f"for {key}, {n} in {v}.items():")
    s.emit(f"if {s.rng.choice((s.int_test(n), s.word_test(key)))}:", 2)
    s.bump(total, "+", s.rng.choice((n, "1", s.int_expr(n), f"len({key})")), 3)
    return total


def keys_of(s: Scope, v: str) -> str:
    """List keys of a table under a condition."""
    key, n = s.local("word", "str"), s.local("item", "int")
    if not s.chance(s.family.loops):
        return f"[{key} for {key}, {n} in {v}.items() if {s.int_test(n)}]"
    out = s.local("list", "words")
    s.emit(f"{out} = []")
    s.emit(f"for {key}, {n} in {v}.items():")
    s.emit(f"if {s.int_test(n)}:", 2)
    s.emit(f"{out}.append({s.rng.choice((key, key, f'{key}.upper()'))})", 3)
    return out


def best_key(s: Scope, v: str) -> str:
    """Pick the key with the best value."""
    best, key = s.local("best", "str"), s.local("word", "str")
    s.emit(f"{best} = {s.text('')}")
    s.emit(f"for {key} in {v}:")
    s.emit(f"if {best} == {s.text('')} or {v}[{key}] {s.rng.choice(('>', '<', '>='))} {v}[{best}]:", 2)
    s.emit(f"{best} = {key}", 3)
    return best


def look_up(s: Scope, v: str) -> str:
    """Look a key up, with a default."""
    key = s.param("str", "word", "word")
    return s.rng.choice(
        (
            f"{v}.get({key}, {s.threshold(0, 3)})",
            f"{v}.get({key}, 0) + {s.threshold(1, 3)}",
            f"{v}.get({key}, len({key}))",
        )
    )


def numbers_in(s: Scope, v: str) -> str:
    """Read the numbers of a text."""
    p = s.local("word", "str")
    if s.chance(0.5):
        return f"[int({p}) for {p} in {v}.split()]"
    out = s.local("list", "ints")
    s.emit(f"{out} = []")
    s.emit(f"for {p} in {v}.split():")
    s.emit(f"{out}.append(int({p}){s.rng.choice(('', ' + 1', ' * 2'))})", 2)
    return out
