"""`edged-sync/1`: what the gateway and the hub must agree on. Pure: formats, ranges, the sender's decisions."""
