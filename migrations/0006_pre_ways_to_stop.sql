-- Other ways to stop: freezes of the organisation, and addresses that kill one flag.

-- Freezes of the organisation. `number` is the audit row that added one: that row's lock is held until the end of
-- the transaction, so whoever reads a freeze has read every one with a lower number, too.
CREATE TABLE freezes (
    number bigint PRIMARY KEY,
    name text NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    lifted_at timestamptz,
    document json NOT NULL
);

CREATE INDEX freezes_standing ON freezes (number) WHERE lifted_at IS NULL;

CREATE TRIGGER told AFTER INSERT OR UPDATE ON freezes
    FOR EACH ROW EXECUTE FUNCTION tell_replicas('freezes');

-- A freeze and its audit entry; NULL, and nothing happened, when one of that name is not over yet.
CREATE FUNCTION add_freeze(
    wanted text, starts_at timestamptz, ends_at timestamptz, document json, at timestamptz, entry_id text, body text
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    sequence bigint;
BEGIN
    -- The last of all locks, a little early: of two at the same time the second must see the first.
    PERFORM FROM audit_head FOR UPDATE;
    IF EXISTS (
        SELECT FROM freezes f WHERE f.name = wanted AND f.lifted_at IS NULL AND f.ends_at > add_freeze.at
    ) THEN
        RETURN NULL;
    END IF;
    sequence := append_audit(entry_id, body, NULL, NULL);
    INSERT INTO freezes VALUES (sequence, wanted, starts_at, ends_at, NULL, document);
    RETURN sequence;
END
$$;

-- The audit entry of a start or an advance that was decided at `at` with knowledge of the freezes up to `known`;
-- of another raise `known` is NULL, and no freeze stands against it.
CREATE FUNCTION append_raise(
    entry_id text, body text, run text, run_version bigint, known bigint, at timestamptz
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    sequence bigint := append_audit(entry_id, body, run, run_version);
BEGIN
    IF EXISTS (SELECT FROM replicas WHERE is_absent(replicas))
        OR EXISTS (SELECT FROM barriers WHERE released_at IS NULL)
    THEN
        RAISE EXCEPTION 'no run may rise' USING ERRCODE = 'RB001';
    END IF;
    IF EXISTS (
        SELECT FROM freezes
        WHERE number > known AND lifted_at IS NULL AND starts_at <= append_raise.at AND ends_at > append_raise.at
    ) THEN
        RAISE EXCEPTION 'a freeze began' USING ERRCODE = 'RB002';
    END IF;
    RETURN sequence;
END
$$;

-- As a replica of an earlier version calls it, during an upgrade. It knows of no freeze, nor whom one covers.
CREATE OR REPLACE FUNCTION append_raise(entry_id text, body text, run text, run_version bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM freezes
        WHERE lifted_at IS NULL AND starts_at <= clock_timestamp() AND ends_at > clock_timestamp()
    ) THEN
        RAISE EXCEPTION 'no run may rise' USING ERRCODE = 'RB001';
    END IF;
    RETURN append_raise(entry_id, body, run, run_version, NULL, clock_timestamp());
END
$$;

-- Addresses that kill one flag and do nothing else. Only the digest of the address is here.
CREATE TABLE kill_addresses (
    name text PRIMARY KEY,
    digest bytea NOT NULL CONSTRAINT kill_addresses_digest_once UNIQUE,
    document json NOT NULL
);

CREATE TRIGGER told AFTER INSERT OR UPDATE OR DELETE ON kill_addresses
    FOR EACH ROW EXECUTE FUNCTION tell_replicas('kill_addresses');
