"""A plant to play with: simulated pumps, a broker of its own, the daemon, and what SCADA would see of it."""
