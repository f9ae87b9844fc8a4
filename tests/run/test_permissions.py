"""Who has which role: what the file says, every mistake in it, and as whom something is done."""

from __future__ import annotations

import grp
import os
import pwd
import stat

import pytest

from pipeline.model.access import COVERS, IN_SCOPE, Role, covers
from pipeline.run.actors import Peer, actor_of
from pipeline.run.failures import explain_failure
from pipeline.run.permissions import (
    ACCESS_FILE,
    AccessError,
    Denied,
    Door,
    Grant,
    Permissions,
    read_permissions,
    signature,
    with_mistakes,
)

ME = os.getuid()
OTHER = pwd.getpwnam("nobody" if ME == 0 else "root")
THEIRS = grp.getgrgid(OTHER.pw_gid)
NOT_MINE = ME + 7 if ME else 7


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def write(folder, text: str, mode: int = 0o600) -> Permissions:
    path = folder / ACCESS_FILE
    path.write_text(text)
    path.chmod(mode)
    return read_permissions(folder)


def mistakes(folder, text: str) -> list[str]:
    with pytest.raises(AccessError) as raised:
        write(folder, text)
    assert explain_failure(raised.value)[0] == 2
    start = f"{folder / ACCESS_FILE}:"
    assert all(problem.startswith(start) for problem in raised.value.problems)
    return [problem.removeprefix(start) for problem in raised.value.problems]


def who(user: int, *groups: int) -> Peer:
    return Peer(user, frozenset(groups))


def test_without_a_file_the_owner_and_root_are_admin_and_nobody_else_is_anything(folder):
    permissions = read_permissions(folder)
    assert permissions == Permissions(ME)
    assert permissions.standing(who(ME), "adjust") == (actor_of(ME), "admin", "")
    assert permissions.standing(who(0), "adjust").role == "admin"
    with pytest.raises(Denied, match="no role"):
        permissions.standing(who(NOT_MINE, *os.getgroups()), "sql")


GOOD = f"""
[people.{OTHER.pw_name}]
roles = ["analyst", "approver"]

[groups.{THEIRS.gr_name}]
roles = ["call_centre"]
scope = "region:north"

[door]
socket = "/run/mirrorpoint/door.sock"
group = "{THEIRS.gr_name}"
"""


def test_the_file_says_who_has_what(folder):
    permissions = write(folder, GOOD)
    assert permissions.people == {OTHER.pw_name: Grant(("analyst", "approver"))}
    assert permissions.groups == {THEIRS.gr_name: Grant(("call_centre",), "region:north")}
    assert str(permissions.door.socket) == "/run/mirrorpoint/door.sock"
    assert permissions.door == Door(permissions.door.socket, THEIRS.gr_name)
    assert len(permissions.digest) == 64
    told = permissions.as_said()
    assert told["people"] == {OTHER.pw_name: {"roles": ["analyst", "approver"], "scope": ""}}
    assert told["groups"][THEIRS.gr_name]["scope"] == "region:north"
    assert told["door"]["group"] == THEIRS.gr_name
    assert write(folder, GOOD + "# a comment\n").digest != permissions.digest


def test_a_role_is_the_first_that_covers_or_the_one_that_is_asked_for(folder):
    permissions = write(folder, GOOD)
    them = who(OTHER.pw_uid)
    assert permissions.standing(them, "sql").role == "analyst"
    assert permissions.standing(them, "sql", "approver").role == "approver"
    assert permissions.standing(them, "approve").role == "approver"
    with pytest.raises(Denied) as raised:
        permissions.standing(them, "approve", "analyst", "request 1")
    denied = raised.value
    assert (denied.actor, denied.act, denied.about) == (OTHER.pw_name, "approve", "request 1")
    assert explain_failure(denied)[0] == 1
    said = " ".join(str(denied).split())
    assert said.startswith(f"approve is denied to {OTHER.pw_name} (analyst, approver)")
    assert "it takes admin, approver, finance" in said
    with pytest.raises(Denied, match="has not the role"):
        permissions.standing(them, "sql", "admin")


def test_who_is_named_has_exactly_that_and_their_groups_count_no_more(folder):
    permissions = write(folder, GOOD)
    with pytest.raises(Denied):
        permissions.standing(who(OTHER.pw_uid, OTHER.pw_gid), "order")
    others = who(NOT_MINE, 2**31 - 9, OTHER.pw_gid)
    assert permissions.standing(others, "order") == (
        actor_of(NOT_MINE), "call_centre", "region:north",
    )  # fmt: skip


def test_the_owner_stays_admin_unless_named(folder):
    if ME != 0:
        pytest.skip("root owns the folder here, or is another than its owner")
    assert write(folder, GOOD).standing(who(0), "accrue").role == "admin"
    named = write(folder, GOOD + f'\n[people.{actor_of(ME)}]\nroles = ["auditor"]\n')
    assert named.standing(who(0), "audit").role == "auditor"
    with pytest.raises(Denied):
        named.standing(who(0), "accrue")


def test_with_a_file_root_is_admin_no_more_of_another_users_folder():
    with pytest.raises(Denied):
        Permissions(NOT_MINE, digest="of a file").standing(who(0), "sql")
    assert Permissions(NOT_MINE).standing(who(0), "sql").role == "admin"


@pytest.mark.parametrize("role", [r for r in Role if r not in (Role.MEMBER, Role.PARTNER)])
def test_who_has_a_scope_places_and_ends_orders_and_no_more(folder, role):
    named = f'[people.{OTHER.pw_name}]\nroles = ["{role}"]\nscope = "region:north"\n'
    permissions = write(folder, named)
    for act in sorted(COVERS[Role.ADMIN]):
        if covers(role, act) and act in IN_SCOPE:
            assert permissions.standing(who(OTHER.pw_uid), act).scope == "region:north"
            continue
        with pytest.raises(Denied) as raised:
            permissions.standing(who(OTHER.pw_uid), act)
        told = "may only place and end orders" in " ".join(str(raised.value).split())
        assert told == covers(role, act), "who has the role is told that it is for the scope"


def test_every_role_does_what_it_covers_and_nothing_else(folder):
    for role in Role:
        if role in (Role.MEMBER, Role.PARTNER):
            continue
        permissions = write(folder, f'[people.{OTHER.pw_name}]\nroles = ["{role}"]\n')
        for act in (*sorted(COVERS[Role.ADMIN]), "", "erase"):
            if covers(role, act):
                assert permissions.standing(who(OTHER.pw_uid), act).role == role
                continue
            with pytest.raises(Denied) as raised:
                permissions.standing(who(OTHER.pw_uid), act)
            assert all(len(line) <= 80 for line in str(raised.value).splitlines())


EVERY_MISTAKE = f"""
[people.nobodi]
roles = ["analist", "approver", "approver", 7]

[people.{OTHER.pw_name}]
role = ["analyst"]

[groups.no-such-group-here]
roles = []
scope = "regoin:north"

[groups.{THEIRS.gr_name}]
roles = ["partner"]
scope = "region:north"
extra = 1

[door]
socket = "door.sock"
group = "no-such-group-here"
mode = 1

[persons.x]
"""


def test_every_mistake_is_listed_with_where_it_stands(folder):
    found = mistakes(folder, EVERY_MISTAKE)
    near = f'3: people.nobodi.roles[0]: found "analist", expected one of {", ".join(ROLES)}'
    assert f"{near}; nearest: analyst" in found
    name = '2: people.nobodi: found "nobodi", expected a user of this system'
    assert any(line.startswith(name) for line in found)
    expected = (
        '3: people.nobodi.roles[2]: found "approver", expected each of them once',
        "3: people.nobodi.roles[3]: found 7, expected an array of roles",
        '8: groups.no-such-group-here: found "no-such-group-here", expected a group of this',
        "9: groups.no-such-group-here.roles: found an array of 0, expected an array of roles, at",
        '10: groups.no-such-group-here.scope: found "regoin:north", expected nothing for all, or',
        '14: groups.%s.scope: found "region:north", expected such as "partner:acme-shop"',
        '15: groups.%s.extra: found unknown key "extra", expected one of the keys roles, scope',
        '18: door.socket: found "door.sock", expected an absolute path',
        '19: door.group: found "no-such-group-here", expected a group of this system',
        '20: door.mode: found unknown key "mode"',
        '22: persons: found unknown key "persons", expected one of the keys people, groups, door',
    )
    for line in expected:
        line = line % THEIRS.gr_name if "%s" in line else line
        assert any(one.startswith(line) for one in found), (line, found)
    role = [line for line in found if f"people.{OTHER.pw_name}.role:" in line]
    assert role
    assert role[0].endswith("nearest: roles")
    assert len(found) == len(expected) + 3
    assert any("nearest: region" in line for line in found)


ROLES = tuple(str(role) for role in Role if role is not Role.MEMBER)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("people = 3", "1: people: found 3, expected a table [people]"),
        ("[people]\nann = 3", "a table [ann]"),
        ("[people", "1: : found "),
        ('[people.root]\nroles = ["member"]', "expected one of system, admin"),
        ('[people.root]\nroles = ["system"]\nscope = "group:x"', "expected nothing for all"),
        ('[people.root]\nroles = ["partner"]', "which the role partner needs"),
        ("[door]\ngroup = 'root'", "1: door.socket: found nothing"),
        ("x = " + "[" * 3000 + "]" * 3000, "nested too deep"),
    ],
)
def test_a_file_that_says_no_such_thing_is_refused(folder, text, said):
    assert any(said in line for line in mistakes(folder, text)), mistakes(folder, text)


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / ACCESS_FILE).write_bytes(b"[people]\n# \xff\n")
    with pytest.raises(AccessError, match=r":2: : found byte 0xff, expected UTF-8 text"):
        read_permissions(folder)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(folder, mode):
    with pytest.raises(AccessError, match="others may write it"):
        write(folder, GOOD, mode)
    assert write(folder, GOOD, 0o644).people


def test_only_a_plain_file_of_the_owner_is_read(folder, tmp_path):
    (tmp_path / "elsewhere").write_text(GOOD)
    (folder / ACCESS_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AccessError, match="plain file"):
        read_permissions(folder)
    (folder / ACCESS_FILE).unlink()
    os.mkfifo(folder / ACCESS_FILE, 0o600)
    with pytest.raises(AccessError, match="plain file"):
        read_permissions(folder)
    (folder / ACCESS_FILE).unlink()
    if ME == 0:
        write(folder, GOOD)
        os.chown(folder / ACCESS_FILE, OTHER.pw_uid, -1)
        with pytest.raises(AccessError, match="belongs to another user"):
            read_permissions(folder)


def test_users_without_a_name_are_named_by_number(folder):
    permissions = write(folder, f'[people."{actor_of(2**31 - 7)}"]\nroles = ["auditor"]\n')
    assert permissions.standing(who(2**31 - 7), "audit").role == "auditor"


def test_while_the_file_has_mistakes_nobody_may_do_anything(folder):
    with pytest.raises(AccessError) as raised:
        write(folder, "[people.root]\nroles = 3\n")
    permissions = with_mistakes(folder, raised.value)
    assert permissions.as_said() == {"mistakes": 1}
    with pytest.raises(AccessError, match="roles"):
        permissions.standing(who(ME), "sql")
    with pytest.raises(AccessError, match="until they are mended") as short:
        permissions.standing(who(NOT_MINE), "sql")
    assert "roles" not in str(short.value), "what stands in it is for its owner"


def test_a_change_is_seen(folder):
    assert signature(folder) == ()
    write(folder, GOOD)
    before = signature(folder)
    assert before == signature(folder)
    (folder / ACCESS_FILE).chmod(0o640)
    assert before != signature(folder)
    assert stat.S_IMODE((folder / ACCESS_FILE).stat().st_mode) == 0o640
