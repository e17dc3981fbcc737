"""Units become durable here: one SQLite row and one transaction each. The only folder that speaks SQLite."""

from edged.store.opening import OpenedStore, open_store
from edged.store.values import Recovered, SalvageReport, StoreSettings, StoreStatistics

__all__ = ["OpenedStore", "Recovered", "SalvageReport", "StoreSettings", "StoreStatistics", "open_store"]
