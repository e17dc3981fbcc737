"""The schema in SQLite, as migrations: the same tables and views as in PostgreSQL, times as Unix ms in the tables."""

from __future__ import annotations

_TABLES = """
CREATE TABLE receiver (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    id TEXT NOT NULL,
    made_at INTEGER NOT NULL DEFAULT (unixepoch() * 1000)
);

CREATE TABLE gateway (
    id INTEGER PRIMARY KEY,
    site TEXT NOT NULL CHECK (length(site) <= 128),
    gateway TEXT NOT NULL CHECK (length(gateway) <= 128),
    UNIQUE (site, gateway)
);

CREATE TABLE stream (
    id INTEGER PRIMARY KEY,
    gateway_id INTEGER NOT NULL,
    epoch TEXT NOT NULL CHECK (length(epoch) <= 128),
    stream TEXT NOT NULL,
    base INTEGER NOT NULL,
    upto INTEGER NOT NULL,
    ranges TEXT NOT NULL DEFAULT '[]',
    newest INTEGER NOT NULL,
    announced INTEGER NOT NULL DEFAULT 0,
    rows INTEGER NOT NULL DEFAULT 0,
    tombstoned INTEGER NOT NULL DEFAULT 0,
    quarantined INTEGER NOT NULL DEFAULT 0,
    late INTEGER NOT NULL DEFAULT 0,
    batches INTEGER NOT NULL DEFAULT 0,
    updated_at INTEGER NOT NULL DEFAULT (unixepoch() * 1000),
    UNIQUE (gateway_id, epoch, stream)
);

CREATE TABLE context (
    id INTEGER PRIMARY KEY,
    pipeline TEXT NOT NULL,
    model TEXT NOT NULL,
    model_version TEXT NOT NULL,
    model_sha256 TEXT NOT NULL,
    runtime TEXT NOT NULL,
    mode TEXT NOT NULL,
    degraded INTEGER NOT NULL,
    clock TEXT NOT NULL,
    boot TEXT NOT NULL,
    arrival_is_ts INTEGER NOT NULL
);

CREATE TABLE result (
    stream_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    context_id INTEGER NOT NULL,
    event_seq INTEGER NOT NULL,
    in_seq INTEGER,
    produced_ms INTEGER NOT NULL,
    mono_ns INTEGER NOT NULL,
    queue_us INTEGER NOT NULL,
    infer_us INTEGER NOT NULL,
    score REAL,
    quality INTEGER NOT NULL,
    device TEXT NOT NULL,
    topic TEXT NOT NULL,
    label TEXT,
    "values" TEXT,
    reasons TEXT NOT NULL,
    PRIMARY KEY (stream_id, seq)
) WITHOUT ROWID;
CREATE INDEX result_ts ON result (ts);

CREATE TABLE event (
    stream_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    in_seq INTEGER,
    arrival_ms INTEGER NOT NULL,
    mono_ns INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    source TEXT NOT NULL,
    device TEXT NOT NULL,
    topic TEXT NOT NULL,
    sensor_boot TEXT,
    boot TEXT NOT NULL,
    clock TEXT NOT NULL,
    payload TEXT NOT NULL,
    PRIMARY KEY (stream_id, seq)
) WITHOUT ROWID;
CREATE INDEX event_ts ON event (ts);

CREATE TABLE record (
    stream_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    kind TEXT NOT NULL,
    mono_ns INTEGER NOT NULL,
    boot TEXT NOT NULL,
    clock TEXT NOT NULL,
    payload TEXT NOT NULL,
    PRIMARY KEY (stream_id, seq)
) WITHOUT ROWID;
CREATE INDEX record_kind ON record (kind, ts);

CREATE TABLE clock (
    stream_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    gateway_id INTEGER NOT NULL,
    boot TEXT NOT NULL,
    mono_ns INTEGER NOT NULL,
    offset_ns INTEGER NOT NULL,
    err_ns INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL,
    PRIMARY KEY (stream_id, seq)
) WITHOUT ROWID;
CREATE INDEX clock_boot ON clock (gateway_id, boot, mono_ns);

CREATE TABLE tombstone (
    stream_id INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    batch_first INTEGER NOT NULL,
    batch_last INTEGER NOT NULL,
    reason TEXT NOT NULL,
    ts INTEGER NOT NULL,
    boot TEXT NOT NULL,
    clock TEXT NOT NULL,
    interval_s INTEGER NOT NULL,
    received_at INTEGER NOT NULL DEFAULT (unixepoch() * 1000),
    PRIMARY KEY (stream_id, first)
) WITHOUT ROWID;

CREATE TABLE summary (
    stream_id INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    item INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    interval_s INTEGER NOT NULL,
    name TEXT NOT NULL,
    device TEXT NOT NULL,
    n INTEGER NOT NULL,
    worst INTEGER NOT NULL,
    score_n INTEGER,
    score_min REAL,
    score_max REAL,
    score_mean REAL,
    "values" TEXT NOT NULL,
    labels TEXT NOT NULL,
    PRIMARY KEY (stream_id, first, last, item)
) WITHOUT ROWID;

CREATE TABLE quarantine (
    stream_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    reason TEXT NOT NULL,
    raw TEXT NOT NULL,
    received_at INTEGER NOT NULL DEFAULT (unixepoch() * 1000),
    PRIMARY KEY (stream_id, seq)
) WITHOUT ROWID;
"""

_RFC3339 = "strftime('%Y-%m-%dT%H:%M:%fZ', ({}) / 1000.0, 'unixepoch')"


def _at(milliseconds: str) -> str:
    """Unix ms as text, as it stands in the published payloads."""
    return _RFC3339.format(milliseconds)


_RESULT_TS = """CASE WHEN c.clock = 'synced' OR NOT (c.arrival_is_ts OR r.reasons LIKE '%"ts_arrival"%') THEN r.ts
            ELSE r.ts + (r.mono_ns + k.offset_ns) / 1000000 - r.produced_ms END"""
_RESULT_PRODUCED = "CASE WHEN c.clock = 'synced' THEN r.produced_ms ELSE (r.mono_ns + k.offset_ns) / 1000000 END"
_EVENT_TS = """CASE WHEN e.clock = 'synced' OR e.flags & 1 = 0 THEN e.ts
            ELSE e.ts + (e.mono_ns + k.offset_ns) / 1000000 - e.arrival_ms END"""
_RECORD_TS = "CASE WHEN r.clock = 'synced' THEN r.ts ELSE (r.mono_ns + k.offset_ns) / 1000000 END"

_VIEWS = f"""
-- From when to when, on the monotonic clock of a boot, a correction counts: the first one for all before it, too.
CREATE VIEW clock_span AS
SELECT gateway_id, boot, offset_ns, err_ns,
       CASE WHEN lag(mono_ns) OVER w IS NULL THEN -9223372036854775807 ELSE mono_ns END AS from_ns,
       coalesce(lead(mono_ns) OVER w, 9223372036854775807) AS until_ns
FROM clock WINDOW w AS (PARTITION BY gateway_id, boot ORDER BY mono_ns, stream_id, seq);

CREATE VIEW results AS
SELECT g.site, g.gateway, s.epoch, r.seq, {_at("r.ts")} AS ts, {_at(_RESULT_TS)} AS ts_corrected,
       r.device, c.pipeline, r.label, r.score, r."values", r.quality, r.reasons AS quality_reasons,
       {_at("r.produced_ms")} AS produced, {_at(_RESULT_PRODUCED)} AS produced_corrected,
       r.topic AS input_topic, r.in_seq AS input_seq, r.event_seq AS input_event, r.produced_ms - r.ts AS age_ms,
       r.queue_us / 1000.0 AS queue_ms, r.infer_us / 1000.0 AS infer_ms,
       (r.queue_us + r.infer_us) / 1000.0 AS total_ms,
       c.model, c.model_version, c.model_sha256, c.runtime, c.mode, c.degraded,
       c.boot, r.mono_ns, c.clock, c.arrival_is_ts, k.err_ns AS clock_err_ns,
       s.epoch || '-' || r.seq AS id, r.ts AS ts_ms
FROM result r
JOIN stream s ON s.id = r.stream_id
JOIN gateway g ON g.id = s.gateway_id
JOIN context c ON c.id = r.context_id
LEFT JOIN clock_span k ON c.clock <> 'synced' AND k.gateway_id = s.gateway_id AND k.boot = c.boot
    AND r.mono_ns >= k.from_ns AND r.mono_ns < k.until_ns;

CREATE VIEW telemetry AS
SELECT g.site, g.gateway, s.epoch, e.seq, {_at("e.ts")} AS ts, {_at(_EVENT_TS)} AS ts_corrected,
       e.source, e.device, e.topic, e.in_seq AS input_seq, e.sensor_boot, e.payload,
       {_at("e.arrival_ms")} AS arrived, e.flags & 1 AS ts_is_arrival, e.boot, e.mono_ns, e.clock, e.ts AS ts_ms
FROM event e
JOIN stream s ON s.id = e.stream_id
JOIN gateway g ON g.id = s.gateway_id
LEFT JOIN clock_span k ON e.clock <> 'synced' AND k.gateway_id = s.gateway_id AND k.boot = e.boot
    AND e.mono_ns >= k.from_ns AND e.mono_ns < k.until_ns;

-- json_valid: SQLite takes apart JSON of 1000 levels at most, and fails the whole query over a deeper one.
CREATE VIEW records AS
SELECT g.site, g.gateway, s.epoch, s.stream, r.seq, {_at("r.ts")} AS ts, {_at(_RECORD_TS)} AS ts_corrected,
       r.kind, CASE WHEN json_valid(r.payload) THEN r.payload END AS payload, r.boot, r.mono_ns, r.clock,
       r.ts AS ts_ms
FROM record r
JOIN stream s ON s.id = r.stream_id
JOIN gateway g ON g.id = s.gateway_id
LEFT JOIN clock_span k ON r.clock <> 'synced' AND k.gateway_id = s.gateway_id AND k.boot = r.boot
    AND r.mono_ns >= k.from_ns AND r.mono_ns < k.until_ns;

CREATE VIEW alarms AS
SELECT site, gateway, epoch, seq, ts, ts_corrected, json_extract(payload, '$.device') AS device,
       json_extract(payload, '$.code') AS code, json_extract(payload, '$.state') AS state,
       json_extract(payload, '$.severity') AS severity, json_extract(payload, '$.since') AS since,
       json_extract(payload, '$.ts') AS event_ts, json_extract(payload, '$.pipeline') AS pipeline,
       json_extract(payload, '$.label') AS label, json_extract(payload, '$.score') AS score, boot, mono_ns, clock, ts_ms
FROM records WHERE kind = 'alarm';

CREATE VIEW modes AS
SELECT site, gateway, epoch, seq, ts, ts_corrected, json_extract(payload, '$.mode') AS mode,
       json_extract(payload, '$.since') AS since, json_extract(payload, '$.reasons') AS reasons, boot, mono_ns, clock,
       ts_ms
FROM records WHERE kind = 'mode';

CREATE VIEW gaps AS
SELECT site, gateway, epoch, seq, ts, ts_corrected, json_extract(payload, '$.device') AS device,
       json_extract(payload, '$.kind') AS kind, json_extract(payload, '$.from') AS from_seq,
       json_extract(payload, '$.to') AS to_seq, json_extract(payload, '$.count') AS count, boot, mono_ns, clock, ts_ms
FROM records WHERE kind = 'gap';

CREATE VIEW clocks AS
SELECT g.site, g.gateway, s.epoch, k.seq, {_at("k.wall_ms")} AS ts, {_at("k.wall_ms")} AS ts_corrected,
       k.boot, k.mono_ns, k.offset_ns, k.err_ns
FROM clock k JOIN stream s ON s.id = k.stream_id JOIN gateway g ON g.id = s.gateway_id;

CREATE VIEW tombstones AS
SELECT g.site, g.gateway, s.epoch, s.stream, t.first AS seq, t.last AS last_seq, t.last - t.first + 1 AS rows,
       {_at("t.ts")} AS ts, CASE WHEN t.clock = 'synced' THEN {_at("t.ts")} END AS ts_corrected, t.reason,
       t.interval_s, t.batch_first AS summary_first, t.batch_last AS summary_last, t.boot, t.clock,
       {_at("t.received_at")} AS received_at
FROM tombstone t JOIN stream s ON s.id = t.stream_id JOIN gateway g ON g.id = s.gateway_id;

CREATE VIEW summaries AS
SELECT g.site, g.gateway, s.epoch, s.stream, u.first AS seq, u.last AS last_seq, {_at("u.ts")} AS ts,
       CASE WHEN EXISTS (
           SELECT 1 FROM tombstone t WHERE t.stream_id = u.stream_id AND t.first BETWEEN u.first AND u.last
               AND t.batch_first = u.first AND t.batch_last = u.last AND t.clock = 'synced'
       ) THEN {_at("u.ts")} END AS ts_corrected,
       u.interval_s, u.name, u.device, u.n, u.worst, u.score_n, u.score_min, u.score_max, u.score_mean,
       u."values", u.labels
FROM summary u JOIN stream s ON s.id = u.stream_id JOIN gateway g ON g.id = s.gateway_id;

CREATE VIEW quarantined AS
SELECT g.site, g.gateway, s.epoch, s.stream, q.seq, q.reason, q.raw, {_at("q.received_at")} AS received_at
FROM quarantine q JOIN stream s ON s.id = q.stream_id JOIN gateway g ON g.id = s.gateway_id;

CREATE VIEW ledger AS
SELECT g.site, g.gateway, s.epoch, s.stream, s.base, s.upto, s.ranges,
       max(s.newest, s.announced) - s.base + 1 AS made, s.rows, s.tombstoned, s.quarantined,
       max(s.newest, s.announced) - s.base + 1 - s.rows - s.tombstoned - s.quarantined AS missing,
       s.late, s.batches, {_at("s.updated_at")} AS updated_at
FROM stream s JOIN gateway g ON g.id = s.gateway_id;
"""  # noqa: S608  # nothing from outside is in it

MIGRATIONS: tuple[str, ...] = (_TABLES + _VIEWS,)
"""Migration i makes schema version i + 1."""

VERSION = len(MIGRATIONS)
