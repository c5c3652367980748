"""Names of all domains: one line a domain.

Apart from the registry and free of imports, so that a command line can name what is allowed without loading gymnax
(several seconds): it runs this file by its path, which leaves the packages around it unloaded.
"""

DOMAINS: dict[str, str] = {
    "agriculture": "Agriculture",
    "air_traffic": "AirTraffic",
    "cloud_scheduling": "CloudScheduling",
    "data_center": "DataCenter",
    "edge_computing": "EdgeComputing",
    "energy_trading": "EnergyTrading",
    "healthcare": "Healthcare",
    "manufacturing": "Manufacturing",
    "maritime": "Maritime",
    "network_traffic": "NetworkTraffic",
    "portfolio": "Portfolio",
    "recommender": "Recommender",
    "smart_city": "SmartCity",
    "smart_grid": "SmartGrid",
    "supply_chain": "SupplyChain",
    "vehicle_fleet": "VehicleFleet",
    "warehouse": "Warehouse",
}
"""Name of a domain, which is also its module beside this one, and its class. The order is that of suites and tables."""

EXTRAS: frozenset[str] = frozenset({"recommender", "warehouse"})
"""Domains beside the standard fifteen: registered and tested like the others, part of an experiment only if named."""
