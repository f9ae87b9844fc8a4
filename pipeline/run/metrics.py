"""What a process counted, as a file for Prometheus.

`mirrorpoint run --metrics FILE` writes it in the text format that node_exporter's text file
collector reads (its names end in `.prom`), anew after every unit and put in place whole. Counters
begin at 0 with the process. There is no name and no address in it: only counts and shares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.model.tally import Tally
from pipeline.model.words import Protocol
from pipeline.run.shares import mirror_quality

PLAIN = {
    "packets": ("packets", "Packets read."),
    "bytes": ("bytes", "Bytes of them on the wire."),
    "weak": ("names_weak", "Names from DNS answers, of flows without one of their own."),
    "given_up": ("flows_given_up", "Flows without a name that are left alone."),
}
LABELLED = {
    "flows": ("transport", "Flows begun.", {"tcp": "tcp_flows", "udp": "udp_flows"}),
    "sessions": (
        "protocol",
        "Names of flows.",
        {p.name.lower(): f"sessions:{p.name.lower()}" for p in Protocol},
    ),
}
CAUSES = {"hidden": "hidden", "gap": "lost_gap", "truncated": "lost_cut", "room": "lost_room"}
WATCHED = {
    "flows_watched": "TCP flows of three packets and more, of those that are watched.",
    "flows_both_ways": "Of them, those of which both sides were seen.",
    "segments_watched": "Segments of the flows that are watched.",
    "segments_twice": "Of them, those shown twice within two milliseconds.",
    "holes": "Segments before which bytes were missing.",
    "holes_filled": "Of them, those whose bytes came after all.",
    "packets_truncated": "Packets of which the capture kept a part.",
}
SHARE = "_share"


class Metrics(Collector):
    """All that a process counted so far, and the file that tells it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tally = Tally()
        self.units = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def begin(self) -> None:
        """Write the file with nothing counted. Raises click.BadParameter where that cannot be."""
        try:
            self._write()
        except OSError as error:
            raise click.BadParameter(f"{self.path}: {error.strerror}") from error

    def add(self, tally: Tally) -> None:
        """Add what a unit counted, and write the file; where that fails it is only said."""
        self.tally.counts.update(tally.counts)
        self.units += 1
        try:
            self._write()
        except OSError as error:
            click.echo(f"metrics not written: {self.path}: {error.strerror}", err=True)

    def _write(self) -> None:
        write_to_textfile(str(self.path), self._registry)

    def collect(self) -> Iterator[Metric]:
        """Everything by name, in an order that stays."""
        yield _counter("units", "Units of input taken.", self.units)
        for word, (name, text) in PLAIN.items():
            yield _counter(name, text, self.tally.of(word))
        for name, (label, text, words) in LABELLED.items():
            family = CounterMetricFamily(f"mirrorpoint_{name}", text, labels=[label])
            for value, word in words.items():
                family.add_metric([value], self.tally.of(word))
            yield family
        watched = self.tally.starting("mirror")
        for word, text in WATCHED.items():
            yield _counter(f"mirror_{word}", text, watched.get(word, 0))
        yield self._shares()
        yield self._unreadable()
        yield self._listed("faults", "fault", "What was wrong with the input, by stage.")
        yield self._listed("skips", "skip", "What was not taken further by choice, by stage.")

    def _shares(self) -> Metric:
        """Those shares that are of something."""
        family = GaugeMetricFamily(
            "mirrorpoint_mirror_ratio", "How good the mirror is, since the start.", labels=["of"]
        )
        for name, value in mirror_quality(self.tally).items():
            if name.endswith(SHARE) and value is not None:
                family.add_metric([name.removesuffix(SHARE)], value)
        return family

    def _unreadable(self) -> Metric:
        """By cause; no counter, for a flow whose name comes after all is taken out again."""
        family = GaugeMetricFamily(
            "mirrorpoint_unreadable_flows",
            "Flows that asked for a host that is not known.",
            labels=["cause"],
        )
        for cause, word in CAUSES.items():
            family.add_metric([cause], self.tally.of(word))
        return family

    def _listed(self, name: str, prefix: str, text: str) -> Metric:
        """Every word that was counted under a prefix."""
        family = CounterMetricFamily(f"mirrorpoint_{name}", text, labels=["stage", prefix])
        found: Counter[tuple[str, str]] = Counter()
        for (stage, word), count in self.tally.counts.items():
            if word.startswith(prefix + ":"):
                found[stage, word.partition(":")[2]] += count
        for (stage, word), count in sorted(found.items()):
            family.add_metric([stage, word], count)
        return family


def _counter(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(f"mirrorpoint_{name}", text, value=value)
