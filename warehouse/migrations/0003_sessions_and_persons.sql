-- A session as its events say, under the id they were stored with.
CREATE TABLE IF NOT EXISTS session_parts {on_cluster}
(
    month UInt32,
    companyId LowCardinality(String),
    visitorId String CODEC(ZSTD(1)),
    sessionId String CODEC(ZSTD(1)),
    startedAt SimpleAggregateFunction(min, DateTime64(3, 'UTC')),
    endedAt SimpleAggregateFunction(max, DateTime64(3, 'UTC')),
    events SimpleAggregateFunction(sum, UInt64),
    pageViews SimpleAggregateFunction(sum, UInt64),
    entry SimpleAggregateFunction(min, Tuple(DateTime64(3, 'UTC'), String, String, String, String, String)) COMMENT 'at, path, referrerDomain, channel, utmSource, utmCampaign',
    exit SimpleAggregateFunction(max, Tuple(DateTime64(3, 'UTC'), String)) COMMENT 'at, path',
    app SimpleAggregateFunction(max, String),
    deviceType SimpleAggregateFunction(max, String),
    country SimpleAggregateFunction(max, String),
    bot SimpleAggregateFunction(max, Bool),
    INDEX endedAt endedAt TYPE minmax GRANULARITY 1
)
ENGINE = {AggregatingMergeTree:session_parts}
PARTITION BY month
ORDER BY (companyId, visitorId, sessionId)
SETTINGS {deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS session_parts_view {on_cluster} TO session_parts AS
SELECT
    toYYYYMM(timestamp) AS month, companyId, visitorId, sessionId,
    min(timestamp) AS startedAt, max(timestamp) AS endedAt, count() AS events, countIf(type = 'page') AS pageViews,
    min(tuple(timestamp, path, referrerDomain, toString(channel), toString(utmSource), toString(utmCampaign))) AS entry,
    max(tuple(timestamp, path)) AS exit,
    max(toString(events.app)) AS app, max(toString(events.deviceType)) AS deviceType, max(toString(events.country)) AS country,
    max(events.bot) AS bot
FROM events
GROUP BY month, companyId, visitorId, sessionId;

-- Sessions that a late event has joined: the later id is read as the earlier one. The earliest target wins.
CREATE TABLE IF NOT EXISTS session_overrides {on_cluster}
(
    companyId LowCardinality(String),
    visitorId String,
    sessionId String,
    target SimpleAggregateFunction(min, Tuple(DateTime64(3, 'UTC'), String)) COMMENT 'start of the session, its id'
)
ENGINE = {AggregatingMergeTree:session_overrides}
ORDER BY (companyId, visitorId, sessionId)
SETTINGS {deduplication};

CREATE DICTIONARY IF NOT EXISTS session_targets {on_cluster} (sessionId String, target String)
PRIMARY KEY sessionId
SOURCE(CLICKHOUSE(QUERY 'SELECT sessionId, tupleElement(min(target), 2) AS target FROM {database}.session_overrides GROUP BY sessionId' INVALIDATE_QUERY 'SELECT sum(rows), max(modification_time), count() FROM system.parts WHERE database = \'{database}\' AND table = \'session_overrides\' AND active' {dictionary_user}))
LAYOUT(COMPLEX_KEY_HASHED())
LIFETIME(MIN 1 MAX 2);

-- An anonymousId's links to users; the earliest by event time wins, whatever the order of arrival.
CREATE TABLE IF NOT EXISTS identity_links {on_cluster}
(
    companyId LowCardinality(String),
    anonymousId String,
    link SimpleAggregateFunction(min, Tuple(DateTime64(3, 'UTC'), String)) COMMENT 'at, userId'
)
ENGINE = {AggregatingMergeTree:identity_links}
ORDER BY (companyId, anonymousId)
SETTINGS {deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS identity_links_view {on_cluster} TO identity_links AS
SELECT companyId, anonymousId, min(tuple(timestamp, userId)) AS link
FROM events WHERE identity = 'link' GROUP BY companyId, anonymousId;

-- Pairs of ids that are one user.
CREATE TABLE IF NOT EXISTS identity_aliases {on_cluster}
(
    companyId LowCardinality(String),
    previousId String,
    userId String
)
ENGINE = {ReplacingMergeTree:identity_aliases}
ORDER BY (companyId, previousId, userId)
SETTINGS {deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS identity_aliases_view {on_cluster} TO identity_aliases AS
SELECT DISTINCT companyId, previousId, userId FROM events WHERE identity = 'alias';

-- The person of each id that stands in an alias, computed from all pairs of the tenant; more pairs win over fewer.
CREATE TABLE IF NOT EXISTS alias_persons {on_cluster}
(
    companyId LowCardinality(String),
    id String,
    person String,
    pairs UInt64
)
ENGINE = {ReplacingMergeTree:alias_persons,pairs}
ORDER BY (companyId, id)
SETTINGS {deduplication};

CREATE DICTIONARY IF NOT EXISTS visitor_users {on_cluster} (visitor UInt64, user UInt64, userId String)
PRIMARY KEY visitor
SOURCE(CLICKHOUSE(QUERY 'SELECT sipHash64(companyId, anonymousId) AS visitor, sipHash64(companyId, tupleElement(min(link), 2)) AS user, tupleElement(min(link), 2) AS userId FROM {database}.identity_links GROUP BY companyId, anonymousId' INVALIDATE_QUERY 'SELECT sum(rows), max(modification_time), count() FROM system.parts WHERE database = \'{database}\' AND table = \'identity_links\' AND active' {dictionary_user}))
LAYOUT(HASHED())
LIFETIME(MIN 1 MAX 2);

CREATE DICTIONARY IF NOT EXISTS user_persons {on_cluster} (user UInt64, person UInt64, personId String)
PRIMARY KEY user
SOURCE(CLICKHOUSE(QUERY 'SELECT sipHash64(companyId, id) AS user, sipHash64(companyId, latest) AS person, latest AS personId FROM (SELECT companyId, id, argMax(a.person, a.pairs) AS latest FROM {database}.alias_persons AS a GROUP BY companyId, id)' INVALIDATE_QUERY 'SELECT sum(rows), max(modification_time), count() FROM system.parts WHERE database = \'{database}\' AND table = \'alias_persons\' AND active' {dictionary_user}))
LAYOUT(HASHED())
LIFETIME(MIN 1 MAX 2);

CREATE VIEW IF NOT EXISTS sessions {on_cluster} AS
SELECT
    companyId,
    resolved AS sessionId,
    visitorId,
    personOf(sipHash64(companyId, visitorId)) AS person,
    min(s.startedAt) AS startedAt,
    max(s.endedAt) AS endedAt,
    dateDiff('millisecond', startedAt, endedAt) / 1000 AS durationSeconds,
    sum(s.events) AS events,
    sum(s.pageViews) AS pageViews,
    tupleElement(min(s.entry), 2) AS entryPath,
    tupleElement(max(s.exit), 2) AS exitPath,
    tupleElement(min(s.entry), 3) AS referrerDomain,
    tupleElement(min(s.entry), 4) AS channel,
    tupleElement(min(s.entry), 5) AS utmSource,
    tupleElement(min(s.entry), 6) AS utmCampaign,
    max(s.app) AS app,
    max(s.deviceType) AS deviceType,
    max(s.country) AS country,
    max(s.bot) AS bot
FROM
(
    SELECT *, dictGetOrDefault('{database}.session_targets', 'target', tuple(sessionId), sessionId) AS resolved
    FROM session_parts
) AS s
GROUP BY companyId, visitorId, resolved;
