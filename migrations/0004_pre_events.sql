-- Events of applications, counted. All times are this server's. Nothing here is evidence for ever: what is older than
-- the settings keep is deleted.

-- Deliveries that are counted already: an SDK sends one again when it got no answer, perhaps to another replica.
CREATE TABLE event_deliveries (
    id bytea PRIMARY KEY,
    counted_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX event_deliveries_by_age ON event_deliveries USING brin (counted_at);

-- What happened in one slot of time. A row for each replica, so that none waits for another. `bucket` is one of the
-- histogram of values, or one that stands for all events; `contexts` are hashes, eight bytes each, the same perhaps
-- more than once. Without a variation `cohort` says why there is none.
CREATE TABLE event_counts (
    flag text NOT NULL,
    event text NOT NULL,
    slot timestamptz NOT NULL,
    environment text NOT NULL,
    variation text NOT NULL,
    cohort text NOT NULL,
    exposure integer NOT NULL,
    bucket smallint NOT NULL,
    replica text NOT NULL,
    count bigint NOT NULL,
    contexts bytea NOT NULL,
    counted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (flag, event, slot, environment, variation, cohort, exposure, bucket, replica)
) WITH (fillfactor = 70);
CREATE INDEX event_counts_by_age ON event_counts USING brin (slot);

-- What somebody asks for, and since when every replica counts it.
CREATE TABLE event_watches (
    flag text NOT NULL,
    metric text NOT NULL,
    since timestamptz NOT NULL,
    asked_at timestamptz NOT NULL,
    PRIMARY KEY (flag, metric)
);

-- Until when deliveries came in that were not counted: nothing is said of a window that reaches behind that.
CREATE TABLE event_gaps (
    environment text PRIMARY KEY,
    until timestamptz NOT NULL,
    missed bigint NOT NULL
);
