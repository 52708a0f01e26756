"""Issue texts: a concrete call, what it gives and should give, and often the symptom in words."""

from __future__ import annotations

import ast
import re
from collections import Counter
from random import Random

from looper.benchmarks.bugs.execute import Case

FRAMES: dict[str, tuple[str, ...]] = {
    "terse": (
        "`{call}` {got}, expected {want}.{hint}",
        "`{call}` {got}, should be {want}.{hint}",
        "`{fn}` is broken: `{call}` {got}, not {want}.{hint}",
        "Wrong result from `{call}`: {got}, want {want}.{hint}",
        "Bug in `{fn}`: `{call}` {got} instead of {want}.{hint}",
        "`{fn}` bug.{hint} `{call}` {got}; {want} expected.",
        "`{call}` -> {want} wanted, but it {got}.{hint}",
        "`{fn}` fails for {args}: it {got}, expected {want}.{hint}",
    ),
    "question": (
        "Why is it that `{call}` {got}? I expected {want}.{hint}",
        "Is `{fn}` wrong?{hint} `{call}` {got}, I thought it would be {want}.",
        "Shouldn't `{call}` be {want}? It {got}.{hint}",
        "Can someone check `{fn}`? `{call}` {got} where {want} is expected.{hint}",
        "How come `{call}` {got} and not {want}?{hint}",
        "Does `{fn}` do what it says? With {args} it {got}; the answer is {want}.{hint}",
    ),
    "expected": (
        "Call: `{call}`\nExpected: {want}\nGot: it {got}.{hint}",
        "`{fn}`\nexpected {want}\nit {got}\nfor `{call}`.{hint}",
        "Steps: run `{call}`. Expected {want}. Instead it {got}.{hint}",
        "{lead}Calling `{call}` {got}.\nExpected: {want}.",
        "In: `{call}`\nOut: {got}\nShould be: {want}.{hint}",
        "Expected `{call}` to be {want}, but it {got}.{hint}",
    ),
    "story": (
        "I use `{fn}` in a script, and `{call}` {got}. It has to be {want}.{hint}",
        "A user noticed that `{call}` {got}; they need {want}.{hint}",
        "We rely on `{fn}`.{hint} Today `{call}` {got}, yet {want} is correct.",
        "While checking our numbers I saw that `{call}` {got}, but {want} is what we agreed on.{hint}",
        "My team calls `{fn}` with {args} and it {got}. We want {want}.{hint}",
        "After an update, `{call}` {got}. Before it was {want}.{hint}",
    ),
    "report": (
        "`{fn}` gives a wrong answer. For {args} it {got}; the correct value is {want}.{hint}",
        "The result of `{fn}` is not what it should be.{hint} Example: `{call}` {got}, correct is {want}.",
        "There is a problem with `{fn}`: {args} should give {want}, but the call {got}.{hint}",
        "Please fix `{fn}`. `{call}` {got} and should be {want}.{hint}",
        "{lead}Seen in `{fn}`: `{call}` {got}, {want} is correct.",
        "`{fn}` returns something wrong, e.g. `{call}` {got} rather than {want}.{hint}",
        "Found a defect: `{call}` {got}. It should produce {want}.{hint}",
        "Incorrect output of `{fn}`: for {args} it {got} while {want} was asked for.{hint}",
    ),
}
"""Sentence frames by register."""

HINTS: dict[str, tuple[str, ...]] = {
    "include": (
        "The edge case should count too.",
        "The boundary is excluded.",
        "The limit itself must be included.",
        "Equal values are skipped.",
        "It ignores values that hit the bound exactly.",
    ),
    "exclude": (
        "The edge case should not count.",
        "The boundary is included.",
        "The limit itself must be excluded.",
        "Equal values are let through.",
        "It wrongly takes values that hit the bound exactly.",
    ),
    "below": (
        "It should go for smaller values, not larger ones.",
        "Large values are treated as small ones.",
        "The comparison goes the wrong way.",
        "The check is the wrong way round.",
    ),
    "above": (
        "It should go for larger values, not smaller ones.",
        "Small values are treated as large ones.",
        "The comparison goes the wrong way.",
        "The check is the wrong way round.",
    ),
    "opposite": (
        "It does the opposite.",
        "The condition is inverted.",
        "The test is negated.",
        "It takes just those that it should not.",
        "The check is upside down.",
    ),
    "off_by_one": (
        "Off by one somewhere.",
        "Looks like an off-by-one.",
        "A number in it is one off.",
        "Some constant is off by one.",
        "One of the numbers is wrong by one.",
    ),
    "op+": ("It should add.", "Something is not added.", "The sum is computed wrongly.", "An addition is missing."),
    "op-": (
        "It should subtract.",
        "Something is not taken off.",
        "The difference is wrong.",
        "A subtraction is missing.",
    ),
    "op*": (
        "It should multiply.",
        "Something is added, not multiplied.",
        "The product is wrong.",
        "The factor is misused.",
    ),
    "op//": ("It should divide.", "The division is wrong.", "It does not divide.", "The quotient is needed."),
    "op%": (
        "It should take the remainder.",
        "The remainder is wrong.",
        "The modulo is wrong.",
        "The quotient is used.",
    ),
    "overwritten": (
        "Only the last one is kept.",
        "Earlier values are lost.",
        "It forgets what came before.",
        "It overwrites instead of adding up.",
    ),
    "swapped": (
        "The order is swapped.",
        "The two sides are mixed up.",
        "The operands are the wrong way round.",
        "Two values are swapped.",
    ),
    "arguments": (
        "The arguments are swapped.",
        "Arguments in the wrong order.",
        "A call inside has its arguments mixed up.",
        "Two arguments are exchanged.",
    ),
    "initial": (
        "It starts from the wrong value.",
        "The initial value is wrong.",
        "The start is off.",
        "It does not start where it should.",
        "Wrong starting point.",
    ),
    "and_wanted": (
        "Both conditions must hold.",
        "One condition alone is enough now.",
        "It should need both.",
        "Both tests should be required.",
    ),
    "or_wanted": (
        "Either condition should do.",
        "One condition should be enough.",
        "It needs both now, one must do.",
        "Any of the two tests should suffice.",
    ),
    "variable": (
        "It uses the wrong variable.",
        "A wrong name is used somewhere.",
        "It looks at the wrong value.",
        "Some variable is mixed up with another.",
    ),
    "min_wanted": (
        "The smallest is wanted.",
        "It takes the largest, not the smallest.",
        "The minimum is needed.",
        "It picks too high.",
    ),
    "max_wanted": (
        "The largest is wanted.",
        "It takes the smallest, not the largest.",
        "The maximum is needed.",
        "It picks too low.",
    ),
    "any_wanted": ("One match should be enough.", "It needs all of them to match.", "A single hit must do."),
    "all_wanted": ("All of them must match.", "One match is enough now.", "A single hit must not do."),
    "sum_wanted": ("The total is wanted.", "It counts them, it should add them up.", "It gives the number of items."),
    "first": ("It takes the last, not the first.", "The first one is needed.", "It looks at the end, not the start."),
    "last": ("It takes the first, not the last.", "The last one is needed.", "It looks at the start, not the end."),
    "startswith_wanted": (
        "The beginning matters, not the end.",
        "It checks the end.",
        "It should look at how it starts.",
    ),
    "endswith_wanted": (
        "The end matters, not the beginning.",
        "It checks the beginning.",
        "It should look at how it ends.",
    ),
    "upper_wanted": ("Capitals are wanted.", "It should be in upper-case.", "The letters come out small."),
    "lower_wanted": ("Small letters are wanted.", "It should be in lower-case.", "The letters come out as capitals."),
    "find_wanted": ("The first place is wanted.", "It finds the last place.", "It searches from the end."),
    "rfind_wanted": ("The last place is wanted.", "It finds the first place.", "It searches from the start."),
    "spaces": (
        "Spaces around the text are kept.",
        "Blanks at the ends should go.",
        "It does not trim.",
        "Outer spaces matter.",
    ),
    "sign": (
        "The sign should not matter.",
        "Negative distances are wrong.",
        "It should use the absolute value.",
        "It ignores that a difference can be negative.",
    ),
    "unsorted": ("The result is not sorted.", "Sorting is missing.", "Not in order.", "It keeps the given order."),
    "descending": ("Largest first, please.", "The order should be descending.", "It sorts upwards."),
    "reversed": ("It is not reversed.", "The order should be turned round.", "It should run backwards."),
    "head": ("It is not cut.", "Only the first part is wanted."),
    "returned": (
        "The wrong answer is returned.",
        "A return is wrong.",
        "It answers with the wrong one.",
        "The returned value is mixed up.",
    ),
    "returned_other": (
        "It returns the wrong variable.",
        "It gives back the wrong value.",
        "The result is computed but not returned.",
        "The return is wrong.",
    ),
    "unfinished": (
        "The last step is missing.",
        "It stops one step early.",
        "The final adjustment is missing.",
        "Something at the end is missing.",
    ),
}
"""Symptoms by what the mutation took away."""

SUBJECTS: dict[str, tuple[str, ...]] = {
    "include": (
        "A {a} of exactly {b} should count.",
        "{a} equal to {b} is missed.",
        "It must also hold when {a} is {b}.",
    ),
    "exclude": (
        "A {a} of exactly {b} should not count.",
        "{a} equal to {b} gets through.",
        "It must not hold when {a} is {b}.",
    ),
    "below": ("It should ask for {a} below {b}.", "A {a} above {b} is taken for one below.", "{a} under {b} is meant."),
    "above": ("It should ask for {a} above {b}.", "A {a} below {b} is taken for one above.", "{a} over {b} is meant."),
    "variable": ("{a} should be used, not {b}.", "It mixes up {a} and {b}.", "It reads {b} where {a} is meant."),
    "returned_other": ("{a} should come back, not {b}.", "It returns {b}."),
    "initial": ("{a} starts wrong.", "{a} has a wrong first value."),
    "off_by_one": (
        "A {b} in it should be {a}.",
        "It says {b} where {a} is meant.",
        "It has {b}, one off: {a} is right.",
    ),
    "op+": ("{a} should be added.", "{a} is not added."),
    "op-": ("{a} should be taken off.", "{a} is not subtracted."),
    "op*": ("It should multiply by {a}.", "{a} is no factor."),
    "head": ("Only the first {a} are wanted.", "It should stop after {a}.", "{a} is ignored, nothing is cut."),
    "unfinished": ("The last step, by {a}, is missing.", "At the end {a} is forgotten.", "It stops before the {a}."),
    "swapped": ("{a} and {b} are swapped.", "{a} comes before {b}."),
    "arguments": ("{a} and {b} are swapped.", "{a} goes before {b}."),
}
"""Symptoms that name what is compared or mixed up; only used for plain names and numbers."""


def hint_key(hint: str) -> str:
    """Return the key of a hint without its subject."""
    return hint.partition(":")[0]


def in_words(rng: Random, hint: str, *, named: float) -> str:
    """Return a sentence for a hint; in a share of cases one that names its subject."""
    key, _, subject = hint.partition(":")
    a, _, b = subject.partition("|")
    plain = re.fullmatch(r"\w+(\|\w+)?", subject) is not None
    if plain and key in SUBJECTS and not (key.startswith("op") and a.isdigit()) and rng.random() < named:
        text = rng.choice(SUBJECTS[key]).format(a=_code(a), b=_code(b))
        return text
    return rng.choice(HINTS[key])


def _code(name: str) -> str:
    return name if name.isdigit() else f"`{name}`"


def behaviour(rng: Random, case: Case) -> str:
    """Return a sentence on how the actual value differs from the expected one, '' if there is none to make."""
    try:
        want, got = ast.literal_eval(case.expected), ast.literal_eval(case.actual)
    except (ValueError, SyntaxError):
        return ""
    if isinstance(want, bool) or type(want) is not type(got):
        return ""
    if isinstance(want, int):
        return rng.choice(_number(got - want))
    if isinstance(want, (list, str)):
        return rng.choice(_sequence(want, got))
    return ""


def _number(gap: int) -> tuple[str, ...]:
    if gap == 1:
        return ("One too many.", "One too high.", "It is one more than it should be.")
    if gap == -1:
        return ("One too few.", "One too low.", "It is one less than it should be.")
    if gap > 0:
        return (f"That is {gap} too much.", "The number is too high.", "Too large.")
    return (f"That is {-gap} too little.", "The number is too low.", "Too small.")


def _sequence(want: list[object] | str, got: list[object] | str) -> tuple[str, ...]:
    extra = len(got) - len(want)
    if not got:
        return ("Nothing comes out.", "The result is empty.")
    if extra > 0:
        return ("There is too much in it.", f"It has {extra} too many.", "The result is too long.")
    if extra < 0:
        return ("Something is missing.", f"It has {-extra} too few.", "The result is too short.")
    if Counter(map(repr, want)) == Counter(map(repr, got)):
        return ("The order is wrong.", "Same parts, wrong order.")
    return ("The values are wrong.", "The length is fine, the content is not.", "Something in it is wrong.")


def write(rng: Random, dialect: str, name: str, case: Case, sentence: str) -> str:
    """Return an issue text for a case that shows the bug, with a sentence on the symptom ('' for none)."""
    register = rng.choice(tuple(FRAMES)) if dialect == "mixed" or rng.random() < 0.3 else dialect
    frame = rng.choice(FRAMES[register])
    if case.actual.isidentifier() and case.actual.endswith("Error"):
        got = f"raises {case.actual}"
    else:
        got = f"{rng.choice(('returns', 'returns', 'gives', 'yields'))} {case.actual}"
    return frame.format(
        call=f"{name}({case.args})",
        fn=name,
        args=f"({case.args})",
        got=got,
        want=case.expected,
        hint=f" {sentence}" if sentence else "",
        lead=f"{sentence} " if sentence else "",
    ).strip()
