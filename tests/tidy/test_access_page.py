"""The page of roles says of each what the code does, and the example in it is a file that is read."""

from __future__ import annotations

import re
import tomllib

from pipeline.model.access import COVERS, Role
from pipeline.run.permissions import ROLES
from tests.need import REPOSITORY

PAGE = (REPOSITORY / "docs" / "access.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (.+) \|$", re.M)


def test_the_page_of_roles_is_that_of_the_code():
    told = {role: set(acts.split(", ")) for role, acts in ROW.findall(PAGE)}
    assert told.keys() == {str(role) for role in Role}
    assert told.pop(str(Role.ADMIN)) == {"everything"}
    assert told.pop(str(Role.NETWORK_ENGINEER)) == {"nothing of members"}
    assert not COVERS[Role.NETWORK_ENGINEER]
    assert told == {role: set(COVERS[Role(role)]) for role in told}


def test_the_example_has_what_a_file_may_have():
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    said = tomllib.loads(example)
    assert said.keys() == {"people", "groups", "door"}
    given = [grant for name in ("people", "groups") for grant in said[name].values()]
    assert all(set(grant["roles"]) <= set(ROLES) for grant in given)
