"""What each kind of rule file holds: from a checked table to a programme, partner or policy.

The folder a file lies in says its kind. Each reader asks its table for every key it knows, so what
it asks for is the format; `rules/README.md` describes the same keys for people. Readers go on after
a mistake; whether there was one is seen in the sheet's problems, and what they give is not used.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, tzinfo
from fractions import Fraction
from typing import Any, TypeVar

from pipeline.model.money import CURRENCY_SCALE
from pipeline.rulebook.accruals import (
    POINTS_MAX,
    read_accrual,
    read_accrual_example,
    read_validity,
    report_stacking,
)
from pipeline.rulebook.fields import Fields, Sheet, nearest
from pipeline.rulebook.fraud import (
    USUAL_OTHERS,
    read_coupons,
    read_fraud,
    read_insiders,
    read_shares,
)
from pipeline.rulebook.model import (
    DELIVERIES,
    LATER_TERMS,
    MODELS,
    OTHER_COUPONS,
    STATUSES,
    TRACKER_CLASSES,
    Accrual,
    AccrualExample,
    Contract,
    Exchange,
    Experiment,
    HostExample,
    Location,
    Match,
    Partner,
    Policy,
    Programme,
    Tracker,
    later_terms,
    version_of,
)
from pipeline.rulebook.names import is_registry, is_under
from pipeline.rulebook.policies import USUAL_SHARES

EXPIRY = re.compile(
    r"never|calendar_year_plus\(\d{1,2}\)|(rolling_months|inactivity)\([1-9]\d{0,2}\)"
    r"|fixed_date\((\d{4}-\d\d-\d\d)\)"
)
REFUND = re.compile(r"original|fresh|grace\((\d{1,3})d\)")
REFUNDS = ("grace(30d)", "original", "fresh")
EXPIRIES = (
    "never", "calendar_year_plus(2)", "rolling_months(36)", "inactivity(12)",
    "fixed_date(2027-12-31)",
)  # fmt: skip
PLACEHOLDERS = ("click", "url")
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
WEB_ADDRESS = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?([/?]|\Z)", re.ASCII)
MARK = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z", re.ASCII)
AT_LEAST_ONE_OF_EACH = '[[example]] with a host, at least one is = "matched" and one "ignored"'


@dataclass(frozen=True, slots=True)
class Claim:
    """A file says that this name is its own: whole (with all under it) or alone."""

    host: str
    owner: str
    location: Location


Dated = TypeVar("Dated", Contract, Accrual)


def read_zone(values: dict[str, object]) -> tzinfo:
    """The time zone a programme names; UTC while it is wrong, which `read_programme` reports."""
    return _find_zone(str(values.get("timezone", ""))) or UTC


def _find_zone(name: str) -> tzinfo | None:
    if name == "UTC":  # known even where no database of time zones is installed
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def read_currency(values: dict[str, object]) -> str:
    """The currency a programme names; empty while it is wrong."""
    value = str(values.get("currency", ""))
    return value if value in CURRENCY_SCALE else ""


def read_programme(sheet: Sheet) -> Programme:
    """`programme.toml`."""
    top = sheet.fields()
    identity = top.name("programme")
    content = {
        "id": identity,
        "title": top.text("title"),
        "timezone": _timezone(top),
        "points": top.text("points"),
        "points_scale": top.integer("points_scale", 0, 6),
        "currency": _currency(top),
        "region": top.text("region"),
        "funder": top.text("funder"),
        "issue_price": top.price("issue_price"),
        "settlement_price": top.price("settlement_price"),
        "expiry": top.text("expiry"),
    }
    expiry = str(content["expiry"])
    if expiry and not _is_expiry(expiry):
        top.report("expiry", "one of " + ", ".join(EXPIRIES), nearest(expiry, EXPIRIES))
    if content["points"] in CURRENCY_SCALE:
        top.report("points", "a name that is not a currency's, such as PTS")
    spending = _spending(top)
    exchanges = tuple(_exchange(table) for table in top.tables("exchange"))
    _report_twins(sheet, "exchange", "exchange", [exchange.id for exchange in exchanges])
    top.done()
    stated = [[e.id, e.unit, e.rate_out, e.rate_in] for e in exchanges]
    # What is not said leaves the version alone: it was not known to earlier versions.
    hashed = {**content, **spending, **({"exchanges": stated} if stated else {})}
    return Programme(
        **content,  # type: ignore[arg-type]
        **spending,
        exchanges=exchanges,
        version=version_of("programme", hashed),
        location=sheet.location(("programme",)),
    )


def _is_expiry(text: str) -> bool:
    found = EXPIRY.fullmatch(text)
    if not found or not found[2]:
        return found is not None
    try:
        date.fromisoformat(found[2])
    except ValueError:
        return False
    return True


def _spending(top: Fields) -> dict[str, Any]:
    """What a programme says of spending and adjusting; only what it says."""
    said: dict[str, Any] = {}
    for key, name in (("hold", "hold_ns"), ("waiting_period", "waiting_ns")):
        if top.has(key):
            said[name] = top.duration(key)
    if top.has("refund"):
        refund = said["refund"] = top.text("refund")
        if refund and not REFUND.fullmatch(refund):
            top.report("refund", "one of " + ", ".join(REFUNDS), nearest(refund, REFUNDS))
    if top.has("manual_limit"):
        expected = "points in smallest units, 0 or more"
        said["manual_limit"] = top.integer("manual_limit", 0, POINTS_MAX, expected)
    if top.has("expected_lapse"):
        said["expected_lapse"] = top.share("expected_lapse")
    return said


def _exchange(table: Fields) -> Exchange:
    """Another programme; a way without a rate is shut."""
    expected = 'points for one point, above 0 and at most 1000000, such as "3/2"'
    rates = {
        key: table.fraction(key, Fraction(0), Fraction(10**6), expected, above=True)
        for key in ("rate_out", "rate_in")
        if table.has(key)
    }
    if not rates:
        table.report("rate_out", "rate_out, rate_in or both")
    exchange = Exchange(
        table.name("exchange"),
        table.text("unit"),
        rates.get("rate_out", Fraction(0)),
        rates.get("rate_in", Fraction(0)),
        table.sheet.location(table.path),
    )
    table.done()
    return exchange


def read_policy(sheet: Sheet) -> Policy:
    """`policies/NAME.toml`."""
    top = sheet.fields()
    content = {
        "id": _own_name(top, "policy"),
        "visit_gap_ns": top.duration("visit_gap", low_ns=10**9),
        "lateness_ns": top.duration("lateness"),
        "guard_ns": top.duration("guard"),
        "tracker_window_ns": top.duration("tracker_window"),
    }
    experiment = Experiment("", Fraction(0), "")
    if (table := top.table("experiment")) is not None:
        experiment = Experiment(table.text("name"), table.share("holdout"), table.text("seed"))
        table.done()
    fraud, shares = read_fraud(top.table("fraud")), read_shares(top.table("position"))
    top.done()
    stated: dict[str, object] = {
        "experiment": [experiment.name, experiment.holdout, experiment.seed]
    }
    if fraud.codes:
        stated["fraud"] = fraud.content()
    # What is usual was not known to earlier versions.
    if fraud.codes and fraud.of_others() != USUAL_OTHERS:
        stated["fraud of spending"] = fraud.of_others()
    if shares != USUAL_SHARES:
        stated["position"] = shares.content()
    return Policy(
        **content,  # type: ignore[arg-type]
        experiment=experiment,
        version=version_of("policy", {**content, **stated}),
        location=sheet.location(("policy",)),
        fraud=fraud,
        shares=shares,
    )


def read_tracker(sheet: Sheet) -> tuple[Tracker, list[Claim]]:
    """`trackers/CLASS.toml`."""
    top = sheet.fields()
    identity = top.choice("tracker", TRACKER_CLASSES)
    _is_file_name(top, "tracker", identity)
    title = top.text("title", default="")
    hosts = top.hosts("hosts", needed=True)
    _refuse_registries(top, hosts)
    marks = top.texts("marks", _mark, expected="query parameter names")
    examples = [_host_example(table) for table in top.tables("example")]
    top.done()
    content = {"id": identity, "title": title, "hosts": sorted(hosts), "marks": sorted(marks)}
    tracker = Tracker(
        identity,
        title,
        tuple(sorted(hosts)),
        tuple(marks),
        tuple(examples),
        version_of("tracker", content),
        sheet.location(("tracker",)),
    )
    owner = f"tracker {identity}"
    return tracker, [Claim(h, owner, sheet.location(path)) for h, path in hosts.items()]


def read_partner(sheet: Sheet) -> tuple[Partner, list[Claim]]:
    """`partners/ID.toml`."""
    top = sheet.fields()
    identity = _own_name(top, "partner")
    title, status = top.text("title"), top.choice("status", STATUSES)
    match, claims = _match(top, identity)
    contracts = [_contract(table) for table in top.tables("contract", needed=True)]
    accruals = [read_accrual(table, identity) for table in top.tables("accrual")]
    _report_twins(sheet, "contract", "version", [c.version for c in contracts])
    _report_overlaps(sheet, "contract", contracts, lambda _: "")
    report_stacking(sheet, accruals)
    _report_overlaps(sheet, "accrual", accruals, lambda accrual: accrual.action)
    examples = [_partner_example(table) for table in top.tables("example")]
    insiders = read_insiders(top)
    top.done()
    said = {example.matched for example in examples if isinstance(example, HostExample)}
    if said != {True, False}:
        found = "nothing" if not said else f"only {'matched' if True in said else 'ignored'} ones"
        sheet.report(("example",), found, AT_LEAST_ONE_OF_EACH)
    contracts = contracts or [_no_contract(sheet)]
    partner = Partner(
        identity,
        title,
        status,
        match,
        max(contracts, key=lambda contract: contract.valid_from_ns),
        tuple(sorted(contracts, key=lambda contract: contract.valid_from_ns)),
        tuple(accruals),
        tuple(examples),
        _partner_version(identity, title, status, match, contracts, accruals, insiders),
        sheet.location(("partner",)),
        insiders,
    )
    return partner, claims


def _partner_version(
    identity: str,
    title: str,
    status: str,
    match: Match,
    contracts: Sequence[Contract],
    accruals: Sequence[Accrual],
    insiders: Sequence[bytes],
) -> bytes:
    content: dict[str, object] = {
        "id": identity,
        "title": title,
        "status": status,
        "match": [match.hosts, match.exact, match.exclude, match.prefixes],
        "contracts": sorted((_contract_content(c) for c in contracts), key=str),
        "accruals": sorted(accrual.version.hex() for accrual in accruals),
    }
    if insiders:
        content["insiders"] = sorted(who.hex() for who in insiders)
    return version_of("partner", content)


def _match(top: Fields, owner: str) -> tuple[Match, list[Claim]]:
    table = top.table("match", needed=True)
    if table is None:
        return Match((), (), (), ()), []
    sheet = table.sheet
    before = len(sheet.problems)
    hosts, alone = table.hosts("hosts"), table.hosts("exact")
    readable = len(sheet.problems) == before
    exclude, prefixes = table.hosts("exclude"), table.prefixes("prefixes")
    table.done()
    if readable and not hosts and not alone:
        sheet.report(table.at("hosts"), "nothing", "host names in hosts or exact")
    _refuse_registries(table, hosts)
    for name, path in {**hosts, **alone}.items():
        for shut in exclude:
            if is_under(name, shut):
                sheet.report(path, f'"{name}"', f'a name that is not under exclude "{shut}"')
    for name, path in exclude.items() if readable else ():
        if not any(is_under(name, host) for host in hosts):
            sheet.report(path, f'"{name}"', "a name under one of hosts", nearest(name, list(hosts)))
    for name in alone.keys() & hosts.keys():
        sheet.report(alone[name], f'"{name}"', "a name that is not in hosts already")
    owner = f"partner {owner}"
    claims = [Claim(n, owner, sheet.location(p)) for n, p in {**hosts, **alone}.items()]
    found = (sorted(hosts), sorted(alone), sorted(exclude), sorted(prefixes))
    return Match(*(tuple(names) for names in found)), claims


def _contract(table: Fields) -> Contract:
    valid_from_ns, valid_until_ns = read_validity(table)
    delivery = table.choice("click_delivery", DELIVERIES)
    currency = _contract_currency(table)
    share, fixed = _commission(table, currency)
    contract = Contract(
        version=table.text("version"),
        valid_from_ns=valid_from_ns,
        valid_until_ns=valid_until_ns,
        click_delivery=delivery,
        deep_link=_deep_link(table, delivery),
        referral=table.flag("referral"),
        attribution_window_ns=table.duration("attribution_window", low_ns=10**9),
        return_window_ns=table.duration("return_window"),
        currency=currency,
        commission=share,
        commission_fixed=fixed,
        terms=table.text("terms", default="", empty=True),
        location=table.sheet.location(table.path),
        coupons=read_coupons(table),
        other_coupons=table.choice("other_coupons", OTHER_COUPONS, default=OTHER_COUPONS[0]),
        attribution=table.choice("attribution", MODELS, default=MODELS[0]),
        soft=table.has("soft") and table.flag("soft"),
    )
    table.done()
    return contract


def _contract_currency(table: Fields) -> str:
    """The contract's currency: the programme's, since points cost money and nothing converts it."""
    value, ours = _currency(table), table.sheet.currency
    if ours and value != ours and table.values.get("currency") == value:
        table.report("currency", f'"{ours}", the currency of the programme', ours)
    return value


def _commission(table: Fields, currency: str) -> tuple[Fraction, Fraction]:
    """What the partner owes: a share of the amount, money for each conversion, or both."""
    share = fixed = Fraction(0)
    there = table.has("commission_fixed")
    if there:
        fixed = table.price("commission_fixed", above=True)
        decimals = CURRENCY_SCALE[currency]
        if (fixed * 10**decimals).denominator != 1:
            table.report("commission_fixed", f"an amount of {currency} with {decimals} decimals")
    if table.has("commission") or not there:
        share = table.share("commission")
    return share, fixed


def _contract_content(contract: Contract) -> list[object]:
    """What a contract says, in the order of its fields; of those added later what is not usual."""
    names = [name for name in Contract.__slots__ if name not in ("location", *LATER_TERMS)]
    more = later_terms(contract)
    return [getattr(contract, name) for name in names] + ([more] if more else [])


def _no_contract(sheet: Sheet) -> Contract:
    """Stands in for a missing contract, which has been reported."""
    place = sheet.location(())
    return Contract("", 0, 0, "none", "", False, 0, 0, "EUR", Fraction(0), Fraction(0), "", place)


def _deep_link(table: Fields, delivery: str) -> str:
    if delivery in ("match", "none"):
        if table.has("deep_link"):
            table.report("deep_link", f'no deep_link where click_delivery is "{delivery}"')
        return ""
    link = table.text("deep_link")
    if not link:
        return ""
    names = PLACEHOLDER.findall(link)
    strangers = [name for name in names if name not in PLACEHOLDERS]
    for name in strangers:
        near = nearest(name, PLACEHOLDERS)
        table.report("deep_link", "only {click} and {url} in braces", near)
    if names.count("click") != 1 and not strangers:
        table.report("deep_link", "a template with {click}, once")
    if delivery == "deeplink" and not WEB_ADDRESS.match(link):
        table.report("deep_link", "a template that begins with https:// or http:// and a host")
    return link


def _partner_example(table: Fields) -> HostExample | AccrualExample:
    if table.has("host") or table.has("is"):
        return _host_example(table)
    return read_accrual_example(table)


def _host_example(table: Fields) -> HostExample:
    matched = table.choice("is", ("matched", "ignored")) == "matched"
    example = HostExample(table.host("host"), matched, table.sheet.location(table.path))
    table.done()
    return example


def _currency(table: Fields) -> str:
    value = table.text("currency")
    if value and value not in CURRENCY_SCALE:
        known = sorted(CURRENCY_SCALE)
        table.report("currency", "a currency code such as EUR", nearest(value, known))
        return "EUR"
    return value or "EUR"


def _timezone(top: Fields) -> str:
    value = top.text("timezone")
    if value and _find_zone(value) is None:
        known = sorted(zoneinfo.available_timezones())
        top.report("timezone", "a time zone such as Europe/Berlin", nearest(value, known))
    return value


def _own_name(top: Fields, key: str) -> str:
    """A name that has to be the file's as well."""
    value = top.name(key)
    if value:
        _is_file_name(top, key, value)
    return value


def _is_file_name(top: Fields, key: str, value: str) -> None:
    stem = top.sheet.name.rpartition("/")[2].removesuffix(".toml")
    if value != stem and value == top.values.get(key):
        top.report(key, f'the name of the file, "{stem}"', stem)


def _mark(text: str) -> str:
    if not MARK.match(text):
        raise ValueError("the name of a query parameter, such as awc")
    return text


def _refuse_registries(table: Fields, hosts: dict[str, tuple[str | int, ...]]) -> None:
    for name, path in hosts.items():
        if is_registry(name):
            expected = "a name that is somebody's, not a registry's; or put it into exact"
            table.sheet.report(path, f'"{name}"', expected)


def _report_twins(sheet: Sheet, kind: str, key: str, names: list[str]) -> None:
    for number, name in enumerate(names):
        if name and name in names[:number]:
            sheet.report((kind, number, key), f'"{name}" again', f"each {key} once")


def _report_overlaps(
    sheet: Sheet, kind: str, dated: Sequence[Dated], group: Callable[[Dated], str]
) -> None:
    """Two of a kind in force at the same time: nobody could say which of them decides."""
    for number, one in enumerate(dated):
        for before in dated[:number]:
            if getattr(one, "stacking", "") or getattr(before, "stacking", ""):
                continue  # what stacks may stand beside anything
            if group(one) == group(before) and (
                one.valid_from_ns < before.valid_until_ns
                and before.valid_from_ns < one.valid_until_ns
            ):
                place = before.location
                sheet.report(
                    (kind, number, "valid_from"),
                    f"dates that overlap those of {place.key} in line {place.line}",
                    "dates apart" + (f" for action {group(one)}" if group(one) else ""),
                )
