"""What accrual knows of a conversion beside its fold: figures about the member, and what was said.

Batches that are no streams: the store computes them at a cut's position (`store/features.py`), the
score reads them. Every row belongs to the fold in the same place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
    the messages tell of another affiliate's click; `marked_ns` is when the last visit to the
    partner before the purchase opened that one brought (0: none).
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
    marked_ns: I64


@dataclass(frozen=True, slots=True)
class ReviewBatch(Batch):
    """What a person decided last about a conversion: a Verdict, NONE where nobody did."""

    conversion_key: ID
    verdict: U8
    actor: TEXT
    reason: TEXT
    decided_ns: I64


@dataclass(frozen=True, slots=True)
class TouchBatch(Batch):
    """Clicks of a conversion's member with its partner that were not after the purchase.

    `row` is the place of the conversion among those asked about; of one conversion the last hundred
    clicks are here. `ambiguous` is of the click's visit, `marked` says that another affiliate had
    brought that visit by the time of the click.
    """

    row: I64
    click_id: ID
    visit_id: ID
    channel: TEXT
    clicked_ns: I64
    ambiguous: U8
    marked: U8


# By subscriber, since when which Basis held, in its order.
Standing = Mapping[bytes, Sequence[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it for the same conversions; features and reviews in their order.

    `standing` is of the members to whom coupons were issued.
    """

    features: FraudFeatures
    reviews: ReviewBatch
    touches: TouchBatch
    standing: Standing = field(default_factory=dict)

    def take(self, rows: np.ndarray) -> Evidence:
        """The evidence of these rows (an integer array)."""
        place = np.full(len(self.features) + 1, -1, np.int64)
        place[rows] = np.arange(len(rows))
        moved = place[self.touches.row]
        touches = self.touches.with_columns(row=moved).take(moved >= 0)
        return Evidence(self.features.take(rows), self.reviews.take(rows), touches, self.standing)
