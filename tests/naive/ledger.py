"""The ledger of coins, under the name that tests of the book look for.

The model itself ships in the wheel, with `mirrorpoint simulate`: `pipeline/run/simulation` says
why. It is as naive as its neighbours here and posts nothing by the book's own logic.
"""

from pipeline.run.simulation.coins import Exchange, NaiveRules
from pipeline.run.simulation.commands import Asked
from pipeline.run.simulation.model import NaiveLedger

__all__ = ["Asked", "Exchange", "NaiveLedger", "NaiveRules"]
