"""The doctor looks at everything and says what to do about what is missing."""

from looper.doctor import doctor


def test_every_part_of_the_machine_is_looked_at():
    found = {finding.name: finding for finding in doctor()}
    names = {"python", "git", "workspace=bubblewrap", "workspace=landlock", "workspace=rlimits", "cpu", "cuda", "disk"}
    assert names <= set(found)
    assert found["git"].ok and found["workspace=rlimits"].ok
    assert all(finding.text for finding in found.values())
    assert all("pip install" in finding.text for finding in found.values() if finding.text.startswith("absent"))
