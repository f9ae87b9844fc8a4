"""The command line. Every command imports what it needs when it runs, so `--help` stays fast.

Exit codes: 0 done; 1 it ran and something failed; 2 the call, the input or the rules are wrong, and
every mistake has been listed. Progress goes to standard error, and only to a terminal.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pipeline import __version__
from pipeline.cli_book import book
from pipeline.cli_options import AS, JSON, STATE, guarded

RULES = click.option(
    "--rules",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of rules; without it the shipped ones.",
)
PERIOD = click.option("--period", default="", metavar="YYYY-MM", help="An accounting period.")
FROM = click.option("--from", "since", default="", metavar="T", help="Booked from then on.")
TO = click.option("--to", "until", default="", metavar="T", help="Booked before then.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, prog_name="mirrorpoint")
def main() -> None:
    """What a DPI box sees and what partner shops confirm become loyalty points.

    Try `mirrorpoint demo` first.
    """


@main.command()
@click.option("--keep", is_flag=True, help="Leave the store and print queries worth trying.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to leave it; by default ./mirrorpoint-demo (with --keep).",
)
def demo(keep: bool, state: Path | None) -> None:
    """The bundled day, end to end."""
    from pipeline.run.demo import demo as run_demo

    sys.exit(guarded(lambda: run_demo(keep, state)))


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@STATE
@RULES
@JSON
@click.option("--rows", default=4096, show_default=True, help="Packets per batch.", hidden=True)
@click.option(
    "--seed",
    default="",
    help="Seed of keys and ids, for files that are no case; by default random and kept.",
)
@click.option(
    "--parse-for",
    type=click.Choice(["consented", "listed"]),
    help="Whose payload may be read, for files that are not a case.",
)
@click.option("--subscribers", multiple=True, metavar="PREFIX", help="Subscriber prefixes.")
@click.option("--update", is_flag=True, help="Rewrite the case's expected/ tables.")
def replay(
    paths: tuple[Path, ...], state: Path, rules: Path | None, as_json: bool, **options: Any
) -> None:
    """Replay a case folder, input files or a state's journal into --state DIR.

    The same input always gives the same hashes. Run again after a crash it goes on where it
    stopped.
    """
    from pipeline.run.replay import replay_command

    sys.exit(guarded(lambda: replay_command(paths, state, rules, as_json, options)))


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--format",
    "shape",
    type=click.Choice(["jsonl", "table", "count"]),
    default="table",
    show_default=True,
    help="An object a line, lines for people, or what there is of them in all.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON: of a count one object, else what jsonl prints.",
)
def inspect(paths: tuple[Path, ...], shape: str, as_json: bool) -> None:
    """One line per session of a capture. Stores nothing.

    Reads pcap and pcapng, also inside gzip or zstd; - is standard input.

    A diagnostic for the operator's own captures: it prints what other people looked at.
    """
    from pipeline.run.inspect import inspect as run_inspect

    sys.exit(guarded(lambda: run_inspect(paths, shape, sys.stdout, json_output=as_json)))


@main.command()
@click.argument("identifier", required=False)
@STATE
@click.option("--missing", is_flag=True, help="Name the first link that broke.")
@click.option("--order", default="", help="The order reference to look for.")
@click.option("--subscriber", default="", help="Subscriber id who says the points are missing.")
@click.option("--address", default="", help="Address the purchase was made from (with --at).")
@click.option("--at", default="", help="UTC time, ISO 8601.")
@click.option("--with-identity", is_flag=True, help="Show the login too; this is audited.")
@AS
@JSON
def explain(
    identifier: str | None, state: Path, role: str | None, as_json: bool, **question: Any
) -> None:
    """The chain from an entry, visit, click, decision or conversion to the packet.

    With --missing --order REF: why a purchase brought no points.
    """
    if not identifier and not (question["missing"] and question["order"]):
        raise click.UsageError("give an ID, or --missing with --order REF")
    if identifier and question["missing"]:
        raise click.UsageError("give an ID or --missing with --order REF, not both")
    of_missing = [
        f"--{name}" for name in ("order", "subscriber", "address", "at") if question[name]
    ]
    if of_missing and not question["missing"]:
        raise click.UsageError(f"{', '.join(of_missing)}: only with --missing, not with an ID")
    from pipeline.run.client import explain_command

    sys.exit(guarded(lambda: explain_command(state, identifier or "", as_json, question, role)))


@main.command()
@click.argument("case", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--rules",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="The other rules.",
)
@JSON
def whatif(case: Path, rules: Path, as_json: bool) -> None:
    """The same input under other rules: who, how much, and by which rule line. Writes nothing.

    Where several keys changed, up to 32 more replays find out which made the difference.
    """
    from pipeline.run.whatif import whatif_command

    sys.exit(guarded(lambda: whatif_command(case, rules, as_json)))


@main.command()
@click.argument("query")
@STATE
@JSON
def sql(query: str, state: Path, as_json: bool) -> None:
    """Ask the store (ClickHouse SQL, read-only).

    Tables: visits, decisions, clicks, conversions, entries, runs, cuts, and the append-only *_log.
    """
    from pipeline.run.client import sql_command

    sys.exit(guarded(lambda: sql_command(state, query, as_json)))


@main.group()
def job() -> None:
    """Jobs that run at a cut."""


@job.command()
@STATE
@click.option("--now", default="", metavar="T", help="The cut's time, ISO 8601 UTC; default now.")
@JSON
def accrue(state: Path, now: str, as_json: bool) -> None:
    """Make a cut and turn what is due into points."""
    from pipeline.run.client import job_command

    sys.exit(guarded(lambda: job_command(state, "accrue", {"now": now}, as_json)))


@job.command()
@STATE
@click.option("--head", is_flag=True, help="Print where the book's hash chains stand, and no more.")
@click.option(
    "--against",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Compare the chains with what --head printed earlier, and no more.",
)
@JSON
def audit(state: Path, head: bool, against: Path | None, as_json: bool) -> None:
    """Check journal, book and ClickHouse against each other and against their own rules.

    Keep the heads of the hash chains elsewhere, where nobody who can write the state can change
    them: compared later they show whether anything before them was.
    """
    if head and against:
        raise click.UsageError("one of --head and --against")
    from pipeline.run.client import audit_command

    sys.exit(guarded(lambda: audit_command(state, head, against, as_json)))


@job.command()
@STATE
@click.option("--release", default="", metavar="KEY", help="Let this conversion count.")
@click.option("--decline", default="", metavar="KEY", help="Refuse this conversion.")
@click.option("--close", default="", metavar="CLAIM", help="Close this claim by hand.")
@click.option("--reason", default="", metavar="TEXT", help="Why; it is put on record.")
@AS
@JSON
def review(state: Path, reason: str, role: str | None, as_json: bool, **decisions: str) -> None:
    """List conversions and claims that wait for a person, or decide one.

    A decision is journalled with who made it; the next `job accrue` acts on it.
    """
    made = [(verdict, about) for verdict, about in decisions.items() if about]
    if len(made) > 1:
        raise click.UsageError("one of --release, --decline and --close at a time")
    if reason and not made:
        raise click.UsageError("--reason: only with --release, --decline or --close")
    from pipeline.run.client import job_command

    options: dict[str, Any] = {"reason": reason, "as": role}
    for verdict, about in made:
        options |= {"verdict": verdict, "claim" if verdict == "close" else "conversion": about}
    sys.exit(guarded(lambda: job_command(state, "review", options, as_json)))


@job.command()
@STATE
@click.option("--member", required=True, metavar="ID", help="Subscriber id of who bought.")
@click.option("--partner", required=True, help="Id of the partner.")
@click.option("--order", required=True, metavar="REF", help="The order's reference.")
@click.option("--at", required=True, metavar="T", help="When it was bought, ISO 8601 UTC.")
@click.option("--amount", required=True, help="How much, such as 26.09.")
@AS
@JSON
def claim(state: Path, role: str | None, as_json: bool, **purchase: str) -> None:
    """Put on record that a member misses a purchase.

    `job review` lists it until the partner's message brings the points, or somebody closes it.
    """
    from pipeline.run.client import job_command

    sys.exit(guarded(lambda: job_command(state, "claim", {**purchase, "as": role}, as_json)))


@job.command("rerate")
@STATE
@click.option("--partner", default="", metavar="ID", help="Only this partner's.")
@click.option("--since", default="", metavar="T", help="Bought from then on, ISO 8601 UTC.")
@click.option("--until", default="", metavar="T", help="Bought before then.")
@click.option("--reason", default="", metavar="TEXT", help="Why; it is put on record.")
@click.option("--dry-run", is_flag=True, help="Only show the difference.")
@AS
@JSON
def rerate(state: Path, role: str | None, as_json: bool, **options: Any) -> None:
    """Rate what was bought before by the rules in force: the difference, and asking for it.

    Conversions keep the rules they were first rated by until another person approves this.
    """
    from pipeline.run.client import job_command

    if options["dry_run"] and options["reason"]:
        raise click.UsageError("--reason: not with --dry-run, which asks for nothing")
    sys.exit(guarded(lambda: job_command(state, "rerate", {**options, "as": role}, as_json)))


@job.command()
@STATE
@click.option("--partner", default="", metavar="ID", help="Only this partner.")
@PERIOD
@FROM
@TO
@JSON
def settle(state: Path, as_json: bool, since: str, until: str, **chosen: str) -> None:
    """What partners owe, and what is left of it behind the points.

    Of an accounting period, or of what was booked between two times; without either of the last
    period. What is over does not change any more.
    """
    from pipeline.run.client import job_command

    options = {**chosen, "from": since, "to": until}
    sys.exit(guarded(lambda: job_command(state, "settle", options, as_json)))


@job.command()
@STATE
@click.option(
    "--at", default="", metavar="T", help="As of then, from its month on; by default the last cut."
)
@PERIOD
@FROM
@TO
@click.option(
    "--lapse",
    default="",
    metavar="SHARE",
    help="The share that nobody will spend, such as 20%; by default what the programme says.",
)
@JSON
def liability(state: Path, as_json: bool, since: str, until: str, **chosen: str) -> None:
    """What outstanding points are worth, and how that came, by the month they were earned in."""
    from pipeline.run.client import job_command

    options = {**chosen, "from": since, "to": until}
    sys.exit(guarded(lambda: job_command(state, "liability", options, as_json)))


@main.command()
@click.option(
    "--watch",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="Folder into which captures, sign-ins, circle, members, purchases and orders are dropped.",
)
@STATE
@RULES
@click.option(
    "--parse-for",
    type=click.Choice(["consented", "listed"]),
    required=True,
    help="Whose payload may be read; audited.",
)
@click.option("--subscribers", multiple=True, metavar="PREFIX", help="Subscriber prefixes.")
@click.option("--once", is_flag=True, help="Ingest what is there and stop.")
@click.option(
    "--abandon-unit",
    is_flag=True,
    help="First give up an input that a crash left unfinished and whose files are gone.",
)
@click.option(
    "--metrics",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write counts into, for Prometheus (its text file collector).",
)
def run(watch: Path, state: Path, rules: Path | None, **options: Any) -> None:
    """Own the state folder and ingest what is dropped into a folder."""
    from pipeline.run.watch import watch_command

    sys.exit(guarded(lambda: watch_command(watch, state, rules, options)))


main.add_command(book)


@main.group()
def rules() -> None:
    """Check, test and publish the rules."""


@rules.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@JSON
def check(folder: Path | None, as_json: bool) -> None:
    """List every mistake at once: file, line, key, found, expected, nearest valid name."""
    from pipeline.run.rules import check_command

    sys.exit(guarded(lambda: check_command(folder, as_json)))


@rules.command("test")
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@JSON
def run_rule_examples(folder: Path | None, as_json: bool) -> None:
    """Run the examples inside the rule files."""
    from pipeline.run.rules import test_command

    sys.exit(guarded(lambda: test_command(folder, as_json)))


@rules.command("publish")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@STATE
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is put on record.")
@click.option(
    "--from", "since", default="", metavar="T", help="Not before then; by default when approved."
)
@AS
@JSON
def publish(
    folder: Path, state: Path, reason: str, since: str, role: str | None, as_json: bool
) -> None:
    """Ask for these rules to come into force. Another person has to approve it.

    The examples in them have to pass. `mirrorpoint whatif` shows what they would change.
    """
    from pipeline.run.rules import publish_command

    options = {"reason": reason, "from": since, "as": role}
    sys.exit(guarded(lambda: publish_command(state, folder, options, as_json)))


@rules.command("pending")
@STATE
@click.option("--all", "everything", is_flag=True, help="Also what was in force or rejected.")
@JSON
def pending(state: Path, everything: bool, as_json: bool) -> None:
    """What rules are in force, and which wait for a second person or their time."""
    from pipeline.run.client import job_command

    sys.exit(guarded(lambda: job_command(state, "pending", {"all": everything}, as_json)))


@main.command()
@click.option("--seed", "first", default=1, show_default=True, help="The first seed.")
@click.option("--seeds", default=1, show_default=True, help="How many, one after the other.")
@click.option(
    "--steps", default=50, show_default=True, type=click.IntRange(1), help="Steps of each story."
)
@JSON
def simulate(first: int, seeds: int, steps: int, as_json: bool) -> None:
    """Tell stories made of seeds to a book and to a ledger of coins, and compare.

    Stories have purchases, orders, corrections, rules, cuts and crashes. The first one that fails
    is made as small as it can be and shown. Nothing is kept.
    """
    from pipeline.run.simulate import simulate as run_simulation

    sys.exit(guarded(lambda: run_simulation(first, seeds, steps, as_json)))


@main.command(hidden=True)
def warm() -> None:
    """Compile all kernels, so that the first command is as fast as the others."""
    from pipeline.run.warm import warm as run_warm

    sys.exit(guarded(run_warm))


if __name__ == "__main__":
    main()
