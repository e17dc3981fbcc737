"""The real thing on the other side: mosquitto, SQLite, onnxruntime, a child process."""
