"""The wheel carries everything the program needs, and nothing else."""

from __future__ import annotations

import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement

from tests.need import REPOSITORY
from tests.tidy.sources import tracked


@pytest.fixture(scope="module")
def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def files_under(folder: str) -> dict[str, bytes]:
    """Tracked files under a folder of the checkout, by their path inside it."""
    start = REPOSITORY / folder
    found = {p.relative_to(start).as_posix(): p for p in tracked() if start in p.parents}
    return {name: path.read_bytes() for name, path in found.items()}


@pytest.mark.parametrize(
    ("folder", "carried_as"),
    [
        ("pipeline", "pipeline/"),
        ("rules", "pipeline/data/rules/"),
        ("replay_pcaps/first-day", "pipeline/data/replay_pcaps/first-day/"),
    ],
)
def test_everything_the_program_needs_is_carried_byte_for_byte(contents, folder, carried_as):
    wanted = files_under(folder)
    assert wanted
    carried = {
        name.removeprefix(carried_as): raw
        for name, raw in contents.items()
        if name.startswith(carried_as) and not name.removeprefix(carried_as).startswith("data/")
    }
    assert carried == wanted


def test_nothing_else_is_carried(contents):
    tops = {name.split("/")[0] for name in contents}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"pipeline"}
    data = {"/".join(n.split("/")[2:3]) for n in contents if n.startswith("pipeline/data/")}
    assert data == {"rules", "replay_pcaps"}


def test_the_wheel_names_its_command_and_its_licence(contents):
    (points,) = (raw.decode() for n, raw in contents.items() if n.endswith("entry_points.txt"))
    assert "mirrorpoint = pipeline.cli:main" in points
    (licence,) = (raw for n, raw in contents.items() if n.endswith("licenses/LICENSE"))
    assert licence == (REPOSITORY / "LICENSE").read_bytes()


def test_the_wheel_asks_for_what_the_project_declares(contents):
    """What a stranger's pip installs beside it; other tests lend it the checkout's packages."""
    (metadata,) = (raw.decode() for n, raw in contents.items() if n.endswith("METADATA"))
    head = metadata.partition("\n\n")[0].splitlines()
    asked = {
        Requirement(line.split(":", 1)[1]) for line in head if line.startswith("Requires-Dist")
    }
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert asked == {Requirement(text) for text in project["dependencies"]}
    assert f"Requires-Python: {project['requires-python']}" in head


def test_the_wheel_is_for_every_python(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")
