-- Every statement about notifications, by name.

-- name: take
-- These audit entries count as announced, and what is owed for them waits; for those that were announced before, nothing.
WITH seen AS (
    UPDATE audit SET announced_at = clock_timestamp()
    WHERE entry_id = ANY($1::text[]) AND announced_at IS NULL
    RETURNING entry_id, sequence
)
INSERT INTO notifications (channel, thread, sequence, message, document)
SELECT owed.channel, owed.thread, seen.sequence, owed.message, owed.document::json
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS owed (channel, thread, message, document)
JOIN seen ON seen.entry_id = owed.message
ORDER BY seen.sequence, owed.channel
ON CONFLICT (channel, message) DO NOTHING

-- name: waiting
-- The oldest of each thread that does not rest, in order.
SELECT thread, message, document, attempts,
    extract(epoch FROM clock_timestamp() - taken_at)::float8 AS waited_seconds
FROM (
    SELECT *, row_number() OVER (PARTITION BY thread ORDER BY sequence) AS place FROM notifications
    WHERE channel = $1 AND died_at IS NULL AND thread <> ALL($2::text[])
) AS ranked
WHERE place <= $3
ORDER BY sequence LIMIT $4

-- name: told
-- The channel has taken these.
DELETE FROM notifications WHERE channel = $1 AND message = ANY($2::text[])

-- name: failed
-- One attempt more.
UPDATE notifications SET attempts = attempts + 1, why = $3 WHERE channel = $1 AND message = $2 AND died_at IS NULL

-- name: bury
-- The channel will never take this one.
UPDATE notifications SET attempts = attempts + 1, why = $3, died_at = clock_timestamp()
WHERE channel = $1 AND message = $2 AND died_at IS NULL

-- name: give_up
-- What a channel that is not there did not take in time.
UPDATE notifications SET why = $3, died_at = clock_timestamp()
WHERE channel = $1 AND died_at IS NULL AND taken_at < clock_timestamp() - make_interval(secs => $2)
RETURNING message

-- name: backlog
-- What is left to each channel.
SELECT channel, count(*) FILTER (WHERE died_at IS NULL) AS waiting,
    coalesce(
        extract(epoch FROM clock_timestamp() - min(taken_at) FILTER (WHERE died_at IS NULL)), 0
    )::float8 AS oldest_waiting_seconds,
    count(*) FILTER (WHERE died_at IS NOT NULL) AS dead,
    coalesce((array_agg(why ORDER BY sequence) FILTER (WHERE died_at IS NULL AND why <> ''))[1], '') AS why
FROM notifications GROUP BY channel ORDER BY channel

-- name: shed_waiting
-- Beyond so many of a channel, the oldest that wait are dead letters.
UPDATE notifications SET why = $2, died_at = clock_timestamp()
WHERE id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY channel ORDER BY sequence DESC) AS place
        FROM notifications WHERE died_at IS NULL
    ) AS ranked WHERE place > $1
)
RETURNING channel

-- name: drop_dead
-- Beyond so many of a channel, the dead letters of the oldest messages are dropped.
DELETE FROM notifications
WHERE id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY channel ORDER BY sequence DESC) AS place
        FROM notifications WHERE died_at IS NOT NULL
    ) AS ranked WHERE place > $1
)
RETURNING channel

-- name: dead
-- Dead letters in order, of one channel when it is named.
SELECT id, channel, died_at, attempts, why, document FROM notifications
WHERE died_at IS NOT NULL AND id > $1 AND ($2::text IS NULL OR channel = $2)
ORDER BY id LIMIT $3

-- name: redeliver
-- Dead letters that are to be tried again, as if they had just been taken.
UPDATE notifications SET died_at = NULL, attempts = 0, why = '', taken_at = clock_timestamp()
WHERE died_at IS NOT NULL AND ($1::bigint[] IS NULL OR id = ANY($1)) AND ($2::text IS NULL OR channel = $2)
RETURNING id, channel, message

-- name: discard
-- Dead letters that nobody needs.
DELETE FROM notifications
WHERE died_at IS NOT NULL AND ($1::bigint[] IS NULL OR id = ANY($1)) AND ($2::text IS NULL OR channel = $2)
RETURNING id, channel, message

-- name: append_audit
-- What a person did with them.
SELECT append_audit($1, $2, NULL, NULL)
