"""Daemon for industrial gateways: MQTT sensor events in, inference on the spot, durable results out."""

__version__ = "0.1.0"
