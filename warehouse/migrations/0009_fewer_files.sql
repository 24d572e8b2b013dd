-- A part with a file for each column has 118 of them, and a block was one such part. In one file it costs less to write
-- and to delete; what has been merged from several blocks is large enough for files of columns.
ALTER TABLE events {on_cluster} MODIFY SETTING min_bytes_for_wide_part = 134217728;

ALTER TABLE event_ids {on_cluster} MODIFY SETTING min_bytes_for_wide_part = 134217728;

ALTER TABLE session_parts {on_cluster} MODIFY SETTING min_bytes_for_wide_part = 134217728;
