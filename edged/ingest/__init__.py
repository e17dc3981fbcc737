"""Messages → events: routes, decoding, validation, duplicates and gaps. Pure: no clock, no I/O, no logging."""
