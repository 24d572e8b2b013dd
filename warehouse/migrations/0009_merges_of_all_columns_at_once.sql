-- A merge of all columns at once takes half the CPU of one column by column, and some hundred MB of memory for as long
-- as it lasts. So what is younger than some minutes is merged so; what is larger, as ClickHouse does anyway.
ALTER TABLE events {on_cluster} MODIFY SETTING vertical_merge_algorithm_min_rows_to_activate = 4000000;
