import pytest

from looper.metrics.verdict import Finding, caveats, finding, sentence
from looper.metrics.wording import p_text, points


def difference(estimate, low, high, p, *, n=100, detectable=0.14):
    return {
        "estimate": estimate,
        "low": low,
        "high": high,
        "p_value": p,
        "n": n,
        "detectable_effect": detectable,
    }


UP = difference(0.2, 0.1, 0.3, 0.001)
DOWN = difference(-0.2, -0.3, -0.1, 0.001)
FLAT = difference(0.02, -0.06, 0.1, 0.6)


def metrics(own, over, primary="natural"):
    rate = {"estimate": 0.4, "low": 0.3, "high": 0.5, "n": 100}
    return {
        "primary": primary,
        "resolve_rate": {"base": rate},
        "forward_transfer": own,
        "transfer_over_placebo": over,
        "forgetting": None,
        "infrastructure": {"total": 0},
        "leakage": {},
    }


@pytest.mark.parametrize(
    ("own", "over", "expected"),
    [
        (UP, UP, Finding.HELPED),
        (FLAT, UP, Finding.HELPED),
        (DOWN, UP, Finding.MIXED),
        (difference(0.0, -0.1, 0.1, 1.0), UP, Finding.MIXED),
        (DOWN, DOWN, Finding.HURT),
        (UP, DOWN, Finding.MIXED),
        (UP, FLAT, Finding.UNDETECTED),
        (FLAT, FLAT, Finding.UNDETECTED),
        (UP, None, Finding.HELPED),
        (DOWN, None, Finding.HURT),
        (FLAT, None, Finding.UNDETECTED),
        (None, None, Finding.UNMEASURED),
        (difference(0.2, 0.01, 0.4, 0.05), None, Finding.UNDETECTED),
        (difference(0.2, 0.0, 0.4, 0.049), None, Finding.UNDETECTED),
    ],
)
def test_finding(own, over, expected):
    assert finding(metrics(own, over)) is expected


def test_sentences():
    assert sentence(metrics(UP, UP)) == (
        "Experience helped on 100 held-out tasks of natural: +20 [+10, +30] points (p = .001) against placebo; "
        "+20 [+10, +30] points (p = .001) against base."
    )
    assert "without a placebo arm, training as such may be the cause" in sentence(metrics(UP, None))
    assert "a true difference of 14 points would have been found four times in five" in sentence(metrics(FLAT, FLAT))
    assert "not shown to be more than training on anything gives" in sentence(metrics(UP, FLAT))
    assert "training itself cost performance" in sentence(metrics(DOWN, FLAT))


def test_an_agent_that_only_looked_up_was_not_trained():
    told = [sentence({**metrics(own, over), "learning": {}}) for own, over in ((UP, None), (UP, FLAT), (DOWN, FLAT))]
    assert "without a placebo arm, notes as such may be the cause" in told[0]
    assert "not shown to be more than notes on anything give" in told[1]
    assert "notes themselves cost performance" in told[2]
    assert not any("training" in words for words in told)
    assert "opposite directions" in sentence(metrics(DOWN, UP))
    assert "resolves 40 % [30, 50] n 100" in sentence(metrics(None, None))
    few = difference(0.3, -0.3, 0.8, 1.0, n=1, detectable=None)
    assert "on 1 held-out task of" in sentence(metrics(few, None))
    assert "could not have shown any difference" in sentence(metrics(few, None))


def test_caveats():
    assert caveats(metrics(UP, UP)) == []
    assert "positive control" in caveats(metrics(UP, UP, primary="conventions"))[0]
    few = metrics(difference(0.3, -0.3, 0.8, 1.0, n=12), None)
    leaky = {"leakage": {"natural": {"share_over_half": 0.25}}}
    told = " ".join(caveats({**few, **leaky, "infrastructure": {"total": 2}, "forgetting": UP}))
    for words in ("Only 12 distinct tasks", "failed in 2 sessions", "25 % of the tasks", "Forgetting: +20"):
        assert words in told


def test_numbers_in_words():
    assert [points(x) for x in (0.123, -0.03, 0.001, -0.001)] == ["+12", "−3", "0", "0"]
    assert [p_text(p) for p in (1e-25, 0.031, 0.04999, 0.05, 0.38, 1.0)] == [
        *("p < .001", "p = .031", "p = .0499", "p = .050", "p = .38", "p = 1"),
    ]
