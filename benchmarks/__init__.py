"""`make bench`: what the daemon costs, against a C echo, Node-RED and a naive Python daemon on the same broker.

Start at `run.py`; `figures.py` holds the table with its limits; each contestant is one file in `contestants/`.
"""
