"""Who has which role at a state: `STATE/access.toml`, written by the operator, read by the owner.

    [people.anna]                    # a user of the operating system
    roles = ["programme_manager"]

    [groups.desk]                    # a group of the system; supplementary groups count
    roles = ["call_centre"]
    scope = "region:north"           # without it: all of the programme

    [door]                           # a second socket, for people who do not own the folder
    socket = "/run/mirrorpoint/door.sock"
    group  = "mirrorpoint"

Whoever is named under `people` has exactly that, and their groups count no more. Everybody else has
what their groups have, the file's first group first. The folder's owner stays admin unless named
under `people`. That keeps nobody out: whoever owns the folder can rewrite the file, the keys and
everything else in it, and so can root. Take the role from the owner to hinder mistakes, not people.
Without the file the folder's owner and root are admin, and nobody else is anything.

Who has a scope may only do what the book can tell to be of that part of the programme
(`ledger/access.py`): place and end orders. What roles cover is in `model/access.py`.

Every mistake is listed at once. A file that somebody else may write is refused.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.model.access import COVERS, IN_SCOPE, TOLD_BY, Role, covers
from pipeline.run.actors import Peer

if TYPE_CHECKING:
    from pipeline.rulebook.fields import Fields

ACCESS_FILE = "access.toml"
WIDTH = 80
FILE_BYTES_MAX = 1 << 20
# Nobody at a terminal is a member; members ask by way of the shop, which is a system.
ROLES = tuple(str(role) for role in Role if role is not Role.MEMBER)
SCOPE_WORDS = tuple(TOLD_BY)
UNNAMED = re.compile(r"uid \d{1,10}\Z", re.ASCII)  # a user without a name, as `actor_of` calls one


class AccessError(RuntimeError):
    """The file cannot be used; `problems` has a line for each mistake."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Denied(RuntimeError):
    """Who asks may not do that. `act` and `about` say what, as it is put on record."""

    def __init__(self, message: str, actor: str, act: str, about: str = "") -> None:
        super().__init__(message)
        self.actor, self.act, self.about = actor, act, about


@dataclass(frozen=True, slots=True)
class Grant:
    """Roles, in the order in which they were written, and the part of the programme."""

    roles: tuple[str, ...]
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Door:
    """The second socket, and the group (its name) that may come in by it."""

    socket: Path
    group: str


class Standing(NamedTuple):
    """As whom something is done."""

    actor: str
    role: str
    scope: str


ADMIN = Grant((str(Role.ADMIN),))


@dataclass(frozen=True, slots=True)
class Permissions:
    """What the file says. `owner` is the folder's user id, `digest` the hash of the file, if any.

    With `mistakes` nobody may do anything until they are mended.
    """

    owner: int
    digest: str = ""
    people: Mapping[str, Grant] = field(default_factory=dict)
    groups: Mapping[str, Grant] = field(default_factory=dict)
    door: Door | None = None
    mistakes: tuple[str, ...] = ()

    def grants_of(self, peer: Peer) -> Iterator[Grant]:
        """What somebody has."""
        if peer.actor in self.people:
            yield self.people[peer.actor]
            return
        if peer.user == self.owner or (peer.user == 0 and not self.digest):
            yield ADMIN
        for name, grant in self.groups.items():
            if _group(name) in peer.groups:
                yield grant

    def standing(self, peer: Peer, act: str, wanted: str = "", about: str = "") -> Standing:
        """As whom `peer` does this: in the role they want, else in the first that may.

        Raises Denied, and AccessError while the file has mistakes.
        """
        if self.mistakes:
            if peer.user in (self.owner, 0):
                raise AccessError(list(self.mistakes))
            raise AccessError([f"{ACCESS_FILE} has mistakes; until they are mended all is denied"])
        grants = list(self.grants_of(peer))
        has = [(role, grant.scope) for grant in grants for role in grant.roles]
        chosen = [(role, scope) for role, scope in has if wanted in ("", role)]
        covering = [(role, scope) for role, scope in chosen if covers(role, act)]
        for role, scope in covering:
            if _in_scope(role, scope, act):
                return Standing(peer.actor, role, scope)
        said = fill(_denial(peer.actor, act, wanted, has, covering), WIDTH)
        raise Denied(said, peer.actor, act, about)

    def as_said(self) -> dict[str, Any]:
        """The content as it is put on record."""
        told: dict[str, Any] = {
            name: {who: {"roles": list(g.roles), "scope": g.scope} for who, g in grants.items()}
            for name, grants in (("people", self.people), ("groups", self.groups))
            if grants
        }
        if self.door is not None:
            told["door"] = {"socket": str(self.door.socket), "group": self.door.group}
        if self.mistakes:
            told["mistakes"] = len(self.mistakes)
        return told


def _in_scope(role: str, scope: str, act: str) -> bool:
    """Can the book, or the owner, tell that this is of that part of the programme?"""
    return act in IN_SCOPE if scope else role != Role.PARTNER


def _denial(
    actor: str, act: str, wanted: str, has: list[tuple[str, str]], covering: list[tuple[str, str]]
) -> str:
    """Why not: what was asked, by whom, and what it takes."""
    own = ", ".join(f"{role} of {scope}" if scope else role for role, scope in has)
    head = f"{act or 'what was asked'} is denied to {actor} ({own or 'no role'})"
    if covering:
        return (
            f"{head}: who has a scope may only place and end orders, since nothing else "
            "can be told to be of a part of the programme"
        )
    if wanted and wanted not in {role for role, _ in has}:
        head += f", who has not the role {wanted}"
    takes = ", ".join(str(role) for role in COVERS if covers(role, act))
    return f"{head}: it takes {takes}" if takes else f"{head}: it is nothing that a role covers"


def _group(name: str) -> int:
    """The number of a group, below zero where the system has none of that name."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return -1


# Reading


def signature(folder: Path) -> tuple[int, ...]:
    """What changes when the file does; nothing where there is none."""
    try:
        found = (folder / ACCESS_FILE).lstat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode


def read_permissions(folder: Path) -> Permissions:
    """The permissions of a state folder. Raises AccessError with all that is wrong."""
    owner = folder.stat().st_uid
    path = folder / ACCESS_FILE
    try:
        raw = _content(path, owner)
    except FileNotFoundError:
        return Permissions(owner)
    return _parsed(path, raw, owner)


def with_mistakes(folder: Path, error: AccessError) -> Permissions:
    """What holds while the file has mistakes: nothing is allowed."""
    try:
        digest = hashlib.sha256((folder / ACCESS_FILE).read_bytes()).hexdigest()
    except OSError:
        digest = "unreadable"
    return Permissions(folder.stat().st_uid, digest, mistakes=tuple(error.problems))


def _content(path: Path, owner: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        why = "is a link, and has to be a plain file" if path.is_symlink() else error.strerror
        raise AccessError([f"{path}: {why}"]) from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        problems = []
        if not stat.S_ISREG(found.st_mode):
            problems.append(f"{path}: is no plain file")
        if found.st_uid not in (owner, 0):
            problems.append(f"{path}: belongs to another user; `chown` it to the folder's owner")
        if found.st_mode & 0o022:
            mode = f"{stat.S_IMODE(found.st_mode):04o}"
            problems.append(f"{path}: others may write it (mode {mode}); `chmod go-w` it")
        if found.st_size > FILE_BYTES_MAX:
            problems.append(f"{path}: is larger than {FILE_BYTES_MAX:,} bytes")
        if problems:
            raise AccessError(problems)
        return file.read(FILE_BYTES_MAX)


def _parsed(path: Path, raw: bytes, owner: int) -> Permissions:
    import tomllib  # only who has a file pays for what reads one

    from pipeline.rulebook.fields import Sheet
    from pipeline.rulebook.locate import locate, syntax_error
    from pipeline.rulebook.model import Problem

    try:
        text = raw.decode()
        values = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line, found = raw.count(b"\n", 0, error.start) + 1, f"byte 0x{raw[error.start]:02x}"
        raise AccessError([str(Problem(str(path), line, "", found, "UTF-8 text"))]) from None
    except tomllib.TOMLDecodeError as error:
        line, message = syntax_error(error, text)
        raise AccessError([str(Problem(str(path), line, "", message, "TOML"))]) from None
    except RecursionError:
        said = "values nested too deep"
        raise AccessError([str(Problem(str(path), 1, "", said, "TOML of some levels"))]) from None
    sheet = Sheet(str(path), values, locate(text))
    fields = sheet.fields()
    people = _grants(fields, "people")
    groups = _grants(fields, "groups")
    door = _door(fields)
    fields.done()
    if sheet.problems:
        raise AccessError([str(problem) for problem in sorted(sheet.problems)])
    return Permissions(owner, hashlib.sha256(raw).hexdigest(), people, groups, door)


def _grants(fields: Fields, what: str) -> dict[str, Grant]:
    """The tables under `people` or `groups`, by their names."""
    table = fields.table(what)
    found: dict[str, Grant] = {}
    for name in table.values if table is not None else ():
        assert table is not None, "its names were just read"
        _check_name(table, what, name)
        one = table.table(name)
        if one is not None:
            found[name] = _grant(one)
            one.done()
    return found


def _check_name(table: Fields, what: str, name: str) -> None:
    if what == "people" and not (UNNAMED.match(name) or _is_user(name)):
        names = [user.pw_name for user in pwd.getpwall()]
        _report_name(table, name, name, "a user of this system", names)
    elif what == "groups" and _group(name) < 0:
        _report_group(table, name, name)


def _report_group(table: Fields, key: str, name: str) -> None:
    names = [group.gr_name for group in grp.getgrall()]
    _report_name(table, key, name, "a group of this system", names)


def _report_name(table: Fields, key: str, name: str, expected: str, names: list[str]) -> None:
    from pipeline.rulebook.fields import nearest, show_value

    table.sheet.report(table.at(key), show_value(name), expected, nearest(name, names))


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _grant(fields: Fields) -> Grant:
    from pipeline.rulebook.fields import nearest, show_value

    roles = fields.texts("roles", str, needed=True, expected="roles")
    for role, path in roles.items():
        if role not in ROLES:
            expected = "one of " + ", ".join(ROLES)
            fields.sheet.report(path, show_value(role), expected, nearest(role, ROLES))
    scope = fields.text("scope", default="", empty=True)
    word, _, name = scope.partition(":")
    if scope and (word not in SCOPE_WORDS or not name.strip()):
        expected = 'nothing for all, or such as "region:north" or "partner:acme-shop"'
        fields.report("scope", expected, nearest(word, SCOPE_WORDS))
    elif str(Role.PARTNER) in roles and word != "partner":
        fields.report("scope", 'such as "partner:acme-shop", which the role partner needs')
    return Grant(tuple(roles), scope)


def _door(fields: Fields) -> Door | None:
    table = fields.table("door")
    if table is None:
        return None
    socket, group = table.text("socket"), table.text("group")
    if socket and not socket.startswith("/"):
        table.report("socket", "an absolute path, such as /run/mirrorpoint/door.sock")
    if group and _group(group) < 0:
        _report_group(table, "group", group)
    table.done()
    return Door(Path(socket), group)
