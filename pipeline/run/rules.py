"""`rules check`, `rules test` and `rules publish`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pipeline.rulebook.check import run_examples, show_problems
from pipeline.rulebook.model import RulebookError
from pipeline.rulebook.read import load

FAILED, WRONG = 1, 2


def check_command(folder: Path | None, as_json: bool) -> int:
    """List every mistake of a folder of rules; exit 2 if there is one."""
    try:
        rulebook = load(folder)
    except RulebookError as error:
        if as_json:
            click.echo(json.dumps([asdict(problem) for problem in error.problems], indent=2))
        else:
            click.echo(show_problems(error.problems))
            click.echo(f"{len(error.problems)} mistakes")
        return WRONG
    if as_json:
        click.echo("[]")
    else:
        click.echo(
            f"{len(rulebook.files)} files, {len(rulebook.partners)} partners, "
            f"{len(rulebook.trackers)} tracker classes: no mistakes"
        )
    return 0


def test_command(folder: Path | None, as_json: bool) -> int:
    """Run the examples inside the rule files; exit 1 if one fails, 2 if the rules are wrong."""
    rulebook = load(folder)
    results = run_examples(rulebook)
    failed = [result for result in results if not result.passed]
    if as_json:
        click.echo(json.dumps([asdict(result) for result in results], indent=2, default=str))
        return FAILED if failed else 0
    for result in failed:
        click.echo(str(result))
    click.echo(f"{len(results)} examples, {len(failed)} failed")
    return FAILED if failed else 0


def publish_command(state: Path, folder: Path, options: dict[str, Any], as_json: bool) -> int:
    """Ask the owner of a state to publish a folder, which is read here: the owner may not be able
    to. Exit 2 if the rules are wrong.
    """
    from pipeline.run.client import job_command

    return job_command(state, "publish", {**options, "files": load(folder).files}, as_json)
