-- What channels have to be told yet, and what they could not be told. A row is there from the moment its audit entry
-- counts as announced until the channel has taken it. All times are this server's.
CREATE TABLE notifications (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel text NOT NULL,
    -- Messages of one thread are told in order: the flag.
    thread text NOT NULL,
    sequence bigint NOT NULL,
    -- The audit entry's; whoever is told twice knows it by that.
    message text NOT NULL,
    document json NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts integer NOT NULL DEFAULT 0,
    why text NOT NULL DEFAULT '',
    -- Since when it is a dead letter: nobody tries it again unless a person says so.
    died_at timestamptz,
    CONSTRAINT notifications_once UNIQUE (channel, message)
);
CREATE INDEX notifications_waiting ON notifications (channel, thread, sequence) WHERE died_at IS NULL;
CREATE INDEX notifications_dead ON notifications (channel, id) WHERE died_at IS NOT NULL;
