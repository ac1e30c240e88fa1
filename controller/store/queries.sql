-- Every statement of the store, by name. Locks are taken in one order everywhere:
-- applies, flag, manifest, run, kill, audit head.

-- name: lock_applies
-- One apply of several documents at a time: before all other locks, until the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('rampart applies', 0))

-- name: lock_manifest
-- Make sure the manifest has a row, lock it, and return its latest revision (0: none yet).
INSERT INTO manifests (kind, name) VALUES ($1, $2)
ON CONFLICT (kind, name) DO UPDATE SET revision = manifests.revision
RETURNING revision

-- name: add_revision
-- The next revision of a locked manifest, with its audit entry.
WITH added AS (
    INSERT INTO manifest_revisions (kind, name, revision, document, author, applied_at)
    VALUES ($1, $2, $3, $4, $5, $6)
    RETURNING revision
), head AS (
    UPDATE manifests SET revision = $3 WHERE kind = $1 AND name = $2
)
SELECT append_audit($7, $8, NULL, NULL) FROM added

-- name: revision
-- One revision of a manifest; the latest when none is named.
SELECT r.document, r.revision, r.author, r.applied_at
FROM manifests m JOIN manifest_revisions r ON r.kind = m.kind AND r.name = m.name
WHERE m.kind = $1 AND m.name = $2 AND r.revision = coalesce($3::integer, m.revision)

-- name: latest_revisions
-- The latest revision of every manifest of a kind.
SELECT m.name, r.document, r.revision, r.author, r.applied_at
FROM manifests m JOIN manifest_revisions r ON r.kind = m.kind AND r.name = m.name AND r.revision = m.revision
WHERE m.kind = $1
ORDER BY m.name

-- name: pinned_revisions
-- The documents that runs are pinned to.
SELECT r.kind, r.name, r.revision, r.document
FROM unnest($1::text[], $2::text[], $3::integer[]) AS pin (kind, name, revision)
JOIN manifest_revisions r ON r.kind = pin.kind AND r.name = pin.name AND r.revision = pin.revision

-- name: lock_flag
-- Make sure the flag has a row, lock it, and return its kill epoch.
INSERT INTO flags (provider, environment, key) VALUES ($1, $2, $3)
ON CONFLICT (provider, environment, key) DO UPDATE SET kill_epoch = flags.kill_epoch
RETURNING kill_epoch

-- name: kills_of_flag
-- Every kill of a flag, and whether it is in force.
SELECT id, reset_at IS NULL AS in_force FROM kills
WHERE provider = $1 AND environment = $2 AND key = $3
ORDER BY kill_epoch

-- name: active_run_of_flag
-- The one run that may turn this flag.
SELECT id FROM runs WHERE provider = $1 AND environment = $2 AND key = $3 AND active

-- name: next_run_number
-- The number of a plan's next run; the plan's manifest is locked.
SELECT coalesce(max(number), 0) + 1 FROM runs WHERE plan = $1

-- name: add_run
-- A new run, due now, with its audit entry.
WITH added AS (
    INSERT INTO runs (id, plan, number, provider, environment, key, phase, version, state, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    RETURNING id, version
)
SELECT append_audit($11, $12, id, version) FROM added

-- name: run
-- A run and its observations.
SELECT r.state, o.document AS observations
FROM runs r LEFT JOIN observations o ON o.run = r.id
WHERE r.id = $1

-- name: latest_run
-- A plan's latest run and its observations.
SELECT r.state, o.document AS observations
FROM runs r LEFT JOIN observations o ON o.run = r.id
WHERE r.plan = $1
ORDER BY r.number DESC LIMIT 1

-- name: latest_runs
-- The latest run of every plan, newest first.
SELECT r.id AS name, r.active, r.provider, r.environment, r.key, r.state, o.document AS observations
FROM manifests m
CROSS JOIN LATERAL (SELECT * FROM runs WHERE plan = m.name ORDER BY number DESC LIMIT 1) r
LEFT JOIN observations o ON o.run = r.id
WHERE m.kind = 'RolloutPlan'
ORDER BY r.created_at DESC, r.id

-- name: claim_due
-- Lease due runs for $3 seconds. A new owner, or the old one after its lease ended, gets a new epoch. What lies
-- further ahead than any poll or lease was written before the clock was set back; waiting for it would stretch it.
WITH due AS (
    SELECT id FROM runs
    WHERE active AND (next_check_at <= now() OR next_check_at > now() + interval '15 minutes')
        AND (
            lease_owner = $1 OR lease_expires_at IS NULL OR lease_expires_at <= now()
            OR lease_expires_at > now() + interval '15 minutes'
        )
    ORDER BY next_check_at LIMIT $2
    FOR NO KEY UPDATE SKIP LOCKED
), claimed AS (
    UPDATE runs SET
        lease_owner = $1,
        lease_epoch = lease_epoch + CASE WHEN lease_owner = $1 AND lease_expires_at > now() THEN 0 ELSE 1 END,
        lease_expires_at = clock_timestamp() + make_interval(secs => $3)
    FROM due WHERE runs.id = due.id
    RETURNING runs.id, runs.state, runs.lease_epoch
)
SELECT c.id, c.state, c.lease_epoch, o.document AS observations
FROM claimed c LEFT JOIN observations o ON o.run = c.id

-- name: postpone
-- Put off runs that cannot be read, so that they do not crowd out the others.
UPDATE runs SET next_check_at = now() + make_interval(secs => $2) WHERE id = ANY($1::text[])

-- name: commit
-- One guarded transition: state, observations and audit entry, or nothing. A concurrent kill holds the flag's
-- row; whoever comes second waits for it and then reads the epoch that the kill left. A raise is undone by an
-- error of its own: RB001 while a replica is absent or a barrier is up, RB002 while a freeze holds that is newer
-- than those it was decided with ($17).
WITH flag AS (
    SELECT kill_epoch FROM flags
    WHERE provider = $1 AND environment = $2 AND key = $3 AND (NOT $4::boolean OR kill_epoch = $5)
    FOR SHARE
), changed AS (
    UPDATE runs SET phase = $6, version = $7, state = $8, next_check_at = now() + make_interval(secs => $9)
    FROM flag
    WHERE runs.id = $10 AND runs.version = $11
        AND ($12::bigint IS NULL OR (lease_epoch = $12 AND lease_expires_at > clock_timestamp()))
        AND lease_owner IS NOT DISTINCT FROM coalesce($16::text, lease_owner)
    RETURNING runs.id, runs.version
), observed AS (
    INSERT INTO observations (run, document)
    SELECT id, $13::json FROM changed WHERE $13::json IS NOT NULL
    ON CONFLICT (run) DO UPDATE SET document = EXCLUDED.document
)
SELECT CASE WHEN $4::boolean THEN append_raise($14, $15, id, version, $17::bigint, $18::timestamptz)
    ELSE append_audit($14, $15, id, version) END
FROM changed

-- name: guards
-- What the guards of a commit would see: to tell which one refused it, or would refuse a raise.
SELECT r.version, f.kill_epoch,
    ($2::bigint IS NULL OR coalesce(r.lease_epoch = $2 AND r.lease_expires_at > clock_timestamp(), false))
        AND r.lease_owner IS NOT DISTINCT FROM coalesce($3::text, r.lease_owner) AS held,
    ARRAY(SELECT name FROM replicas WHERE is_absent(replicas) ORDER BY name) AS absent,
    ARRAY(SELECT seen_at FROM replicas WHERE is_absent(replicas) ORDER BY name) AS absent_seen_at,
    ARRAY(SELECT document FROM barriers WHERE released_at IS NULL ORDER BY raised_at, id) AS barriers
FROM runs r JOIN flags f USING (provider, environment, key)
WHERE r.id = $1

-- name: committed
-- Where an audit entry is, by its own id.
SELECT sequence FROM audit WHERE entry_id = $1

-- name: save_observations
-- Observations and next check of many runs, for those whose lease and version still hold.
WITH batch AS (
    SELECT * FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::json[], $6::float8[])
        AS b (run, lease_epoch, version, document, check_in_seconds)
), held AS (
    SELECT b.* FROM batch b JOIN runs r ON r.id = b.run
    WHERE r.lease_owner = $1 AND r.lease_epoch = b.lease_epoch AND r.lease_expires_at > clock_timestamp()
        AND r.version = b.version
    ORDER BY r.id
    FOR NO KEY UPDATE OF r
), checked AS (
    UPDATE runs SET next_check_at = now() + make_interval(secs => held.check_in_seconds)
    FROM held WHERE runs.id = held.run
)
INSERT INTO observations (run, document) SELECT run, document FROM held
ON CONFLICT (run) DO UPDATE SET document = EXCLUDED.document

-- name: renew
-- Prolong the leases of an owner that have not ended, by $2 seconds from now.
UPDATE runs SET lease_expires_at = clock_timestamp() + make_interval(secs => $2)
WHERE id IN (
    SELECT id FROM runs
    WHERE active AND lease_owner = $1 AND lease_expires_at > now()
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
)

-- name: release
-- Give up the leases of an owner.
UPDATE runs SET lease_owner = NULL, lease_expires_at = NULL
WHERE id IN (SELECT id FROM runs WHERE active AND lease_owner = $1 ORDER BY id FOR NO KEY UPDATE)

-- name: kill_known
-- Whether this kill was recorded before.
SELECT EXISTS (SELECT FROM kills WHERE id = $1)

-- name: add_kill
-- A kill of a locked flag, with the flag's next kill epoch.
WITH flag AS (
    UPDATE flags SET kill_epoch = kill_epoch + 1
    WHERE provider = $2 AND environment = $3 AND key = $4
    RETURNING kill_epoch
)
INSERT INTO kills (id, provider, environment, key, kill_epoch, document)
SELECT $1, $2, $3, $4, kill_epoch, $5 FROM flag

-- name: lock_run_of_flag
-- The run that turned this flag last, locked.
SELECT id, active, phase, state FROM runs WHERE provider = $1 AND environment = $2 AND key = $3
ORDER BY active DESC, created_at DESC, number DESC LIMIT 1
FOR NO KEY UPDATE

-- name: change_run
-- A transition of a locked run.
UPDATE runs SET phase = $2, version = $3, state = $4, next_check_at = now() WHERE id = $1

-- name: end_unreadable_run
-- A kill ends a locked run of which only the columns can be read.
UPDATE runs SET phase = 'killed', version = version + 1, next_check_at = now() WHERE id = $1
RETURNING version

-- name: append_audit
-- An audit entry alone, or in a transaction of several statements.
SELECT append_audit($1, $2, $3, $4)

-- name: confirm_kill
-- The provider was read back; only the first time counts.
UPDATE kills SET confirmed_at = $2 WHERE id = $1 AND confirmed_at IS NULL

-- name: active_kills
-- Kills that no reset covers.
SELECT id, provider, environment, key, document, kill_epoch, confirmed_at FROM kills WHERE reset_at IS NULL
ORDER BY provider, environment, key, kill_epoch

-- name: reset_among
-- Which of these kills a person has reset.
SELECT id FROM kills WHERE id = ANY($1::text[]) AND reset_at IS NOT NULL

-- name: reset_kills
-- A person covers these kills.
UPDATE kills SET reset_at = $2, reset_by = $3 WHERE id = ANY($1::text[]) AND reset_at IS NULL

-- name: check_in
-- Register a replica, or refresh it, if it has merged into the present life; and all that it wants to know.
WITH life AS (
    SELECT database_life() AS life
), counted AS (
    INSERT INTO replicas (name, version, life, seen_at, valid_until)
    SELECT $1, $2, life, clock_timestamp(), clock_timestamp() + make_interval(secs => $4) FROM life WHERE life = $3
    ON CONFLICT (name) DO UPDATE SET version = EXCLUDED.version, life = EXCLUDED.life,
        seen_at = EXCLUDED.seen_at, valid_until = EXCLUDED.valid_until
    RETURNING name
), others AS MATERIALIZED (
    SELECT name, version, seen_at, is_absent(replicas) AS absent FROM replicas WHERE name <> $1
)
SELECT life.life, EXISTS (SELECT FROM counted) AS counted,
    ARRAY(SELECT name FROM others ORDER BY name) AS others,
    ARRAY(SELECT DISTINCT version FROM others ORDER BY version) AS versions,
    ARRAY(SELECT name FROM others WHERE absent ORDER BY name) AS absent,
    ARRAY(SELECT seen_at FROM others WHERE absent ORDER BY name) AS absent_seen_at,
    ARRAY(SELECT document FROM barriers WHERE released_at IS NULL ORDER BY raised_at, id) AS barriers,
    head.sequence, head.hash,
    (SELECT hash FROM audit WHERE sequence = $5::bigint) AS remembered
FROM life CROSS JOIN audit_head AS head

-- name: check_out
-- Nobody waits for this replica.
DELETE FROM replicas WHERE name = $1

-- name: raise_barrier
-- A barrier that was never there before, with its audit entry.
WITH raised AS (
    INSERT INTO barriers (id, document) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING RETURNING id
)
SELECT append_audit($3, $4, NULL, NULL) FROM raised

-- name: forget_absent
-- Wait no longer for replicas that are absent.
DELETE FROM replicas WHERE is_absent(replicas) RETURNING name

-- name: release_barriers
-- A person has looked.
UPDATE barriers SET released_at = $1, released_by = $2 WHERE released_at IS NULL RETURNING id, raised_at

-- name: lead
-- Take or keep the lease of a task.
INSERT INTO leaders (task, owner, expires_at) VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (task) DO UPDATE SET owner = EXCLUDED.owner, expires_at = EXCLUDED.expires_at
WHERE leaders.owner = EXCLUDED.owner OR has_come(leaders.expires_at)
RETURNING owner

-- name: migrations_applied
-- What this database was brought to.
SELECT name FROM migrations ORDER BY name

-- name: condition
-- What the server says of itself, for whoever checks an installation.
SELECT clock_timestamp() AS now, current_setting('server_version') AS version,
    (SELECT max(name) FROM migrations) AS schema, (SELECT sequence FROM audit_head) AS audit_head,
    pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS read_only,
    current_setting('fsync') = 'on' AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
    current_setting('max_connections')::integer AS max_connections

-- name: save_token
-- A new or changed token, with its audit entry; nothing when it is already there as given.
WITH saved AS (
    INSERT INTO tokens (name, digest, document) VALUES ($1, $2, $3)
    ON CONFLICT (name) DO UPDATE SET digest = EXCLUDED.digest, document = EXCLUDED.document
    WHERE tokens.document::text <> EXCLUDED.document::text
    RETURNING name
)
SELECT append_audit($4, $5, NULL, NULL) FROM saved

-- name: revoke_token
-- Forget a token, with the audit entry that says so.
WITH gone AS (DELETE FROM tokens WHERE name = $1 RETURNING name)
SELECT append_audit($2, $3, NULL, NULL) FROM gone

-- name: tokens
-- All tokens.
SELECT name, document FROM tokens ORDER BY name

-- name: save_sdk_key
-- A new or changed SDK key, with its audit entry; nothing when it is already there as given.
WITH saved AS (
    INSERT INTO sdk_keys (name, digest, document) VALUES ($1, $2, $3)
    ON CONFLICT (name) DO UPDATE SET digest = EXCLUDED.digest, document = EXCLUDED.document
    WHERE sdk_keys.document::text <> EXCLUDED.document::text
    RETURNING name
)
SELECT append_audit($4, $5, NULL, NULL) FROM saved

-- name: revoke_sdk_key
-- Forget an SDK key, with the audit entry that says so.
WITH gone AS (DELETE FROM sdk_keys WHERE name = $1 RETURNING name)
SELECT append_audit($2, $3, NULL, NULL) FROM gone

-- name: sdk_keys
-- All SDK keys.
SELECT name, document FROM sdk_keys ORDER BY name

-- name: save_trigger
-- A new or changed address that kills, with its audit entry; nothing when it is already there as given.
WITH saved AS (
    INSERT INTO kill_addresses (name, digest, document) VALUES ($1, $2, $3)
    ON CONFLICT (name) DO UPDATE SET digest = EXCLUDED.digest, document = EXCLUDED.document
    WHERE kill_addresses.document::text <> EXCLUDED.document::text
    RETURNING name
)
SELECT append_audit($4, $5, NULL, NULL) FROM saved

-- name: revoke_trigger
-- Forget an address that kills, with the audit entry that says so.
WITH gone AS (DELETE FROM kill_addresses WHERE name = $1 RETURNING name)
SELECT append_audit($2, $3, NULL, NULL) FROM gone

-- name: triggers
-- All addresses that kill.
SELECT name, document FROM kill_addresses ORDER BY name

-- name: flag_configs
-- All built-in flags.
SELECT environment || '/' || key AS name, document FROM flag_configs ORDER BY environment, key

-- name: flag_config
-- One built-in flag.
SELECT document FROM flag_configs WHERE environment = $1 AND key = $2

-- name: save_flag_config
-- A built-in flag, if its version is a new one, with its audit entry when there is one (else 0).
WITH saved AS (
    INSERT INTO flag_configs (environment, key, version, document) VALUES ($1, $2, $3, $4)
    ON CONFLICT (environment, key) DO UPDATE SET version = EXCLUDED.version, document = EXCLUDED.document
    WHERE flag_configs.version < EXCLUDED.version
    RETURNING key
)
SELECT CASE WHEN $5::text IS NULL THEN 0 ELSE append_audit($5, $6, NULL, NULL) END FROM saved

-- name: audit_oldest_first
-- Links of the chain after a sequence number, of one run when it is named.
SELECT sequence, previous, hash, body FROM audit
WHERE sequence > $1 AND ($3::text IS NULL OR run = $3)
ORDER BY sequence LIMIT $2

-- name: audit_newest_first
-- The same from the end.
SELECT sequence, previous, hash, body FROM audit
WHERE sequence > $1 AND ($3::text IS NULL OR run = $3)
ORDER BY sequence DESC LIMIT $2

-- name: raises_after
-- What was raised after a row of the audit log, and where that ends now. A body begins with its action. Of a long
-- log only the last $2 rows are looked through.
SELECT h.sequence AS head, r.provider, r.environment, r.key, r.plan, a.run, a.body::json ->> 'action' AS action,
    (a.body::json ->> 'at')::timestamptz AS at, (a.body::json #>> '{details,to,exposure}')::integer AS exposure
FROM audit_head h
LEFT JOIN (audit a JOIN runs r ON r.id = a.run)
    ON a.sequence > greatest($1::bigint, h.sequence - $2::bigint)
    AND substr(a.body, 1, 24) ~ '^\{"action":"(start|advance|resume|take_over)"'
ORDER BY a.sequence

-- name: audit_head
-- The last link of the chain.
SELECT sequence, hash FROM audit_head

-- name: unannounced
-- Audit entries that nobody was told of yet.
SELECT sequence, body FROM audit WHERE announced_at IS NULL ORDER BY sequence LIMIT $1
