"""The way home: a process of its own that reads the store and brings what is new to the hub."""
