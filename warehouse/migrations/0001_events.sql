-- One row an event. The context's fields are columns of the same names. Sorted by the minute and not by the millisecond:
-- blocks come in the order of time, so a merge takes thousands of rows of one after the other instead of row by row.
CREATE TABLE IF NOT EXISTS events {on_cluster}
(
    eventId String CODEC(ZSTD(1)),
    timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    receivedAt DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    companyId LowCardinality(String),
    userId String CODEC(ZSTD(1)),
    anonymousId String CODEC(ZSTD(1)),
    previousId String CODEC(ZSTD(1)),
    sessionId String CODEC(ZSTD(1)),
    type LowCardinality(String),
    identity LowCardinality(String) COMMENT 'link: anonymousId is userId; alias: previousId is userId; else empty',
    eventCategory LowCardinality(String),
    eventAction LowCardinality(String),
    eventLabel String CODEC(ZSTD(1)),
    value Nullable(Float64),
    properties String CODEC(ZSTD(1)),
    app LowCardinality(String),
    appVersion LowCardinality(String),
    browser LowCardinality(String),
    browserVersion LowCardinality(String),
    os LowCardinality(String),
    osVersion LowCardinality(String),
    deviceType LowCardinality(String),
    screenResolution LowCardinality(String),
    ip String CODEC(ZSTD(1)),
    country LowCardinality(String),
    timezone LowCardinality(String),
    locale LowCardinality(String),
    url String CODEC(ZSTD(1)),
    path String CODEC(ZSTD(1)),
    title String CODEC(ZSTD(1)),
    referrer String CODEC(ZSTD(1)),
    referrerDomain LowCardinality(String),
    channel LowCardinality(String),
    utmSource LowCardinality(String),
    utmMedium LowCardinality(String),
    utmCampaign LowCardinality(String),
    utmTerm LowCardinality(String),
    utmContent LowCardinality(String),
    userAgent String CODEC(ZSTD(1)),
    library LowCardinality(String),
    libraryVersion LowCardinality(String),
    bot Bool,
    logId LowCardinality(String),
    logPartition UInt32 CODEC(ZSTD(1)),
    logOffset UInt64 CODEC(Delta, ZSTD(1)),
    journal LowCardinality(String) COMMENT 'the collector journal that sent the record; empty: none',
    sequence UInt64 CODEC(Delta, ZSTD(1)),
    storedAt DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    visitorId String MATERIALIZED if(anonymousId != '', anonymousId, userId) CODEC(ZSTD(1)),
    visitor UInt64 MATERIALIZED sipHash64(companyId, if(anonymousId != '', anonymousId, userId)) CODEC(ZSTD(1)),
    INDEX logId logId TYPE set(16) GRANULARITY 8
)
ENGINE = {MergeTree:events}
PARTITION BY toYYYYMM(timestamp)
ORDER BY (companyId, eventCategory, eventAction, toStartOfMinute(timestamp))
TTL toDateTime(timestamp) + toIntervalMonth({retention_months})
SETTINGS {deduplication};

-- Every event's id, sorted by it: duplicates older than the workers' memory, and receipts, are looked up here. In small
-- granules, since each id that is looked up is in one of its own.
CREATE TABLE IF NOT EXISTS event_ids {on_cluster}
(
    companyId LowCardinality(String),
    eventId String CODEC(ZSTD(1)),
    timestamp DateTime64(3, 'UTC') CODEC(ZSTD(1)),
    receivedAt DateTime64(3, 'UTC') CODEC(ZSTD(1)),
    eventCategory LowCardinality(String),
    eventAction LowCardinality(String),
    visitorId String CODEC(ZSTD(1)),
    logId LowCardinality(String),
    logPartition UInt32 CODEC(ZSTD(1)),
    logOffset UInt64 CODEC(ZSTD(1)),
    INDEX receivedAt receivedAt TYPE minmax GRANULARITY 1
)
ENGINE = {MergeTree:event_ids}
PARTITION BY toYYYYMM(timestamp)
ORDER BY (companyId, eventId)
TTL toDateTime(timestamp) + toIntervalMonth({retention_months})
SETTINGS {deduplication}, index_granularity = 2048;

CREATE MATERIALIZED VIEW IF NOT EXISTS event_ids_view {on_cluster} TO event_ids AS
SELECT companyId, eventId, timestamp, receivedAt, eventCategory, eventAction, visitorId, logId, logPartition, logOffset
FROM events;
