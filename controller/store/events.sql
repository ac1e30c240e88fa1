-- Every statement about events, by name.

-- name: take_deliveries
-- Those that were not counted before are taken.
INSERT INTO event_deliveries (id) SELECT unnest($1::bytea[]) ON CONFLICT DO NOTHING RETURNING id

-- name: present_slot
-- The slot of time that it is now.
SELECT date_bin(make_interval(secs => $1), clock_timestamp(), timestamptz '2000-01-01 00:00:00+00')

-- name: add_counts
-- Add to what this replica counted in the slot.
INSERT INTO event_counts AS present
    (slot, replica, environment, flag, event, variation, cohort, exposure, bucket, count, contexts)
SELECT $1, $2, * FROM unnest(
    $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::integer[], $9::smallint[], $10::bigint[],
    $11::bytea[]
)
ON CONFLICT (flag, event, slot, environment, variation, cohort, exposure, bucket, replica) DO UPDATE
SET count = present.count + excluded.count,
    contexts = present.contexts || excluded.contexts,
    counted_at = clock_timestamp()

-- name: counts
-- What was counted of these events in the window, as far as it was counted without a gap.
SELECT c.environment, c.flag, c.event, c.variation, c.cohort, c.exposure, c.bucket, sum(c.count)::bigint AS count,
    ''::bytea AS contexts, extract(epoch FROM clock_timestamp() - max(c.counted_at))::float8 AS age_seconds
FROM unnest($1::text[], $2::text[]) AS asked (flag, event)
JOIN (SELECT flag, max(since) AS since FROM event_watches GROUP BY flag) w ON w.flag = asked.flag
JOIN event_counts c ON c.flag = asked.flag AND c.event = asked.event
    AND c.slot >= clock_timestamp() - make_interval(secs => $3) AND c.slot >= w.since
LEFT JOIN event_gaps g ON g.environment = c.environment
WHERE g.until IS NULL OR c.slot >= g.until
GROUP BY c.environment, c.flag, c.event, c.variation, c.cohort, c.exposure, c.bucket

-- name: contexts
-- Whom these events happened to in the window, as far as it was counted without a gap.
SELECT c.environment, c.flag, c.event, c.variation, c.cohort, c.exposure, c.bucket, c.count, c.contexts,
    extract(epoch FROM clock_timestamp() - c.counted_at)::float8 AS age_seconds
FROM unnest($1::text[], $2::text[]) AS asked (flag, event)
JOIN (SELECT flag, max(since) AS since FROM event_watches GROUP BY flag) w ON w.flag = asked.flag
JOIN event_counts c ON c.flag = asked.flag AND c.event = asked.event
    AND c.slot >= clock_timestamp() - make_interval(secs => $3) AND c.slot >= w.since
LEFT JOIN event_gaps g ON g.environment = c.environment
WHERE c.contexts <> '' AND (g.until IS NULL OR c.slot >= g.until)

-- name: watch
-- Somebody asks for these; what nobody asked for before is counted by all replicas a moment later.
INSERT INTO event_watches AS present (flag, metric, since, asked_at)
SELECT flag, metric, clock_timestamp() + make_interval(secs => $3), clock_timestamp()
FROM unnest($1::text[], $2::text[]) AS asked (flag, metric)
ORDER BY flag, metric
ON CONFLICT (flag, metric) DO UPDATE SET asked_at = clock_timestamp()
WHERE present.asked_at < clock_timestamp() - make_interval(secs => 60)

-- name: watches
-- What is counted.
SELECT flag, metric FROM event_watches

-- name: note_gap
-- Deliveries up to now were not counted.
INSERT INTO event_gaps AS present (environment, until, missed) VALUES ($1, clock_timestamp(), $2)
ON CONFLICT (environment) DO UPDATE
SET until = clock_timestamp(), missed = present.missed + excluded.missed

-- name: forget_counts
-- Counts that no window reaches any more.
DELETE FROM event_counts WHERE slot < clock_timestamp() - make_interval(secs => $1)

-- name: forget_deliveries
-- Deliveries that no SDK sends again any more.
DELETE FROM event_deliveries WHERE counted_at < clock_timestamp() - make_interval(secs => $1)

-- name: forget_watches
-- What nobody asked for any more.
DELETE FROM event_watches WHERE asked_at < clock_timestamp() - make_interval(secs => $1)
