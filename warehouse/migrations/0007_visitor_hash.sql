-- Which partition of the log a row's visitor is of, for a worker that reads its state back: hash modulo partitions. It
-- follows from the sorting key of session_parts, so rows that are merged into one agree on it.
ALTER TABLE event_ids {on_cluster} ADD COLUMN IF NOT EXISTS
    visitorHash UInt32 MATERIALIZED kafkaMurmurHash(concat(companyId, ':', visitorId)) CODEC(NONE);

ALTER TABLE session_parts {on_cluster} ADD COLUMN IF NOT EXISTS
    visitorHash UInt32 MATERIALIZED kafkaMurmurHash(concat(companyId, ':', visitorId)) CODEC(NONE);
