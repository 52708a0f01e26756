from looper.leakage import added_lines, measure

GOLD = """diff --git a/a.py b/a.py
--- a/a.py
+++ b/a.py
@@ -1,3 +1,5 @@
 def area(w, h):
-    return w + h
+    checked = validate(w, h)
+    total = checked.width * h
+    return 1
"""


def test_added_lines_leave_headers_out():
    assert added_lines(GOLD) == ["checked = validate(w, h)", "total = checked.width * h", "return 1"]
    assert added_lines("--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+++ counter\n") == ["++ counter"]


def test_shares():
    leak = measure("area() is wrong. Use\n    checked = validate(w, h)\nand go on. return 1", GOLD)
    assert leak.verbatim == 0.5  # `return 1` is too short to tell anything
    assert leak.overlap == 3 / 5  # checked, validate, return; not total, width
    assert not leak.diff
    assert leak.score == 0.5


def test_an_issue_with_the_diff_in_it_leaks_everything():
    leak = measure(f"Here is my fix:\n```\n{GOLD}```", GOLD)
    assert (leak.verbatim, leak.diff, leak.score) == (1.0, True, 1.0)


def test_no_gold_patch_is_unknown_not_zero():
    leak = measure("anything", "")
    assert leak.verbatim is leak.overlap is leak.score is None
