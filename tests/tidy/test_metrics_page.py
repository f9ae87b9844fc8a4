"""Every metric is explained on its page, with its type and labels; and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.model.tally import Tally
from pipeline.run.metrics import Metrics
from tests.need import REPOSITORY

ROW = re.compile(r"^\| `(mirrorpoint_\w+)` \| (counter|gauge)((?:, `\w+`)*) \| \S", re.M)


def test_the_page_of_metrics_is_that_of_the_code():
    metrics = Metrics(Path("unwritten.prom"))
    metrics.tally = Tally()
    for word in ("fault:hello_bad", "skip:outside", "sessions:tls", "lost_gap"):
        metrics.tally.add("classify", word)
    made = {}
    for family in metrics.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        made[name] = (family.type, tuple(family.samples[0].labels))
    told = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in ROW.findall((REPOSITORY / "docs" / "metrics.md").read_text())
    }
    assert told == made
