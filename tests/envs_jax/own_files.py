"""The example files of docs/own_data.md and the environments that they make."""

import pathlib

import envs_jax

FOLDER = pathlib.Path(__file__).parents[2] / "docs" / "examples" / "data"
FILES = {
    "air_traffic": {"instance": "airland1.txt"},
    "manufacturing": {"instance": "ft06.txt"},
    "smart_grid": {"case": "case14.m", "demand": "rts_winter_weekday.csv"},
    "maritime": {"topology": "cim_toy_4p.yml"},
    "energy_trading": {"prices": "pjm_rt_lmp.csv"},
    "supply_chain": {"demand": "beer_game.csv"},
    "vehicle_fleet": {"demand": "san_francisco_trips.csv", "driving": "san_francisco_driving.csv"},
}


def made(name, **changes):
    return envs_jax.make(name, **{field: FOLDER / file for field, file in FILES[name].items()} | changes)
