"""Arrays in, arrays out: model files, runtimes (one file per vendor), the chain of runtimes, lanes for slow models."""
