-- Rollups leave bots out. Each keeps the set of visitors; its view maps them to persons when it is read.
CREATE TABLE IF NOT EXISTS daily_parts {on_cluster}
(
    date Date,
    companyId LowCardinality(String),
    eventCategory LowCardinality(String),
    eventAction LowCardinality(String),
    app LowCardinality(String),
    deviceType LowCardinality(String),
    country LowCardinality(String),
    totalEvents SimpleAggregateFunction(sum, UInt64),
    visitors AggregateFunction(groupUniqArray, UInt64)
)
ENGINE = {AggregatingMergeTree:daily_parts}
PARTITION BY toYYYYMM(date)
ORDER BY (companyId, eventCategory, eventAction, date, app, deviceType, country)
SETTINGS {deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS daily_parts_view {on_cluster} TO daily_parts AS
SELECT toDate(timestamp) AS date, companyId, eventCategory, eventAction, app, deviceType, country,
    count() AS totalEvents, groupUniqArrayState(visitor) AS visitors
FROM events WHERE NOT bot
GROUP BY date, companyId, eventCategory, eventAction, app, deviceType, country;

CREATE VIEW IF NOT EXISTS aggregated_events {on_cluster} AS
SELECT date, companyId, eventCategory, eventAction, app, deviceType, country,
    sum(d.totalEvents) AS totalEvents,
    arrayUniq(arrayMap(v -> personOf(v), groupUniqArrayMerge(d.visitors))) AS uniqueUsers
FROM daily_parts AS d
GROUP BY date, companyId, eventCategory, eventAction, app, deviceType, country;

CREATE TABLE IF NOT EXISTS hourly_parts {on_cluster}
(
    hour DateTime('UTC'),
    companyId LowCardinality(String),
    eventCategory LowCardinality(String),
    eventAction LowCardinality(String),
    app LowCardinality(String),
    totalEvents SimpleAggregateFunction(sum, UInt64),
    visitors AggregateFunction(groupUniqArray, UInt64)
)
ENGINE = {AggregatingMergeTree:hourly_parts}
PARTITION BY toYYYYMM(hour)
ORDER BY (companyId, hour, eventCategory, eventAction, app)
SETTINGS {deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS hourly_parts_view {on_cluster} TO hourly_parts AS
SELECT toStartOfHour(toDateTime(timestamp, 'UTC')) AS hour, companyId, eventCategory, eventAction, app,
    count() AS totalEvents, groupUniqArrayState(visitor) AS visitors
FROM events WHERE NOT bot
GROUP BY hour, companyId, eventCategory, eventAction, app;

CREATE VIEW IF NOT EXISTS hourly_events {on_cluster} AS
SELECT hour, companyId, eventCategory, eventAction, app,
    sum(h.totalEvents) AS totalEvents,
    arrayUniq(arrayMap(v -> personOf(v), groupUniqArrayMerge(h.visitors))) AS uniqueUsers
FROM hourly_parts AS h
GROUP BY hour, companyId, eventCategory, eventAction, app;

CREATE TABLE IF NOT EXISTS search_parts {on_cluster}
(
    date Date,
    companyId LowCardinality(String),
    app LowCardinality(String),
    term String,
    searches SimpleAggregateFunction(sum, UInt64),
    failedSearches SimpleAggregateFunction(sum, UInt64),
    clicks SimpleAggregateFunction(sum, UInt64),
    rankSum SimpleAggregateFunction(sum, UInt64),
    visitors AggregateFunction(groupUniqArray, UInt64)
)
ENGINE = {AggregatingMergeTree:search_parts}
PARTITION BY toYYYYMM(date)
ORDER BY (companyId, date, app, term)
SETTINGS {deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS search_parts_view {on_cluster} TO search_parts AS
SELECT toDate(timestamp) AS date, companyId, app, lowerUTF8(trimBoth(JSONExtractString(properties, 'term'))) AS term,
    countIf(eventAction = 'search') AS searches,
    countIf(eventAction = 'search' AND JSONHas(properties, 'results') AND JSONExtractUInt(properties, 'results') = 0) AS failedSearches,
    countIf(eventAction = 'result_click') AS clicks,
    sumIf(JSONExtractUInt(properties, 'rank'), eventAction = 'result_click') AS rankSum,
    groupUniqArrayState(visitor) AS visitors
FROM events WHERE NOT bot AND eventCategory = 'search' AND eventAction IN ('search', 'result_click')
GROUP BY date, companyId, app, term;

CREATE VIEW IF NOT EXISTS searches {on_cluster} AS
SELECT date, companyId, app, term,
    sum(s.searches) AS searches, sum(s.failedSearches) AS failedSearches, sum(s.clicks) AS clicks,
    if(clicks = 0, NULL, sum(s.rankSum) / clicks) AS averageRank,
    arrayUniq(arrayMap(v -> personOf(v), groupUniqArrayMerge(s.visitors))) AS uniqueUsers
FROM search_parts AS s
GROUP BY date, companyId, app, term;

CREATE TABLE IF NOT EXISTS content_parts {on_cluster}
(
    date Date,
    companyId LowCardinality(String),
    app LowCardinality(String),
    contentType LowCardinality(String),
    contentId String,
    title SimpleAggregateFunction(max, String),
    views SimpleAggregateFunction(sum, UInt64),
    helpful SimpleAggregateFunction(sum, UInt64),
    notHelpful SimpleAggregateFunction(sum, UInt64),
    visitors AggregateFunction(groupUniqArray, UInt64)
)
ENGINE = {AggregatingMergeTree:content_parts}
PARTITION BY toYYYYMM(date)
ORDER BY (companyId, date, app, contentType, contentId)
SETTINGS {deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS content_parts_view {on_cluster} TO content_parts AS
SELECT toDate(timestamp) AS date, companyId, app,
    JSONExtractString(properties, 'contentType') AS contentType, JSONExtractString(properties, 'contentId') AS contentId,
    max(JSONExtractString(properties, 'title')) AS title,
    countIf(eventAction = 'view') AS views,
    countIf(eventAction = 'feedback' AND JSONExtractBool(properties, 'helpful')) AS helpful,
    countIf(eventAction = 'feedback' AND NOT JSONExtractBool(properties, 'helpful')) AS notHelpful,
    groupUniqArrayState(visitor) AS visitors
FROM events WHERE NOT bot AND eventCategory = 'content' AND eventAction IN ('view', 'feedback')
GROUP BY date, companyId, app, contentType, contentId;

CREATE VIEW IF NOT EXISTS content {on_cluster} AS
SELECT date, companyId, app, contentType, contentId, max(c.title) AS title,
    sum(c.views) AS views, sum(c.helpful) AS helpful, sum(c.notHelpful) AS notHelpful,
    arrayUniq(arrayMap(v -> personOf(v), groupUniqArrayMerge(c.visitors))) AS uniqueUsers
FROM content_parts AS c
GROUP BY date, companyId, app, contentType, contentId;

CREATE TABLE IF NOT EXISTS feature_parts {on_cluster}
(
    date Date,
    companyId LowCardinality(String),
    app LowCardinality(String),
    feature String,
    uses SimpleAggregateFunction(sum, UInt64),
    visitors AggregateFunction(groupUniqArray, UInt64)
)
ENGINE = {AggregatingMergeTree:feature_parts}
PARTITION BY toYYYYMM(date)
ORDER BY (companyId, date, app, feature)
SETTINGS {deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS feature_parts_view {on_cluster} TO feature_parts AS
SELECT toDate(timestamp) AS date, companyId, app, JSONExtractString(properties, 'feature') AS feature,
    count() AS uses, groupUniqArrayState(visitor) AS visitors
FROM events WHERE NOT bot AND eventCategory = 'feature' AND eventAction = 'use'
GROUP BY date, companyId, app, feature;

CREATE VIEW IF NOT EXISTS features {on_cluster} AS
SELECT date, companyId, app, feature, sum(f.uses) AS uses,
    arrayUniq(arrayMap(v -> personOf(v), groupUniqArrayMerge(f.visitors))) AS uniqueUsers
FROM feature_parts AS f
GROUP BY date, companyId, app, feature;
