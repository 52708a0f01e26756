"""Start-up code of a task's environment: the package under test is the checkout that a command runs in.

This file is copied into the environment, where a `.pth` line imports it at every start of Python; it must run on
Python 3.6 and import next to nothing. The environment itself holds the package's metadata and dependencies, and the
files that a build generates (a version file), but none of its code.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
GENERATED = os.path.join(HERE, "checkout_generated")  # noqa: PTH118
FIXED = "/repo"
"""Where sandboxes that can choose show the checkout."""


def _join(*parts: str) -> str:
    return os.path.join(*parts)  # noqa: PTH118


def find(source: str, packages: "list[str]") -> "str | None":
    """Return the checkout's folder of packages: at or above the working folder, else at the fixed place."""
    try:
        folder = os.getcwd()  # noqa: PTH109
    except OSError:
        folder = FIXED
    above = [folder]
    while os.path.dirname(above[-1]) != above[-1]:  # noqa: PTH120
        above.append(os.path.dirname(above[-1]))  # noqa: PTH120
    for root in [*above, FIXED]:
        place = os.path.normpath(_join(root, source))
        known = any(os.path.exists(_join(place, name)) for name in packages)  # noqa: PTH110
        if known and os.path.exists(_join(root, ".git")):  # noqa: PTH110
            return place
    return None


class Generated:
    """Last finder of all: modules that only a build makes."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        """Return the spec of a generated module."""
        file = _join(GENERATED, *name.split(".")) + ".py"
        if not os.path.exists(file):  # noqa: PTH110
            return None
        from importlib.util import spec_from_file_location

        return spec_from_file_location(name, file)


def start(source: str, packages: "list[str]") -> None:
    """Make the checkout's packages importable, in this process and in those that it starts elsewhere."""
    sys.meta_path.append(Generated())  # type: ignore[arg-type]
    place = find(source, packages)
    if place is None:
        return
    sys.path.append(place)
    if place != os.path.normpath(_join(FIXED, source)):
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join([p for p in paths if p and p != place] + [place])
