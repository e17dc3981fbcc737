"""Power cuts, dead brokers, full disks, jumping clocks: what is left behind is what is asserted."""
