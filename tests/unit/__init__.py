"""One folder per folder of edged; no network, no waiting, no disk outside tmp_path."""
