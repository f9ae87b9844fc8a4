"""`mirrorpoint book` as a command line: what is asked goes to the owner as it was said."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.run import client
from pipeline.run.failures import RequestError
from pipeline.run.forms import FORMS
from pipeline.run.listener import OwnerStopped

VALUES = {"points": "5", "whole": "2"}


def run(*words: str):
    return CliRunner().invoke(main, ["book", *words])


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What goes to the owner of a state."""
    seen = []

    def note(state, request):
        seen.append(request)
        return b"done\n"

    monkeypatch.setattr(client, "ask", note)
    monkeypatch.setattr(client, "_print", lambda body: None)
    return seen


@pytest.mark.parametrize("kind", FORMS)
def test_each_kind_has_its_command(asked, tmp_path, kind):
    fields = FORMS[kind].fields
    said = {f.option: f.words[0] if f.words else VALUES.get(f.says, "x") for f in fields}
    words = [word for option, value in said.items() for word in (f"--{option}", value)]
    name = kind.replace("_", "-")
    found = run(name, "--state", str(tmp_path), *words, "--ref", "r", "--as", "admin", "--json")
    assert found.exit_code == 0, found.output
    told = {f.option: int(v) if f.says in VALUES else v for f, v in zip(fields, said.values(),
                                                                       strict=True)}  # fmt: skip
    assert asked == [
        {"do": "book", "name": kind, "json": True, "said": told, "ref": "r", "at": "",
         "as": "admin"}
    ]  # fmt: skip
    needed = [field for field in fields if field.needed]
    short = run(name, "--state", str(tmp_path))
    assert (short.exit_code, f"--{needed[0].option}" in short.output) == (2, True)
    page = run(name, "--help").output
    assert all(f"--{field.option}" in page for field in fields)
    assert max(map(len, page.splitlines())) <= 80


def test_below_zero_is_a_number_and_no_option(asked, tmp_path):
    state = ("--state", str(tmp_path))
    run("stock", *state, "--item", "cup", "--quantity", "-3")
    assert asked[0]["said"] == {"item": "cup", "quantity": -3}


def test_without_a_reference_each_has_one_of_its_own(asked, tmp_path):
    for _ in range(2):
        run("freeze", "--state", str(tmp_path), "--member", "x")
    first, second = (request["ref"] for request in asked)
    assert first != second
    assert len(first) == 16


def test_who_does_not_know_whether_it_was_done_is_told_how_to_ask_again(monkeypatch, tmp_path):
    def stopped(state, request):
        raise OwnerStopped("the owner stopped before it answered; try again")

    monkeypatch.setattr(client, "ask", stopped)
    with pytest.raises(RequestError, match=r"try again with --ref r7$"):
        client.book_command(tmp_path, "freeze", {"ref": "r7", "said": {}}, False)
    with pytest.raises(RequestError, match=r"try again$"):
        client.book_command(tmp_path, "waiting", {}, False)


def test_an_unknown_role_names_those_there_are(tmp_path):
    found = run("freeze", "--state", str(tmp_path), "--member", "x", "--as", "boss")
    assert found.exit_code == 2
    assert "'programme_manager'" in found.output
