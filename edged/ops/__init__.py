"""The rim to the host: clock, systemd, metrics, status socket, logs. Only this folder asks for the time."""
