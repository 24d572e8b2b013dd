-- A part with a file for each column has 118 of them, and a block was one such part. In one file it costs less to write
-- and to delete; what has been merged from several blocks is large enough for files of columns.
ALTER TABLE events {on_cluster} MODIFY SETTING min_bytes_for_wide_part = 134217728;

ALTER TABLE event_ids {on_cluster} MODIFY SETTING min_bytes_for_wide_part = 134217728;

ALTER TABLE session_parts {on_cluster} MODIFY SETTING min_bytes_for_wide_part = 134217728;

-- A merge of all columns at once takes half the CPU of one column by column, and some hundred MB of memory for as long
-- as it lasts. So what is younger than some minutes is merged so; what is larger, as ClickHouse does anyway.
ALTER TABLE events {on_cluster} MODIFY SETTING vertical_merge_algorithm_min_rows_to_activate = 4000000;
