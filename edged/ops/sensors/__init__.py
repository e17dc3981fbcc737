"""What the box says about its health: small readers of /sys, /proc and NVML; what it does not say is None.

`report.read_devices` reads everything once, `report.readings` flattens it for status and metrics, `facts.facts` says
what of it presses on the gateway. `root` replaces / everywhere. No reader raises for what a box lacks, and each reads a
bounded number of small files. A driver can still keep a read waiting for ever (a sick I2C bus, a lost GPU, a disk that
is gone): call these functions from a thread or a child process, never on the loop.
"""
