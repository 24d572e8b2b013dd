-- Some 40 blocks are merged at once instead of 20: in the first 48 million rows each is merged once instead of twice.
ALTER TABLE events {on_cluster} MODIFY SETTING merge_selector_base = 150;
