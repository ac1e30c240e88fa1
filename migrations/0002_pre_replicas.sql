-- Several replicas on one database. All times are this server's.

-- One row for each data directory that may hold kills of its own. `life` is the life of the database that the
-- replica has merged its journal into.
CREATE TABLE replicas (
    name text PRIMARY KEY,
    version text NOT NULL,
    life text NOT NULL,
    seen_at timestamptz NOT NULL,
    valid_until timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Reasons why nothing rises until a person has looked.
CREATE TABLE barriers (
    id text PRIMARY KEY,
    document json NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_at timestamptz,
    released_by text
);

-- Tasks that one replica at a time does.
CREATE TABLE leaders (
    task text PRIMARY KEY,
    owner text NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Another one after every restart, failover and restore: what was accepted in between may be missing here.
CREATE FUNCTION database_life() RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- Whether a time has come. What lies further ahead than any lease was written before the clock was set back.
CREATE FUNCTION has_come(moment timestamptz) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
    SELECT moment <= clock_timestamp() OR moment > clock_timestamp() + interval '15 minutes'
$$;

-- Whether that replica may know of kills that are not in this database.
CREATE FUNCTION is_absent(one replicas) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
    SELECT one.life <> database_life() OR has_come(one.valid_until)
$$;

-- The audit entry of a raise. It looks once more after the last lock was waited for, with a snapshot of its own:
-- an absent replica or a barrier undoes the whole statement, and no raise comes after a barrier in the audit log.
CREATE FUNCTION append_raise(entry_id text, body text, run text, run_version bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    sequence bigint := append_audit(entry_id, body, run, run_version);
BEGIN
    IF EXISTS (SELECT FROM replicas WHERE is_absent(replicas))
        OR EXISTS (SELECT FROM barriers WHERE released_at IS NULL)
    THEN
        RAISE EXCEPTION 'no run may rise' USING ERRCODE = 'RB001';
    END IF;
    RETURN sequence;
END
$$;
