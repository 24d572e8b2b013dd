-- Blocks come every second or so. With the base of 5 that ClickHouse has, a row is merged a dozen times in its first
-- minutes; with 20 twice, and up to 50 parts stand. Claims and ledger, which every block reads, are merged as ever.
ALTER TABLE events {on_cluster} MODIFY SETTING merge_selector_base = 20;

ALTER TABLE event_ids {on_cluster} MODIFY SETTING merge_selector_base = 20;

ALTER TABLE session_parts {on_cluster} MODIFY SETTING merge_selector_base = 20;

ALTER TABLE session_overrides {on_cluster} MODIFY SETTING merge_selector_base = 20;

ALTER TABLE identity_links {on_cluster} MODIFY SETTING merge_selector_base = 20;

ALTER TABLE daily_parts {on_cluster} MODIFY SETTING merge_selector_base = 20;

ALTER TABLE hourly_parts {on_cluster} MODIFY SETTING merge_selector_base = 20;

ALTER TABLE search_parts {on_cluster} MODIFY SETTING merge_selector_base = 20;

ALTER TABLE content_parts {on_cluster} MODIFY SETTING merge_selector_base = 20;

ALTER TABLE feature_parts {on_cluster} MODIFY SETTING merge_selector_base = 20;
