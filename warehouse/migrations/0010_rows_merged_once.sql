-- Some 40 blocks are merged at once instead of 20, and what they have become again after 40 such merges, 1,600 blocks.
ALTER TABLE events {on_cluster} MODIFY SETTING merge_selector_base = 150;
