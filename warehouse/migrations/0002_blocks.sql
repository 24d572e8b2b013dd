-- Who writes which offsets: the first row under a token (logId/topic/partition/start) decides where its block ends.
CREATE TABLE IF NOT EXISTS block_claims {on_cluster}
(
    logId LowCardinality(String),
    topic LowCardinality(String),
    partition UInt32,
    start UInt64,
    end UInt64,
    worker String,
    claimedAt DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = {MergeTree:block_claims}
ORDER BY (topic, partition, logId, start)
TTL toDateTime(claimedAt) + toIntervalDay(30)
SETTINGS {deduplication};

-- The ledger: one row for each block that is stored whole, written last.
CREATE TABLE IF NOT EXISTS blocks {on_cluster}
(
    logId LowCardinality(String),
    topic LowCardinality(String),
    partition UInt32,
    start UInt64 CODEC(Delta, ZSTD(1)),
    end UInt64 CODEC(Delta, ZSTD(1)),
    worker LowCardinality(String),
    records UInt32 COMMENT 'records of the range',
    redelivered UInt32 COMMENT 'records sent again by a journal and stored already; their events count nowhere',
    events UInt32 COMMENT 'stored + duplicate + dead',
    stored UInt32,
    duplicate UInt32,
    dead UInt32,
    journals Map(String, UInt64) COMMENT 'highest sequence of each journal in the range',
    firstReceivedAt DateTime64(3, 'UTC'),
    lastReceivedAt DateTime64(3, 'UTC'),
    storedAt DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = {MergeTree:blocks}
ORDER BY (topic, partition, logId, start)
SETTINGS {deduplication};

-- Dead letters, readable and replayable. The key is the failure's coordinates, so a letter written again replaces itself.
CREATE TABLE IF NOT EXISTS dead_letters {on_cluster}
(
    key String,
    companyId LowCardinality(String),
    source LowCardinality(String),
    reason LowCardinality(String),
    field String,
    message String,
    eventId String,
    logId LowCardinality(String),
    topic LowCardinality(String),
    partition Int32,
    offset Int64,
    position Int32,
    receivedAt DateTime64(3, 'UTC'),
    failedAt DateTime64(3, 'UTC'),
    contentType LowCardinality(String),
    payload String CODEC(ZSTD(3)),
    truncated Bool,
    storedAt DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = {ReplacingMergeTree:dead_letters}
ORDER BY (companyId, key)
SETTINGS {deduplication};
