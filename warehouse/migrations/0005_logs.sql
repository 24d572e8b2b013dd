-- Which topic, by the broker's own id of it, is known by which log id: a topic that was created anew is another log.
CREATE TABLE IF NOT EXISTS logs {on_cluster}
(
    clusterId String,
    topic LowCardinality(String),
    topicId String COMMENT 'empty where the broker gives topics no id',
    logId String,
    number UInt32 COMMENT 'the last one counts',
    notedAt DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = {MergeTree:logs}
ORDER BY (clusterId, topic, number)
SETTINGS {deduplication};
