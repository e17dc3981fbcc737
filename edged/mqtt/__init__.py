"""Bytes to messages and back: codecs (pure), session state (pure), and the link that waits and writes."""
