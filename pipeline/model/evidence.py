"""What accrual knows of a conversion beside its fold: figures about the member, and what was said.

Batches that are no streams: the store computes them at a cut's position (`store/features.py`), the
score reads them. Every row belongs to the fold in the same place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.model.columns import I64, ID, TEXT, U8, U32, Batch


@dataclass(frozen=True, slots=True)
class FraudFeatures(Batch):
    """Figures about a conversion and its member: who made the click, else whom the shop named.

    `traffic_ns` is when the visit to the partner that opened last before the purchase was last seen
    (0: there was none). `clicks_hour` counts the member's clicks, with whatever partner, in the
    hour up to the one named. `orders_before` and `reversed_before` are the member's record when
    buying: conversions bought before this one, and how many of those had been declined by then.
    `claimed_before` counts conversions of the same order reference that come first, by other
    members or by another partner. `members_at_address` counts those who bought, in the day up to
    this purchase, from the address that its messages name, themselves included; `address_foreign`
    says that the address was not the member's then. `idle_ns` is how long the member had not been
    seen before the visit (0: never seen before). `coupon` is the code used. `other_click` says that
    the messages tell of another affiliate's click.
    """

    conversion_key: ID
    traffic_ns: I64
    clicks_hour: U32
    orders_before: U32
    reversed_before: U32
    claimed_before: U32
    members_at_address: U32
    address_foreign: U8
    idle_ns: I64
    coupon: TEXT
    other_click: U8


@dataclass(frozen=True, slots=True)
class ReviewBatch(Batch):
    """What a person decided last about a conversion: a Verdict, NONE where nobody did."""

    conversion_key: ID
    verdict: U8
    actor: TEXT
    reason: TEXT
    decided_ns: I64


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it for the same conversions, in the same order."""

    features: FraudFeatures
    reviews: ReviewBatch

    def take(self, rows: np.ndarray) -> Evidence:
        """The evidence of these rows."""
        return Evidence(self.features.take(rows), self.reviews.take(rows))
