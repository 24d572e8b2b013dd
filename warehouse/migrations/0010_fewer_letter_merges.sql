-- As for events: a block with dead letters is a part of them, their payloads are compressed with care, and each merge
-- sorts and compresses them again, by key and by event.
ALTER TABLE dead_letters {on_cluster} MODIFY SETTING merge_selector_base = 20;
