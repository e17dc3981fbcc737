"""The schema in PostgreSQL, as migrations: a published one is never changed, the next one is added."""

from __future__ import annotations

_TABLES = """
CREATE TABLE receiver (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    made_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO receiver DEFAULT VALUES;

CREATE TABLE gateway (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    site text NOT NULL CHECK (length(site) <= 128),
    gateway text NOT NULL CHECK (length(gateway) <= 128),
    UNIQUE (site, gateway)
);

CREATE TABLE stream (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    gateway_id int NOT NULL REFERENCES gateway,
    epoch text NOT NULL CHECK (length(epoch) <= 128),
    stream text NOT NULL,
    base bigint NOT NULL,
    upto bigint NOT NULL,
    ranges jsonb NOT NULL DEFAULT '[]',
    newest bigint NOT NULL,
    announced bigint NOT NULL DEFAULT 0,
    rows bigint NOT NULL DEFAULT 0,
    tombstoned bigint NOT NULL DEFAULT 0,
    quarantined bigint NOT NULL DEFAULT 0,
    late bigint NOT NULL DEFAULT 0,
    batches bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (gateway_id, epoch, stream)
) WITH (fillfactor = 50);

CREATE TABLE context (
    id bigint PRIMARY KEY,
    pipeline text NOT NULL,
    model text NOT NULL,
    model_version text NOT NULL,
    model_sha256 text NOT NULL,
    runtime text NOT NULL,
    mode text NOT NULL,
    degraded boolean NOT NULL,
    clock text NOT NULL,
    boot text NOT NULL,
    arrival_is_ts boolean NOT NULL
);

CREATE TABLE result (
    stream_id int NOT NULL,
    seq bigint NOT NULL,
    ts timestamptz NOT NULL,
    context_id bigint NOT NULL,
    event_seq bigint NOT NULL,
    in_seq bigint,
    produced_ms bigint NOT NULL,
    mono_ns bigint NOT NULL,
    queue_us bigint NOT NULL,
    infer_us bigint NOT NULL,
    score double precision,
    quality smallint NOT NULL,
    device text NOT NULL,
    topic text NOT NULL,
    label text,
    values json,
    reasons jsonb NOT NULL,
    PRIMARY KEY (stream_id, seq, ts)
);
CREATE INDEX result_ts ON result USING brin (ts);

CREATE TABLE event (
    stream_id int NOT NULL,
    seq bigint NOT NULL,
    ts timestamptz NOT NULL,
    in_seq bigint,
    arrival_ms bigint NOT NULL,
    mono_ns bigint NOT NULL,
    flags smallint NOT NULL,
    source text NOT NULL,
    device text NOT NULL,
    topic text NOT NULL,
    sensor_boot text,
    boot text NOT NULL,
    clock text NOT NULL,
    payload json NOT NULL,
    PRIMARY KEY (stream_id, seq, ts)
);
CREATE INDEX event_ts ON event USING brin (ts);

CREATE TABLE record (
    stream_id int NOT NULL,
    seq bigint NOT NULL,
    ts timestamptz NOT NULL,
    kind text NOT NULL,
    mono_ns bigint NOT NULL,
    boot text NOT NULL,
    clock text NOT NULL,
    payload json NOT NULL,
    PRIMARY KEY (stream_id, seq, ts)
);
CREATE INDEX record_kind ON record (kind, ts);

CREATE TABLE clock (
    stream_id int NOT NULL,
    seq bigint NOT NULL,
    gateway_id int NOT NULL,
    boot text NOT NULL,
    mono_ns bigint NOT NULL,
    offset_ns bigint NOT NULL,
    err_ns bigint NOT NULL,
    wall_ms bigint NOT NULL,
    PRIMARY KEY (stream_id, seq)
);
CREATE INDEX clock_boot ON clock (gateway_id, boot, mono_ns);

CREATE TABLE tombstone (
    stream_id int NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    batch_first bigint NOT NULL,
    batch_last bigint NOT NULL,
    reason text NOT NULL,
    ts timestamptz NOT NULL,
    boot text NOT NULL,
    clock text NOT NULL,
    interval_s bigint NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream_id, first)
);

CREATE TABLE summary (
    stream_id int NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    item int NOT NULL,
    ts timestamptz NOT NULL,
    interval_s bigint NOT NULL,
    name text NOT NULL,
    device text NOT NULL,
    n bigint NOT NULL,
    worst bigint NOT NULL,
    score_n bigint,
    score_min double precision,
    score_max double precision,
    score_mean double precision,
    values json NOT NULL,
    labels json NOT NULL,
    PRIMARY KEY (stream_id, first, last, item)
);

CREATE TABLE quarantine (
    stream_id int NOT NULL,
    seq bigint NOT NULL,
    reason text NOT NULL,
    raw text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream_id, seq)
);
"""

# A payload is what a gateway wrote: one that holds no time where a time belongs must not fail everybody's query.
_FUNCTIONS = """
CREATE FUNCTION edged_ms(ms bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT timestamptz 'epoch' + ms * interval '1 millisecond' $$;

CREATE FUNCTION edged_time(said text) RETURNS timestamptz LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RETURN said::timestamptz;
EXCEPTION WHEN others THEN
    RETURN NULL;
END $$;

CREATE FUNCTION edged_number(said text) RETURNS double precision LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN said::double precision;
EXCEPTION WHEN others THEN
    RETURN NULL;
END $$;

CREATE FUNCTION edged_integer(said text) RETURNS bigint LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN said::bigint;
EXCEPTION WHEN others THEN
    RETURN NULL;
END $$;
"""

_RESULTS = """
-- From when to when, on the monotonic clock of a boot, a correction counts: the first one for all before it, too.
CREATE VIEW clock_span AS
SELECT gateway_id, boot, offset_ns, err_ns,
       CASE WHEN lag(mono_ns) OVER w IS NULL THEN -9223372036854775807 ELSE mono_ns END AS from_ns,
       coalesce(lead(mono_ns) OVER w, 9223372036854775807) AS until_ns
FROM clock WINDOW w AS (PARTITION BY gateway_id, boot ORDER BY mono_ns, stream_id, seq);

CREATE VIEW results AS
SELECT g.site, g.gateway, s.epoch, r.seq, r.ts,
       CASE WHEN c.clock = 'synced' OR NOT (c.arrival_is_ts OR r.reasons ? 'ts_arrival') THEN r.ts
            ELSE r.ts + ((r.mono_ns + k.offset_ns) / 1000000 - r.produced_ms) * interval '1 millisecond'
       END AS ts_corrected,
       r.device, c.pipeline, r.label, r.score, r.values, r.quality, r.reasons AS quality_reasons,
       edged_ms(r.produced_ms) AS produced,
       CASE WHEN c.clock = 'synced' THEN edged_ms(r.produced_ms)
            ELSE edged_ms((r.mono_ns + k.offset_ns) / 1000000)
       END AS produced_corrected,
       r.topic AS input_topic, r.in_seq AS input_seq, r.event_seq AS input_event,
       r.produced_ms - (extract(epoch FROM r.ts) * 1000)::bigint AS age_ms,
       r.queue_us / 1000.0::double precision AS queue_ms, r.infer_us / 1000.0::double precision AS infer_ms,
       (r.queue_us + r.infer_us) / 1000.0::double precision AS total_ms,
       c.model, c.model_version, c.model_sha256, c.runtime, c.mode, c.degraded,
       c.boot, r.mono_ns, c.clock, c.arrival_is_ts, k.err_ns AS clock_err_ns,
       s.epoch || '-' || r.seq AS id
FROM result r
JOIN stream s ON s.id = r.stream_id
JOIN gateway g ON g.id = s.gateway_id
JOIN context c ON c.id = r.context_id
LEFT JOIN clock_span k ON c.clock <> 'synced' AND k.gateway_id = s.gateway_id AND k.boot = c.boot
    AND r.mono_ns >= k.from_ns AND r.mono_ns < k.until_ns;

CREATE VIEW telemetry AS
SELECT g.site, g.gateway, s.epoch, e.seq, e.ts,
       CASE WHEN e.clock = 'synced' OR e.flags & 1 = 0 THEN e.ts
            ELSE e.ts + ((e.mono_ns + k.offset_ns) / 1000000 - e.arrival_ms) * interval '1 millisecond'
       END AS ts_corrected,
       e.source, e.device, e.topic, e.in_seq AS input_seq, e.sensor_boot, e.payload,
       edged_ms(e.arrival_ms) AS arrived, e.flags & 1 = 1 AS ts_is_arrival, e.boot, e.mono_ns, e.clock
FROM event e
JOIN stream s ON s.id = e.stream_id
JOIN gateway g ON g.id = s.gateway_id
LEFT JOIN clock_span k ON e.clock <> 'synced' AND k.gateway_id = s.gateway_id AND k.boot = e.boot
    AND e.mono_ns >= k.from_ns AND e.mono_ns < k.until_ns;
"""

_RECORDS = """
CREATE VIEW records AS
SELECT g.site, g.gateway, s.epoch, s.stream, r.seq, r.ts,
       CASE WHEN r.clock = 'synced' THEN r.ts ELSE edged_ms((r.mono_ns + k.offset_ns) / 1000000) END AS ts_corrected,
       r.kind, r.payload, r.boot, r.mono_ns, r.clock
FROM record r
JOIN stream s ON s.id = r.stream_id
JOIN gateway g ON g.id = s.gateway_id
LEFT JOIN clock_span k ON r.clock <> 'synced' AND k.gateway_id = s.gateway_id AND k.boot = r.boot
    AND r.mono_ns >= k.from_ns AND r.mono_ns < k.until_ns;

CREATE VIEW alarms AS
SELECT site, gateway, epoch, seq, ts, ts_corrected, payload->>'device' AS device, payload->>'code' AS code,
       payload->>'state' AS state, payload->>'severity' AS severity, edged_time(payload->>'since') AS since,
       edged_time(payload->>'ts') AS event_ts, payload->>'pipeline' AS pipeline, payload->>'label' AS label,
       edged_number(payload->>'score') AS score, boot, mono_ns, clock
FROM records WHERE kind = 'alarm';

CREATE VIEW modes AS
SELECT site, gateway, epoch, seq, ts, ts_corrected, payload->>'mode' AS mode,
       edged_time(payload->>'since') AS since, payload->'reasons' AS reasons, boot, mono_ns, clock
FROM records WHERE kind = 'mode';

CREATE VIEW gaps AS
SELECT site, gateway, epoch, seq, ts, ts_corrected, payload->>'device' AS device, payload->>'kind' AS kind,
       edged_integer(payload->>'from') AS from_seq, edged_integer(payload->>'to') AS to_seq,
       edged_integer(payload->>'count') AS count, boot, mono_ns, clock
FROM records WHERE kind = 'gap';

CREATE VIEW clocks AS
SELECT g.site, g.gateway, s.epoch, k.seq, edged_ms(k.wall_ms) AS ts, edged_ms(k.wall_ms) AS ts_corrected,
       k.boot, k.mono_ns, k.offset_ns, k.err_ns
FROM clock k JOIN stream s ON s.id = k.stream_id JOIN gateway g ON g.id = s.gateway_id;
"""

_LOSSES = """
CREATE VIEW tombstones AS
SELECT g.site, g.gateway, s.epoch, s.stream, t.first AS seq, t.last AS last_seq, t.last - t.first + 1 AS rows,
       t.ts, CASE WHEN t.clock = 'synced' THEN t.ts END AS ts_corrected, t.reason, t.interval_s,
       t.batch_first AS summary_first, t.batch_last AS summary_last, t.boot, t.clock, t.received_at
FROM tombstone t JOIN stream s ON s.id = t.stream_id JOIN gateway g ON g.id = s.gateway_id;

CREATE VIEW summaries AS
SELECT g.site, g.gateway, s.epoch, s.stream, u.first AS seq, u.last AS last_seq, u.ts,
       CASE WHEN EXISTS (
           SELECT FROM tombstone t WHERE t.stream_id = u.stream_id AND t.first BETWEEN u.first AND u.last
               AND t.batch_first = u.first AND t.batch_last = u.last AND t.clock = 'synced'
       ) THEN u.ts END AS ts_corrected,
       u.interval_s, u.name, u.device, u.n, u.worst, u.score_n, u.score_min, u.score_max, u.score_mean,
       u.values, u.labels
FROM summary u JOIN stream s ON s.id = u.stream_id JOIN gateway g ON g.id = s.gateway_id;

CREATE VIEW quarantined AS
SELECT g.site, g.gateway, s.epoch, s.stream, q.seq, q.reason, q.raw, q.received_at
FROM quarantine q JOIN stream s ON s.id = q.stream_id JOIN gateway g ON g.id = s.gateway_id;

CREATE VIEW ledger AS
SELECT g.site, g.gateway, s.epoch, s.stream, s.base, s.upto, s.ranges,
       greatest(s.newest, s.announced) - s.base + 1 AS made, s.rows, s.tombstoned, s.quarantined,
       greatest(s.newest, s.announced) - s.base + 1 - s.rows - s.tombstoned - s.quarantined AS missing,
       s.late, s.batches, s.updated_at
FROM stream s JOIN gateway g ON g.id = s.gateway_id;
"""

MIGRATIONS: tuple[str, ...] = (_TABLES + _FUNCTIONS + _RESULTS + _RECORDS + _LOSSES,)
"""Migration i makes schema version i + 1."""

VERSION = len(MIGRATIONS)

HYPERTABLES = ("result", "event")
TIMESCALE_AVAILABLE = "SELECT count(*) > 0 FROM pg_available_extensions WHERE name = 'timescaledb'"
TIMESCALE_MAKE = "CREATE EXTENSION IF NOT EXISTS timescaledb"
TIMESCALE_CHUNKS = """
SELECT create_hypertable('{table}', 'ts', chunk_time_interval => interval '7 days', create_default_indexes => false)
"""
