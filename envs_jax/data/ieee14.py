"""The IEEE 14-bus network and daily load shapes, as constants.

Network and costs: MATPOWER's ``case14`` (read, and as PYPOWER 5.1.21 ships it). Line ratings: PGLib-OPF v17.08,
``pglib_opf_case14_ieee.m`` (read). Load shapes: IEEE Reliability Test System, IEEE Trans. Power Apparatus and Systems
PAS-98(6), 1979, table 3 (read in seven public copies that agree, not in the paper).
"""

import numpy as np

BUS_LOAD = np.array([0, 21.7, 94.2, 47.8, 7.6, 11.2, 0, 0, 29.5, 9, 3.5, 6.1, 13.5, 14.9])
"""Peak load by bus, MW; 259 in all."""
_TABLE = """
1-2 .05917, 1-5 .22304, 2-3 .19797, 2-4 .17632, 2-5 .17388, 3-4 .17103, 4-5 .04211, 4-7 .20912*.978, 4-9 .55618*.969,
5-6 .25202*.932, 6-11 .1989, 6-12 .25581, 6-13 .13027, 7-8 .17615, 7-9 .11001, 9-10 .0845, 9-14 .27038, 10-11 .19207,
12-13 .19988, 13-14 .34802"""
_BRANCHES = [branch.split() for branch in _TABLE.split(",")]
LINES = np.array([[int(bus) for bus in ends.split("-")] for ends, _ in _BRANCHES])
"""Start and end bus of each line, counted from 1."""
REACTANCE = np.array([np.prod([float(factor) for factor in x.split("*")]) for _, x in _BRANCHES])
"""Per unit; three lines are transformers: times their tap ratio."""
RATING = np.array([472, 128, 145, 158, 161, 160, 664, 141, 53, 117, 134, 104, 201, 167, 267, 325, 99, 141, 99, 76.0])
"""MW."""
UNIT_BUS, UNIT_MAX = np.array([1, 2, 3, 6, 8]), np.array([332.4, 140, 100, 100, 100])
"""Buses of the thermal units, and their capacities in MW."""
UNIT_COST = np.array([[0.0430293, 20], [0.25, 20], [0.01, 40], [0.01, 40], [0.01, 40]])
"""Costs ``a P^2 + b P`` $/h: rows ``(a, b)``."""
LOAD_SHAPES = np.array(
    [
        (67, 63, 60, 59, 59, 60, 74, 86, 95, 96, 96, 95, 95, 95, 93, 94, 99, 100, 100, 96, 91, 83, 73, 63),
        (78, 72, 68, 66, 64, 65, 66, 70, 80, 88, 90, 91, 90, 88, 87, 87, 91, 100, 99, 97, 94, 92, 87, 81),
        (64, 60, 58, 56, 56, 58, 64, 76, 87, 95, 99, 100, 99, 100, 100, 97, 96, 96, 93, 92, 92, 93, 87, 72),
        (74, 70, 66, 65, 64, 62, 62, 66, 81, 86, 91, 93, 93, 92, 91, 91, 92, 94, 95, 95, 100, 93, 88, 80),
        (63, 62, 60, 58, 59, 65, 72, 85, 95, 99, 100, 99, 93, 92, 90, 88, 90, 92, 96, 98, 96, 90, 80, 70),
        (75, 73, 69, 66, 65, 65, 68, 74, 83, 89, 92, 94, 91, 90, 90, 86, 85, 88, 92, 100, 97, 95, 90, 85),
    ]
)
"""Hourly load in percent of the daily peak: winter, summer, spring and autumn; weekday before weekend."""
