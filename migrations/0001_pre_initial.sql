-- The first schema.
--
-- Documents are json, not jsonb: jsonb forgets the order of keys (a flag's variations have one) and refuses
-- texts with a NUL, and nothing here is searched inside a document.

-- What people applied. The row of a manifest is locked while a revision is added or a run is numbered.
CREATE TABLE manifests (
    kind text NOT NULL,
    name text NOT NULL,
    revision integer NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, name)
);

CREATE TABLE manifest_revisions (
    kind text NOT NULL,
    name text NOT NULL,
    revision integer NOT NULL CHECK (revision > 0),
    document json NOT NULL,
    author text NOT NULL,
    applied_at timestamptz NOT NULL,
    PRIMARY KEY (kind, name, revision),
    FOREIGN KEY (kind, name) REFERENCES manifests (kind, name)
);

-- Identity of a flag and how often it was killed. Every raise reads kill_epoch under a lock.
CREATE TABLE flags (
    provider text NOT NULL,
    environment text NOT NULL,
    key text NOT NULL,
    kill_epoch bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (provider, environment, key)
);

CREATE TABLE kills (
    id text PRIMARY KEY,
    provider text NOT NULL,
    environment text NOT NULL,
    key text NOT NULL,
    kill_epoch bigint NOT NULL,
    document json NOT NULL,
    confirmed_at timestamptz,
    reset_at timestamptz,
    reset_by text,
    FOREIGN KEY (provider, environment, key) REFERENCES flags (provider, environment, key)
);

CREATE INDEX kills_of_flag ON kills (provider, environment, key);
CREATE INDEX kills_in_force ON kills (kill_epoch) WHERE reset_at IS NULL;

CREATE TABLE runs (
    id text PRIMARY KEY,
    plan text NOT NULL,
    number integer NOT NULL,
    provider text NOT NULL,
    environment text NOT NULL,
    key text NOT NULL,
    phase text NOT NULL,
    active boolean NOT NULL GENERATED ALWAYS AS (phase IN ('pending', 'progressing', 'paused')) STORED,
    version bigint NOT NULL,
    state json NOT NULL,
    created_at timestamptz NOT NULL,
    next_check_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_owner text,
    lease_epoch bigint NOT NULL DEFAULT 0,
    lease_expires_at timestamptz,
    UNIQUE (plan, number),
    FOREIGN KEY (provider, environment, key) REFERENCES flags (provider, environment, key)
);

-- Partial: a finished run is in neither of these, and costs nothing per tick.
CREATE INDEX runs_due ON runs (next_check_at) WHERE active;
CREATE UNIQUE INDEX runs_one_active_per_flag ON runs (provider, environment, key) WHERE active;
CREATE INDEX runs_of_flag ON runs (provider, environment, key, created_at);

CREATE TABLE observations (
    run text PRIMARY KEY REFERENCES runs (id),
    document json NOT NULL
);

CREATE TABLE audit (
    sequence bigint PRIMARY KEY,
    previous bytea NOT NULL,
    hash bytea NOT NULL,
    body text NOT NULL,
    entry_id text NOT NULL,
    run text,
    run_version bigint,
    announced_at timestamptz,
    CONSTRAINT audit_entry_once UNIQUE (entry_id)
);

-- One effective transition per run version.
CREATE UNIQUE INDEX audit_run_version_once ON audit (run, run_version) WHERE run_version IS NOT NULL;
CREATE INDEX audit_of_run ON audit (run, sequence) WHERE run IS NOT NULL;
CREATE INDEX audit_unannounced ON audit (sequence) WHERE announced_at IS NULL;

CREATE TABLE audit_head (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    sequence bigint NOT NULL,
    hash bytea NOT NULL
) WITH (fillfactor = 10);

INSERT INTO audit_head (sequence, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

CREATE TABLE tokens (
    name text PRIMARY KEY,
    digest bytea NOT NULL CONSTRAINT tokens_digest_once UNIQUE,
    document json NOT NULL
);

CREATE TABLE sdk_keys (
    name text PRIMARY KEY,
    digest bytea NOT NULL CONSTRAINT sdk_keys_digest_once UNIQUE,
    document json NOT NULL
);

CREATE TABLE flag_configs (
    environment text NOT NULL,
    key text NOT NULL,
    version bigint NOT NULL,
    document json NOT NULL,
    PRIMARY KEY (environment, key)
);

-- The one way to write the audit log. The head row is locked last, after flag and run, in every transaction:
-- so sequence numbers have no gaps, and no two transactions wait for each other in a circle.
CREATE FUNCTION append_audit(entry_id text, body text, run text, run_version bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    head audit_head%ROWTYPE;
    link bytea;
BEGIN
    SELECT * INTO STRICT head FROM audit_head FOR UPDATE;
    link := sha256(head.hash || int8send(head.sequence + 1) || convert_to(body, 'UTF8'));
    INSERT INTO audit (sequence, previous, hash, body, entry_id, run, run_version)
    VALUES (head.sequence + 1, head.hash, link, body, entry_id, run, run_version);
    UPDATE audit_head SET sequence = head.sequence + 1, hash = link;
    RETURN head.sequence + 1;
END
$$;
